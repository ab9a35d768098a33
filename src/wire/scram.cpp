#include "wire/scram.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <utility>

#include "base/text.h"
#include "wire/base64.h"

namespace pgxc::wire {
namespace {

constexpr std::string_view secret_prefix = "SCRAM-SHA-256$";
constexpr std::string_view end_point_binding = "tls-server-end-point";
constexpr std::size_t mock_salt_bytes = 16;  // SCRAM_DEFAULT_SALT_LEN

const unsigned char* bytes_of(std::string_view text) {
    return reinterpret_cast<const unsigned char*>(text.data());  // NOLINT: OpenSSL's idea of a byte
}

std::string_view text_of(std::span<const std::uint8_t> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// SHA-256 fails only when memory is gone or OpenSSL itself is broken: not a case to go on in.
void require(bool done) {
    if (!done) throw std::runtime_error("OpenSSL failed to compute a hash");
}

ScramKey hmac(const ScramKey& key, std::string_view text) {
    ScramKey result{};
    require(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), bytes_of(text), text.size(),
                 result.data(), nullptr) != nullptr);
    return result;
}

ScramKey hash(std::string_view text) {
    ScramKey result{};
    require(SHA256(bytes_of(text), text.size(), result.data()) != nullptr);
    return result;
}

ScramKey operator^(const ScramKey& a, const ScramKey& b) {
    ScramKey result{};
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = a[i] ^ b[i];
    return result;
}

bool equal_keys(const ScramKey& a, const ScramKey& b) {
    return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

/// The client's and the server's key of a password.
ScramClientKeys derive_keys(std::string_view password, std::string_view salt, int iterations) {
    ScramKey salted{};
    require(PKCS5_PBKDF2_HMAC(password.data(), static_cast<int>(password.size()), bytes_of(salt),
                              static_cast<int>(salt.size()), iterations, EVP_sha256(),
                              static_cast<int>(salted.size()), salted.data()) == 1);
    ScramClientKeys keys{hmac(salted, "Client Key"), hmac(salted, "Server Key")};
    OPENSSL_cleanse(salted.data(), salted.size());
    return keys;
}

std::optional<ScramKey> decode_key(std::string_view text) {
    const auto raw = base64_decode(text);
    if (!raw || raw->size() != ScramKey{}.size()) return std::nullopt;
    ScramKey key{};
    std::copy(raw->begin(), raw->end(), key.begin());
    return key;
}

std::string encode(std::span<const std::uint8_t> bytes) {
    return base64_encode(text_of(bytes));
}

std::optional<int> parse_iterations(std::string_view text) {
    int iterations = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), iterations);
    if (error != std::errc{} || end != text.data() + text.size() || iterations < 1) return std::nullopt;
    return iterations;
}

Error malformed(std::string detail) {
    return {sqlstate::protocol_violation, "malformed SCRAM message", {}, std::move(detail)};
}

/// RFC 5802: %x21-2B / %x2D-7E, printable ASCII but the comma.
bool is_printable(std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x21 && c <= 0x7E && c != ','; });
}

/// Reads "a=value,b=value": read_attr_value and read_any_attr of auth-scram.c.
class AttributeReader {
  public:
    explicit AttributeReader(std::string_view message) : message_(message) {}
    [[nodiscard]] bool at_end() const { return at_ == message_.size(); }
    [[nodiscard]] std::size_t position() const { return at_; }
    [[nodiscard]] char peek() const { return at_end() ? '\0' : message_[at_]; }

    [[nodiscard]] Result<std::string_view> value(char attribute) {
        if (peek() != attribute) return malformed(std::string("Attribute \"") + attribute + "\" expected.");
        auto read = any();
        if (!read) return std::move(read).error();
        return read->second;
    }
    [[nodiscard]] Result<std::pair<char, std::string_view>> any() {
        const char attribute = peek();
        const bool letter = (attribute >= 'A' && attribute <= 'Z') || (attribute >= 'a' && attribute <= 'z');
        if (!letter || at_ + 1 >= message_.size() || message_[at_ + 1] != '=')
            return malformed("Attribute expected.");
        const std::size_t begin = at_ + 2;
        const std::size_t end = std::min(message_.find(',', begin), message_.size());
        at_ = std::min(end + 1, message_.size());
        return std::pair{attribute, message_.substr(begin, end - begin)};
    }

  private:
    std::string_view message_;
    std::size_t at_ = 0;
};

Status check_text(std::string_view message) {
    if (message.empty()) return malformed("The message is empty.");
    if (message.find('\0') != std::string_view::npos)
        return malformed("Message length does not match input length.");
    return {};
}

std::string md5_hex(std::string_view text) {
    std::array<unsigned char, 16> digest{};
    unsigned length = 0;
    if (EVP_Digest(text.data(), text.size(), digest.data(), &length, EVP_md5(), nullptr) != 1 ||
        length != digest.size())
        return {};
    return to_hex(digest);
}

}  // namespace

std::optional<ScramSecret> parse_scram_secret(std::string_view stored) {
    if (!stored.starts_with(secret_prefix)) return std::nullopt;
    stored.remove_prefix(secret_prefix.size());
    const auto colon = stored.find(':');
    if (colon == std::string_view::npos) return std::nullopt;
    const auto dollar = stored.find('$', colon);
    if (dollar == std::string_view::npos) return std::nullopt;
    const auto second_colon = stored.find(':', dollar);
    if (second_colon == std::string_view::npos) return std::nullopt;

    const auto iterations = parse_iterations(stored.substr(0, colon));
    const auto salt = base64_decode(stored.substr(colon + 1, dollar - colon - 1));
    const auto stored_key = decode_key(stored.substr(dollar + 1, second_colon - dollar - 1));
    const auto server_key = decode_key(stored.substr(second_colon + 1));
    if (!iterations || !salt || salt->empty() || !stored_key || !server_key) return std::nullopt;
    return ScramSecret{*iterations, *salt, *stored_key, *server_key};
}

std::string to_string(const ScramSecret& secret) {
    return std::string(secret_prefix) + std::to_string(secret.iterations) + ':' + base64_encode(secret.salt) +
           '$' + encode(secret.stored_key) + ':' + encode(secret.server_key);
}

ScramSecret make_scram_secret(std::string_view password, std::string_view salt, int iterations) {
    const ScramClientKeys keys = derive_keys(password, salt, iterations);
    return {iterations, std::string(salt), hash(text_of(keys.client_key)), keys.server_key};
}

ScramSecret mock_scram_secret(std::string_view user, std::string_view mock_nonce) {
    const ScramKey digest = hash(std::string(user).append(mock_nonce));
    return {scram_default_iterations, std::string(text_of(digest).substr(0, mock_salt_bytes)), {}, {}};
}

ScramServerExchange::ScramServerExchange(ScramSecret secret, bool doomed,
                                         std::span<const std::uint8_t> random)
    : ScramServerExchange(std::move(secret), doomed, encode(random)) {}

ScramServerExchange::ScramServerExchange(ScramSecret secret, bool doomed, std::string nonce)
    : secret_(std::move(secret)), doomed_(doomed), server_nonce_(std::move(nonce)) {}

ScramServerExchange ScramServerExchange::with_nonce(ScramSecret secret, bool doomed, std::string nonce) {
    return {std::move(secret), doomed, std::move(nonce)};
}

void ScramServerExchange::bind_channel(std::string end_point, bool plus) {
    binding_offered_ = true;
    binding_chosen_ = plus;
    end_point_ = std::move(end_point);
}

/// gs2-header, read_client_first_message of auth-scram.c; gives its length, and notes what the last message
/// must repeat of it.
Result<std::size_t> ScramServerExchange::read_gs2_header(std::string_view message) {
    std::size_t at = 1;
    switch (message[0]) {
        case 'n':  // no channel binding wanted
            if (binding_chosen_)
                return malformed(
                    "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel "
                    "binding data.");
            break;
        case 'y':  // the client could, and thinks that we can't
            if (binding_chosen_)
                return malformed(
                    "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel "
                    "binding data.");
            if (binding_offered_)
                return Error(sqlstate::invalid_authorization, "SCRAM channel binding negotiation error", {},
                             "The client supports SCRAM channel binding but thinks the server does not. "
                             "However, this server does support channel binding.");
            break;
        case 'p': {
            if (!binding_chosen_)
                return malformed(
                    "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message "
                    "includes channel binding data.");
            AttributeReader reader(message);
            auto type = reader.value('p');
            if (!type) return std::move(type).error();
            if (*type != end_point_binding)
                return Error(sqlstate::protocol_violation,
                             "unsupported SCRAM channel-binding type \"" + std::string(*type) + "\"");
            at = 2 + type->size();
            break;
        }
        default:
            return malformed("Unexpected channel-binding flag.");
    }
    if (message.size() < at + 2 || message[at] != ',') return malformed("Comma expected.");
    if (message[at + 1] == 'a')
        return Error(sqlstate::feature_not_supported,
                     "client uses authorization identity, but it is not supported");
    if (message[at + 1] != ',') return malformed("Unexpected attribute in client-first-message.");
    binding_ = base64_encode(std::string(message.substr(0, at + 2)) + (binding_chosen_ ? end_point_ : ""));
    return at + 2;
}

Result<std::string> ScramServerExchange::client_first(std::string_view message) {
    if (state_ != State::Init) return malformed("A client-first-message was not expected.");
    if (auto status = check_text(message); !status) return std::move(status).error();

    auto header = read_gs2_header(message);
    if (!header) return std::move(header).error();
    const std::string_view bare = message.substr(*header);
    AttributeReader reader(bare);
    if (reader.peek() == 'm')
        return Error(sqlstate::feature_not_supported, "client requires an unsupported SCRAM extension");
    // The name is ignored: the startup packet's counts (libpq sends an empty one).
    if (auto name = reader.value('n'); !name) return std::move(name).error();
    auto nonce = reader.value('r');
    if (!nonce) return std::move(nonce).error();
    if (!is_printable(*nonce))
        return Error(sqlstate::protocol_violation, "non-printable characters in SCRAM nonce");
    while (!reader.at_end())
        if (auto extension = reader.any(); !extension) return std::move(extension).error();

    client_first_bare_ = bare;
    nonce_ = std::string(*nonce) + server_nonce_;
    server_first_ =
        "r=" + nonce_ + ",s=" + base64_encode(secret_.salt) + ",i=" + std::to_string(secret_.iterations);
    state_ = State::SaltSent;
    return server_first_;
}

Result<std::optional<std::string>> ScramServerExchange::client_final(std::string_view message) {
    if (state_ != State::SaltSent) return malformed("A client-final-message was not expected.");
    state_ = State::Finished;  // one try
    if (auto status = check_text(message); !status) return std::move(status).error();

    AttributeReader reader(message);
    auto binding = reader.value('c');
    if (!binding) return std::move(binding).error();
    // The header again, and what the channel is bound to: a man in the middle has another certificate.
    if (!equal_constant_time(*binding, binding_)) {
        if (binding_chosen_)
            return Error(sqlstate::invalid_authorization, "SCRAM channel binding check failed");
        return Error(sqlstate::protocol_violation,
                     "unexpected SCRAM channel-binding attribute in client-final-message");
    }
    auto nonce = reader.value('r');
    if (!nonce) return std::move(nonce).error();

    std::size_t proof_at = 0;
    std::pair<char, std::string_view> attribute;
    do {
        proof_at = reader.position();
        auto read = reader.any();
        if (!read) return std::move(read).error();
        attribute = *read;
    } while (attribute.first != 'p');
    const auto proof = decode_key(attribute.second);
    if (!proof) return malformed("Malformed proof in client-final-message.");
    if (!reader.at_end()) return malformed("Garbage found at the end of client-final-message.");
    if (!equal_constant_time(*nonce, nonce_))
        return Error(sqlstate::protocol_violation, "invalid SCRAM response", {}, "Nonce does not match.");

    const std::string auth_message =
        client_first_bare_ + ',' + server_first_ + ',' + std::string(message.substr(0, proof_at - 1));
    const ScramKey client_key = *proof ^ hmac(secret_.stored_key, auth_message);
    // Computed for a mock secret too, so that time doesn't tell either.
    const bool proven = equal_keys(hash(text_of(client_key)), secret_.stored_key);
    if (!proven || doomed_) return std::optional<std::string>{};
    client_keys_ = ScramClientKeys{client_key, secret_.server_key};
    return std::optional<std::string>("v=" + encode(hmac(secret_.server_key, auth_message)));
}

void forget(ScramClientKeys& keys) {
    OPENSSL_cleanse(keys.client_key.data(), keys.client_key.size());
    OPENSSL_cleanse(keys.server_key.data(), keys.server_key.size());
}

ScramClientExchange::ScramClientExchange(Credentials credentials, std::span<const std::uint8_t> random)
    : credentials_(std::move(credentials)), nonce_(encode(random)) {}

ScramClientExchange::ScramClientExchange(std::string password, std::span<const std::uint8_t> random)
    : ScramClientExchange(Credentials{std::move(password), std::nullopt}, random) {}

ScramClientExchange::ScramClientExchange(const ScramClientKeys& keys, std::span<const std::uint8_t> random)
    : ScramClientExchange(Credentials{std::nullopt, ScramPassThrough{keys, {}, 0}}, random) {
    any_salt_ = true;
}

ScramClientExchange::~ScramClientExchange() {
    if (credentials_.pass_through) forget(credentials_.pass_through->keys);
    if (keys_) forget(*keys_);
    // The analyzer takes this for a pointer that outlives its string.
    // NOLINTNEXTLINE(clang-analyzer-cplusplus.InnerPointer)
    if (credentials_.password) OPENSSL_cleanse(credentials_.password->data(), credentials_.password->size());
}

void ScramClientExchange::bind_channel(std::string end_point, bool plus) {
    header_ = plus ? "p=" + std::string(end_point_binding) + ",," : "y,,";
    if (plus) end_point_ = std::move(end_point);
}

std::string ScramClientExchange::first() const {
    return header_ + "n=,r=" + nonce_;
}

Result<std::string> ScramClientExchange::server_first(std::string_view message) {
    if (state_ != State::Init) return malformed("A server-first-message was not expected.");
    if (auto status = check_text(message); !status) return std::move(status).error();
    AttributeReader reader(message);
    auto nonce = reader.value('r');
    if (!nonce) return std::move(nonce).error();
    if (nonce->size() <= nonce_.size() || !equal_constant_time(nonce->substr(0, nonce_.size()), nonce_) ||
        !is_printable(*nonce))
        return Error(sqlstate::protocol_violation, "invalid SCRAM response", {}, "Nonce does not match.");
    auto encoded_salt = reader.value('s');
    if (!encoded_salt) return std::move(encoded_salt).error();
    const auto salt = base64_decode(*encoded_salt);
    if (!salt || salt->empty()) return malformed("Invalid salt.");
    auto iterations_text = reader.value('i');
    if (!iterations_text) return std::move(iterations_text).error();
    const auto iterations = parse_iterations(*iterations_text);
    if (!iterations || *iterations > scram_max_iterations) return malformed("Invalid iteration count.");
    while (!reader.at_end())
        if (auto extension = reader.any(); !extension) return std::move(extension).error();

    const auto& ours = credentials_.pass_through;
    if (ours && (any_salt_ || (ours->salt == *salt && ours->iterations == *iterations))) {
        keys_ = ours->keys;
        used_pass_through_ = true;
    } else if (credentials_.password) {
        keys_ = derive_keys(*credentials_.password, *salt, *iterations);
    } else {
        state_ = State::Failed;
        return Error(sqlstate::invalid_password, "the role has another secret there");
    }
    const std::string without_proof =
        "c=" + base64_encode(header_ + end_point_) + ",r=" + std::string(*nonce);
    auth_message_ = "n=,r=" + nonce_ + ',' + std::string(message) + ',' + without_proof;
    const ScramKey stored_key = hash(text_of(keys_->client_key));
    state_ = State::ProofSent;
    return without_proof + ",p=" + encode(keys_->client_key ^ hmac(stored_key, auth_message_));
}

Status ScramClientExchange::server_final(std::string_view message) {
    if (state_ != State::ProofSent) return malformed("A server-final-message was not expected.");
    state_ = State::Failed;
    if (auto status = check_text(message); !status) return status;
    AttributeReader reader(message);
    if (reader.peek() == 'e') {
        auto reason = reader.value('e');
        if (!reason) return std::move(reason).error();
        return Error(sqlstate::invalid_password,
                     "error received from server in SCRAM exchange: " + std::string(*reason));
    }
    auto verifier = reader.value('v');
    if (!verifier) return std::move(verifier).error();
    const auto signature = decode_key(*verifier);
    if (!signature) return malformed("Invalid server signature.");
    if (!equal_keys(*signature, hmac(keys_->server_key, auth_message_)))
        return Error(sqlstate::invalid_password, "incorrect server signature");
    state_ = State::Finished;
    return {};
}

bool verify_plain_password(std::string_view password, const ScramSecret& secret) {
    return equal_keys(derive_keys(password, secret.salt, secret.iterations).server_key, secret.server_key);
}

std::string md5_secret(std::string_view password, std::string_view user) {
    const std::string hex = md5_hex(std::string(password).append(user));
    return hex.empty() ? hex : "md5" + hex;
}

bool is_md5_secret(std::string_view stored) {
    return stored.size() == 35 && stored.starts_with("md5") &&
           stored.find_first_not_of("0123456789abcdef", 3) == std::string_view::npos;
}

std::string md5_response(std::string_view md5_secret, std::span<const std::uint8_t, 4> salt) {
    if (!is_md5_secret(md5_secret)) return {};
    const std::string hex = md5_hex(std::string(md5_secret.substr(3)).append(text_of(salt)));
    return hex.empty() ? hex : "md5" + hex;
}

bool equal_constant_time(std::string_view a, std::string_view b) {
    return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace pgxc::wire
