#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "wire/bytes.h"

namespace pgxc::wire {

inline constexpr std::uint32_t protocol_3_0 = 3U << 16U;
inline constexpr std::uint32_t cancel_request_code = 1234U << 16U | 5678U;
inline constexpr std::uint32_t ssl_request_code = 1234U << 16U | 5679U;
inline constexpr std::uint32_t gssenc_request_code = 1234U << 16U | 5680U;

/// Single bytes that answer an SSLRequest or GSSENCRequest.
inline constexpr char ssl_accepted = 'S';
inline constexpr char gssenc_accepted = 'G';
inline constexpr char encryption_refused = 'N';

using Setting = std::pair<std::string, std::string>;  // name, value

/// What the startup parameter "replication" asks for.
enum class ReplicationRequest : std::uint8_t { None, Physical, Database };

struct SslRequest {};
struct GssEncRequest {};

struct CancelRequest {
    std::uint32_t pid = 0;
    std::uint32_t secret = 0;
};

/// A client's startup message, taken apart. Names are cut to 63 bytes as the server does.
struct StartupMessage {
    std::uint16_t minor = 0;  // of protocol 3
    std::string user;         // never empty
    std::string database;     // the user's name where the client gave none
    std::string options;      // without pgxc.*, otherwise as the client wrote it: may be sent on to a server
    ReplicationRequest replication = ReplicationRequest::None;
    /// All other parameters in the client's order (application_name, client_encoding, ...), without pgxc.*
    /// and _pq_.*
    std::vector<Setting> parameters;
    /// -c name=value and --name=value of `options`, in order; they come before `parameters` in force.
    std::vector<Setting> options_settings;
    /// `options` has something else than settings (-E, a stray word, ...): only a server can judge it.
    bool options_have_switches = false;
    /// Our own settings, from options and parameters; name in lower case, the last of a name is in force.
    std::vector<Setting> own_settings;
    /// Names of _pq_.* options: none is known, NegotiateProtocolVersion tells the client so.
    std::vector<std::string> unknown_protocol_options;

    /// True if the client must be sent NegotiateProtocolVersion before anything else.
    [[nodiscard]] bool wants_negotiation() const { return minor > 0 || !unknown_protocol_options.empty(); }
    /// The value in force of one of our settings, e.g. own("pgxc.node"); nullopt if the client didn't give
    /// it.
    [[nodiscard]] std::optional<std::string_view> own(std::string_view name) const;
    [[nodiscard]] std::optional<std::string_view> node() const { return own("pgxc.node"); }
    [[nodiscard]] std::optional<std::string_view> read_routing() const { return own("pgxc.read_routing"); }
    /// The value in force of a server setting as the client gave it (any case), options first, parameters
    /// over them.
    [[nodiscard]] std::optional<std::string_view> setting(std::string_view name) const;
};

using StartupPacket = std::variant<SslRequest, GssEncRequest, CancelRequest, StartupMessage>;

/// The length of the packet at the front of `buffer`, its length word included; nullopt while that isn't
/// known. Error (08P01): the length is not one of a startup packet: garbage, or another protocol. The server
/// then closes without an answer.
[[nodiscard]] Result<std::optional<std::size_t>> startup_packet_bytes(Bytes buffer);

/// Takes one whole packet apart (its length word included). Errors are those of ProcessStartupPacket: 08P01
/// layout, 0A000 another protocol version, 28000 no user, 22023 replication.
[[nodiscard]] Result<StartupPacket> parse_startup_packet(Bytes packet);

/// An argument of `options`, as the server's pg_split_opts cuts them.
struct OptionArgument {
    std::string text;       // escapes undone
    std::size_t begin = 0;  // where it stands in the options text
    std::size_t end = 0;
};
[[nodiscard]] std::vector<OptionArgument> split_options(std::string_view options);

/// Writes a value so that split_options reads it back as one argument.
[[nodiscard]] std::string escape_option(std::string_view text);

/// Appends a startup message to a server. `parameters` without user and database; empty `database` is left
/// out.
void put_startup_message(Buffer& out, std::string_view user, std::string_view database,
                         std::span<const Setting> parameters);
void put_ssl_request(Buffer& out);
void put_cancel_request(Buffer& out, const CancelRequest& request);
/// Appends the answer to a client that wants more than protocol 3.0.
void put_negotiate_protocol_version(Buffer& out, const StartupMessage& startup);

}  // namespace pgxc::wire
