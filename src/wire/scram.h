#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

/// SCRAM-SHA-256 (RFC 5802, RFC 7677) for both ends, in PostgreSQL's dialect (auth-scram.c, fe-auth-scram.c),
/// and the older password forms. Pure: random bytes are passed in, and what a channel is bound to.
namespace pgxc::wire {

inline constexpr std::string_view scram_sha_256 = "SCRAM-SHA-256";
inline constexpr std::string_view scram_sha_256_plus = "SCRAM-SHA-256-PLUS";
inline constexpr std::size_t scram_raw_nonce_bytes = 18;  // SCRAM_RAW_NONCE_LEN: what to pass as `random`
inline constexpr int scram_default_iterations = 4096;
/// A server that asks for more is refused: it would stop the loop for seconds. A role's secret that has more
/// is not computed from a password: it would keep all others waiting.
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
    friend bool operator==(const ScramClientKeys&, const ScramClientKeys&) = default;
};

/// Which secret they belong to: another salt or count is another secret, whatever the password.
struct ScramPassThrough {
    ScramClientKeys keys;
    std::string salt;  // raw bytes
    int iterations = 0;
    friend bool operator==(const ScramPassThrough&, const ScramPassThrough&) = default;
};
/// Overwrites keys that are not needed any more.
void forget(ScramClientKeys& keys);

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

    /// Over TLS, before client_first(): the mechanism with channel binding was offered, and the client chose
    /// `plus` or not. `end_point` is what tls-server-end-point binds to.
    void bind_channel(std::string end_point, bool plus);

    /// Takes client-first-message; gives server-first-message. Errors: 08P01 malformed, 0A000 what isn't
    /// supported.
    [[nodiscard]] Result<std::string> client_first(std::string_view message);
    /// Takes client-final-message; gives server-final-message. nullopt: the proof is wrong (the caller says
    /// "password authentication failed", 28P01). Errors: 08P01 malformed or a nonce that isn't ours; 28000 a
    /// channel that is bound to something else.
    [[nodiscard]] Result<std::optional<std::string>> client_final(std::string_view message);
    /// The client's keys, known after a successful client_final().
    [[nodiscard]] const std::optional<ScramClientKeys>& client_keys() const { return client_keys_; }
    [[nodiscard]] const ScramSecret& secret() const { return secret_; }

  private:
    ScramServerExchange(ScramSecret secret, bool doomed, std::string nonce);
    [[nodiscard]] Result<std::size_t> read_gs2_header(std::string_view message);

    enum class State : std::uint8_t { Init, SaltSent, Finished };
    State state_ = State::Init;
    ScramSecret secret_;
    bool doomed_;
    bool binding_offered_ = false;
    bool binding_chosen_ = false;
    std::string end_point_;
    std::string binding_;  // what the client must repeat in its last message, in base64
    std::string server_nonce_;
    std::string nonce_;  // the client's and ours
    std::string client_first_bare_;
    std::string server_first_;
    std::optional<ScramClientKeys> client_keys_;
};

/// The client's end of one exchange.
class ScramClientExchange {
  public:
    /// What a client can prove itself with: keys where the server has the secret that they belong to, else
    /// the password.
    struct Credentials {
        std::optional<std::string> password;  // saslprep'ed, or the raw one where saslprep refuses it
        std::optional<ScramPassThrough> pass_through;
    };
    ScramClientExchange(Credentials credentials, std::span<const std::uint8_t> random);
    /// With a password alone.
    ScramClientExchange(std::string password, std::span<const std::uint8_t> random);
    /// With the keys of the client that we serve, whatever the server's salt; `random` as above.
    ScramClientExchange(const ScramClientKeys& keys, std::span<const std::uint8_t> random);
    ~ScramClientExchange();
    ScramClientExchange(const ScramClientExchange&) = default;
    ScramClientExchange& operator=(const ScramClientExchange&) = default;
    ScramClientExchange(ScramClientExchange&&) = default;
    ScramClientExchange& operator=(ScramClientExchange&&) = default;

    /// Over TLS, before first(): with `plus` the channel is bound to `end_point`; without, the server is told
    /// that we could have.
    void bind_channel(std::string end_point, bool plus);

    /// client-first-message for SASLInitialResponse.
    [[nodiscard]] std::string first() const;
    /// Takes server-first-message; gives client-final-message. Errors: 08P01; 28P01 there are only keys, and
    /// the server has another secret.
    [[nodiscard]] Result<std::string> server_first(std::string_view message);
    /// Takes server-final-message. Error 28P01: the server said no, or doesn't know our secret (an impostor).
    [[nodiscard]] Status server_final(std::string_view message);
    /// The server has been sent a proof by the keys of pass-through.
    [[nodiscard]] bool used_pass_through() const { return used_pass_through_; }
    /// The server's last word has been seen and was right: it is the one that knows our secret.
    [[nodiscard]] bool finished() const { return state_ == State::Finished; }

  private:
    enum class State : std::uint8_t { Init, ProofSent, Failed, Finished };
    State state_ = State::Init;
    Credentials credentials_;
    bool any_salt_ = false;
    bool used_pass_through_ = false;
    std::optional<ScramClientKeys> keys_;
    std::string header_ = "n,,";  // gs2-header
    std::string end_point_;
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
