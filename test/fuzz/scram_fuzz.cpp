#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "wire/base64.h"
#include "wire/scram.h"

namespace {

using namespace pgxc::wire;

void require(bool holds) {
    if (!holds) std::abort();
}

constexpr std::array<std::uint8_t, 18> random_bytes = {1,  2,  3,  4,  5,  6,  7,  8,  9,
                                                       10, 11, 12, 13, 14, 15, 16, 17, 18};

}  // namespace

/// The first byte chooses which message the rest is; no input proves itself.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    const ScramSecret secret = mock_scram_secret("alice", "nonce");
    switch (data[0] % 7) {
        case 0: {
            ScramServerExchange server(secret, false, random_bytes);
            if (const auto first = server.client_first(text); first.ok()) {
                require(first->starts_with("r="));
                (void)server.client_final(text);
            }
            break;
        }
        case 1: {
            ScramServerExchange server(secret, false, random_bytes);
            require(server.client_first("n,,n=,r=x").ok());
            if (const auto final = server.client_final(text); final.ok()) require(!final->has_value());
            require(!server.client_keys().has_value());
            break;
        }
        case 2: {
            // Keys, so that no iteration count of the input costs time.
            ScramClientExchange client(ScramClientKeys{}, random_bytes);
            (void)client.server_first(text);
            break;
        }
        case 3: {
            ScramClientExchange client(ScramClientKeys{}, random_bytes);
            require(client.server_first("r=" + client.first().substr(8) + "x,s=AAAA,i=1").ok());
            require(!client.server_final(text).ok());
            break;
        }
        case 6: {
            ScramServerExchange server(secret, false, random_bytes);
            server.bind_channel("end point", size % 2 == 0);
            if (server.client_first(text).ok()) (void)server.client_final(text);
            ScramServerExchange bound(secret, false, random_bytes);
            bound.bind_channel("end point", true);
            require(bound.client_first("p=tls-server-end-point,,n=,r=x").ok());
            if (const auto final = bound.client_final(text); final.ok()) require(!final->has_value());
            break;
        }
        case 4:
            if (const auto parsed = parse_scram_secret(text))
                require(parse_scram_secret(to_string(*parsed)) == parsed);
            break;
        case 5:
            if (const auto decoded = base64_decode(text)) require(base64_encode(*decoded) == text);
            require(base64_decode(base64_encode(text)) == text);
            (void)is_md5_secret(text);
            break;
        default:
            break;
    }
    return 0;
}
