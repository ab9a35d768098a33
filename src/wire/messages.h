#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/error.h"
#include "base/result.h"
#include "wire/bytes.h"
#include "wire/framing.h"

namespace pgxc::wire {

// --- Builders: each appends one whole message. ---

enum class Severity : std::uint8_t { Debug, Log, Info, Notice, Warning, Error, Fatal, Panic };
[[nodiscard]] std::string_view to_word(Severity severity);  // "ERROR", as in field V

enum class TransactionStatus : std::uint8_t { Idle = 'I', InBlock = 'T', Failed = 'E' };

// Server to client.
void put_authentication_ok(Buffer& out);
void put_authentication_cleartext(Buffer& out);
void put_authentication_md5(Buffer& out, std::span<const std::uint8_t, 4> salt);
void put_authentication_sasl(Buffer& out, std::span<const std::string_view> mechanisms);
void put_authentication_sasl_continue(Buffer& out, std::string_view data);
void put_authentication_sasl_final(Buffer& out, std::string_view data);
void put_parameter_status(Buffer& out, std::string_view name, std::string_view value);
void put_backend_key_data(Buffer& out, std::uint32_t pid, std::uint32_t secret);
void put_ready_for_query(Buffer& out, TransactionStatus status);
void put_command_complete(Buffer& out, std::string_view tag);
void put_empty_query_response(Buffer& out);
void put_parse_complete(Buffer& out);
void put_bind_complete(Buffer& out);
void put_close_complete(Buffer& out);
void put_no_data(Buffer& out);
/// `severity` Error, Fatal or Panic. Fields S, V, C, M and, where not empty, D and H.
void put_error_response(Buffer& out, Severity severity, const Error& error);
/// `severity` below Error; error.sqlstate as given ("00000", "01000", ...).
void put_notice_response(Buffer& out, Severity severity, const Error& error);

// Client to server.
void put_query(Buffer& out, std::string_view sql);
void put_parse(Buffer& out, std::string_view statement, std::string_view sql,
               std::span<const std::uint32_t> parameter_types = {});
/// All parameters in text form; nullopt is NULL.
void put_bind(Buffer& out, std::string_view portal, std::string_view statement,
              std::span<const std::optional<std::string_view>> parameters = {});
void put_describe_portal(Buffer& out, std::string_view portal);
void put_execute(Buffer& out, std::string_view portal, std::uint32_t max_rows = 0);
void put_close_statement(Buffer& out, std::string_view statement);
void put_flush(Buffer& out);
void put_sync(Buffer& out);
void put_terminate(Buffer& out);
/// In both directions.
void put_copy_data(Buffer& out, Bytes data);
void put_copy_done(Buffer& out);
void put_copy_fail(Buffer& out, std::string_view reason);
/// Also carries an md5 answer.
void put_password(Buffer& out, std::string_view password);
void put_sasl_initial_response(Buffer& out, std::string_view mechanism, std::string_view data);
void put_sasl_response(Buffer& out, std::string_view data);

// --- Parsers: `body` is the whole message body, without header. Malformed: Error 08P01. ---

/// Fields of ErrorResponse and NoticeResponse; empty where absent. Views into the body.
struct ErrorFields {
    std::string_view
        severity;  // V where the server sends it (9.6 and later), else S, which may be translated
    std::string_view sqlstate;           // C
    std::string_view message;            // M
    std::string_view detail;             // D
    std::string_view hint;               // H
    std::string_view position;           // P
    std::string_view internal_position;  // p
    std::string_view internal_query;     // q
    std::string_view where;              // W
    std::string_view schema;             // s
    std::string_view table;              // t
    std::string_view column;             // c
    std::string_view data_type;          // d
    std::string_view constraint;         // n
    std::string_view file;               // F
    std::string_view line;               // L
    std::string_view routine;            // R
    /// The connection ends with it.
    [[nodiscard]] bool fatal() const { return severity == "FATAL" || severity == "PANIC"; }
    [[nodiscard]] Error to_error() const;
};
[[nodiscard]] Result<ErrorFields> parse_error_fields(Bytes body);
/// The same without an Error, for a body of which perhaps only the front is there: fills in what it finds;
/// false if the body is cut or malformed.
bool scan_error_fields(Bytes body, ErrorFields& fields);

struct ParameterStatus {
    std::string_view name;
    std::string_view value;
};
[[nodiscard]] Result<ParameterStatus> parse_parameter_status(Bytes body);

struct BackendKeyData {
    std::uint32_t pid = 0;
    std::uint32_t secret = 0;
};
/// The four-byte secret of protocol 3.0.
[[nodiscard]] Result<BackendKeyData> parse_backend_key_data(Bytes body);

[[nodiscard]] Result<TransactionStatus> parse_ready_for_query(Bytes body);

/// The tag, e.g. "INSERT 0 1".
[[nodiscard]] Result<std::string_view> parse_command_complete(Bytes body);

struct NotificationResponse {
    std::uint32_t pid = 0;
    std::string_view channel;
    std::string_view payload;
};
[[nodiscard]] Result<NotificationResponse> parse_notification(Bytes body);

/// What a server asks for. The number on the wire is the value.
enum class AuthenticationKind : std::uint32_t {
    Ok = 0,
    KerberosV5 = 2,
    Cleartext = 3,
    Md5 = 5,
    Gss = 7,
    GssContinue = 8,
    Sspi = 9,
    Sasl = 10,
    SaslContinue = 11,
    SaslFinal = 12,
};
struct AuthenticationRequest {
    AuthenticationKind kind = AuthenticationKind::Ok;
    Bytes data;  // Md5: the salt, 4 bytes. SaslContinue, SaslFinal, GssContinue: the payload. Sasl: the
                 // mechanisms
    /// Kind Sasl: does the server offer that mechanism?
    [[nodiscard]] bool offers(std::string_view mechanism) const;
};
[[nodiscard]] Result<AuthenticationRequest> parse_authentication(Bytes body);

/// The newest minor version that the server speaks, and how many options it didn't know.
struct NegotiatedVersion {
    std::uint32_t minor = 0;
    std::uint32_t unknown_options = 0;
};
[[nodiscard]] Result<NegotiatedVersion> parse_negotiate_protocol_version(Bytes body);

[[nodiscard]] Result<std::string_view> parse_query(Bytes body);

struct ParseMessage {
    std::string_view statement;  // empty = the unnamed one
    std::string_view sql;
    Bytes parameter_types;  // 4 bytes each
};
[[nodiscard]] Result<ParseMessage> parse_parse(Bytes body);

/// The names at the front of a Bind; `body` may be cut behind them (parameters may be larger than any
/// buffer).
struct BindNames {
    std::string_view portal;
    std::string_view statement;
};
[[nodiscard]] Result<BindNames> parse_bind_names(Bytes body);

/// Describe and Close.
enum class ObjectKind : std::uint8_t { Statement = 'S', Portal = 'P' };
struct ObjectName {
    ObjectKind kind = ObjectKind::Statement;
    std::string_view name;
};
[[nodiscard]] Result<ObjectName> parse_describe_or_close(Bytes body);

struct ExecuteMessage {
    std::string_view portal;
    std::uint32_t max_rows = 0;
};
[[nodiscard]] Result<ExecuteMessage> parse_execute(Bytes body);

[[nodiscard]] Result<std::string_view> parse_password(Bytes body);

struct SaslInitialResponse {
    std::string_view mechanism;
    std::optional<std::string_view> data;  // nullopt: none given, which is not the same as an empty one
};
[[nodiscard]] Result<SaslInitialResponse> parse_sasl_initial_response(Bytes body);
// SASLResponse: the body is the data.

}  // namespace pgxc::wire
