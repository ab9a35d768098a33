#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

/// SCRAM-SHA-256 (RFC 5802, RFC 7677) for both ends, in PostgreSQL's dialect (auth-scram.c, fe-auth-scram.c),
/// and the older password forms. Pure: random bytes are passed in. Without channel binding.
namespace pgxc::wire {

inline constexpr std::string_view scram_sha_256 = "SCRAM-SHA-256";
inline constexpr std::size_t scram_raw_nonce_bytes = 18;  // SCRAM_RAW_NONCE_LEN: what to pass as `random`
inline constexpr int scram_default_iterations = 4096;
/// A server that asks for more is refused: it would stop the loop for seconds.
inline constexpr int scram_max_iterations = 1'000'000;

using ScramKey = std::array<std::uint8_t, 32>;

/// What a server stores of a password.
struct ScramSecret {
    int iterations = 0;
    std::string salt;  // raw bytes
    ScramKey stored_key{};
    ScramKey server_key{};
    friend bool operator==(const ScramSecret&, const ScramSecret&) = default;
};

/// The keys with which a client proves itself where the same secret is stored: what pass-through needs.
struct ScramClientKeys {
    ScramKey client_key{};
    ScramKey server_key{};
};

/// Reads pg_authid.rolpassword "SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>"; nullopt if it is
/// none.
[[nodiscard]] std::optional<ScramSecret> parse_scram_secret(std::string_view stored);
/// Writes that form.
[[nodiscard]] std::string to_string(const ScramSecret& secret);
/// Computes the secret of a (saslprep'ed) password.
[[nodiscard]] ScramSecret make_scram_secret(std::string_view password, std::string_view salt, int iterations);
/// A secret that no password opens, the same each time for a user, so that the exchange doesn't tell whether
/// the role exists (auth-scram.c, mock_scram_secret and scram_mock_salt).
[[nodiscard]] ScramSecret mock_scram_secret(std::string_view user, std::string_view mock_nonce);

/// The server's end of one exchange:
///   client_first() -> AuthenticationSASLContinue; client_final() -> AuthenticationSASLFinal and
///   AuthenticationOk.
class ScramServerExchange {
  public:
    /// `doomed`: the secret is a mock; the exchange runs to its end and fails there. `random`: 18 bytes at
    /// least.
    ScramServerExchange(ScramSecret secret, bool doomed, std::span<const std::uint8_t> random);

    /// The same with our half of the nonce as text (printable, no comma) instead of random bytes.
    [[nodiscard]] static ScramServerExchange with_nonce(ScramSecret secret, bool doomed, std::string nonce);

    /// Takes client-first-message; gives server-first-message. Errors: 08P01 malformed, 0A000 what isn't
    /// supported.
    [[nodiscard]] Result<std::string> client_first(std::string_view message);
    /// Takes client-final-message; gives server-final-message. nullopt: the proof is wrong (the caller says
    /// "password authentication failed", 28P01). Errors: 08P01 malformed or a nonce that isn't ours.
    [[nodiscard]] Result<std::optional<std::string>> client_final(std::string_view message);
    /// The client's keys, known after a successful client_final().
    [[nodiscard]] const std::optional<ScramClientKeys>& client_keys() const { return client_keys_; }

  private:
    ScramServerExchange(ScramSecret secret, bool doomed, std::string nonce);

    enum class State : std::uint8_t { Init, SaltSent, Finished };
    State state_ = State::Init;
    ScramSecret secret_;
    bool doomed_;
    char binding_flag_ = 'n';
    std::string server_nonce_;
    std::string nonce_;  // the client's and ours
    std::string client_first_bare_;
    std::string server_first_;
    std::optional<ScramClientKeys> client_keys_;
};

/// The client's end of one exchange.
class ScramClientExchange {
  public:
    /// With a saslprep'ed password (or the raw one where saslprep refuses it, as libpq does).
    ScramClientExchange(std::string password, std::span<const std::uint8_t> random);
    /// With the keys of the client that we serve; `random` as above.
    ScramClientExchange(const ScramClientKeys& keys, std::span<const std::uint8_t> random);

    /// client-first-message for SASLInitialResponse.
    [[nodiscard]] std::string first() const;
    /// Takes server-first-message; gives client-final-message. Error 08P01.
    [[nodiscard]] Result<std::string> server_first(std::string_view message);
    /// Takes server-final-message. Error 28P01: the server said no, or doesn't know our secret (an impostor).
    [[nodiscard]] Status server_final(std::string_view message);

  private:
    enum class State : std::uint8_t { Init, ProofSent, Finished };
    State state_ = State::Init;
    std::string password_;
    std::optional<ScramClientKeys> keys_;
    std::string nonce_;
    std::string auth_message_;
};

/// Does a (saslprep'ed) cleartext password match a stored secret?
[[nodiscard]] bool verify_plain_password(std::string_view password, const ScramSecret& secret);

/// "md5" + md5(password + user): pg_authid's old form. Empty where OpenSSL refuses MD5 (FIPS).
[[nodiscard]] std::string md5_secret(std::string_view password, std::string_view user);
/// Is a stored password of that form?
[[nodiscard]] bool is_md5_secret(std::string_view stored);
/// "md5" + md5(hex(md5(password + user)) + salt): the answer to AuthenticationMD5Password, from
/// md5_secret()'s value.
[[nodiscard]] std::string md5_response(std::string_view md5_secret, std::span<const std::uint8_t, 4> salt);

/// Compares without telling by its time where they differ.
[[nodiscard]] bool equal_constant_time(std::string_view a, std::string_view b);

}  // namespace pgxc::wire
