#include "wire/messages.h"

#include <string>

namespace pgxc::wire {
namespace {

/// Appends a header, and on destruction fills its length word in.
class MessageFrame {
  public:
    template <class Message>
    MessageFrame(Buffer& out, Message type) : out_(out) {
        put_u8(out_, static_cast<std::uint8_t>(type));
        length_at_ = out_.size();
        put_u32(out_, 0);
    }
    ~MessageFrame() {
        const auto length = static_cast<std::uint32_t>(out_.size() - length_at_);
        for (unsigned i = 0; i < 4; ++i) out_[length_at_ + i] = static_cast<char>(length >> (24U - 8U * i));
    }
    MessageFrame(const MessageFrame&) = delete;
    MessageFrame& operator=(const MessageFrame&) = delete;

  private:
    Buffer& out_;
    std::size_t length_at_ = 0;
};

void put_authentication(Buffer& out, AuthenticationKind kind, Bytes data = {}) {
    const MessageFrame frame(out, BackendMessage::Authentication);
    put_u32(out, static_cast<std::uint32_t>(kind));
    out.append(data);
}

template <class Message>
void put_empty(Buffer& out, Message type) {
    const MessageFrame frame(out, type);
}

template <class Message>
void put_text(Buffer& out, Message type, std::string_view text) {
    const MessageFrame frame(out, type);
    put_cstring(out, text);
}

void put_object(Buffer& out, FrontendMessage type, ObjectKind kind, std::string_view name) {
    const MessageFrame frame(out, type);
    put_u8(out, static_cast<std::uint8_t>(kind));
    put_cstring(out, name);
}

void put_field(Buffer& out, char code, std::string_view text) {
    if (text.empty()) return;
    out.push_back(code);
    put_cstring(out, text);
}

void put_report(Buffer& out, BackendMessage type, Severity severity, const Error& error) {
    const MessageFrame frame(out, type);
    put_field(out, 'S', to_word(severity));
    put_field(out, 'V', to_word(severity));
    put_field(out, 'C', error.sqlstate);
    // M is mandatory, even where there is nothing to say.
    out.push_back('M');
    put_cstring(out, error.message);
    put_field(out, 'D', error.detail);
    put_field(out, 'H', error.hint);
    put_u8(out, 0);
}

Error malformed(const char* message) {
    return {sqlstate::protocol_violation, std::string("malformed ") + message + " message"};
}

std::string_view* field_for(ErrorFields& fields, char code) {
    switch (code) {
        case 'V':
            return &fields.severity;
        case 'C':
            return &fields.sqlstate;
        case 'M':
            return &fields.message;
        case 'D':
            return &fields.detail;
        case 'H':
            return &fields.hint;
        case 'P':
            return &fields.position;
        case 'p':
            return &fields.internal_position;
        case 'q':
            return &fields.internal_query;
        case 'W':
            return &fields.where;
        case 's':
            return &fields.schema;
        case 't':
            return &fields.table;
        case 'c':
            return &fields.column;
        case 'd':
            return &fields.data_type;
        case 'n':
            return &fields.constraint;
        case 'F':
            return &fields.file;
        case 'L':
            return &fields.line;
        case 'R':
            return &fields.routine;
        default:
            return nullptr;  // the manual: "frontends should silently ignore fields of unrecognized type"
    }
}

}  // namespace

std::string_view to_word(Severity severity) {
    switch (severity) {
        case Severity::Debug:
            return "DEBUG";
        case Severity::Log:
            return "LOG";
        case Severity::Info:
            return "INFO";
        case Severity::Notice:
            return "NOTICE";
        case Severity::Warning:
            return "WARNING";
        case Severity::Error:
            return "ERROR";
        case Severity::Fatal:
            return "FATAL";
        case Severity::Panic:
            return "PANIC";
    }
    return "ERROR";
}

void put_authentication_ok(Buffer& out) {
    put_authentication(out, AuthenticationKind::Ok);
}
void put_authentication_cleartext(Buffer& out) {
    put_authentication(out, AuthenticationKind::Cleartext);
}

void put_authentication_md5(Buffer& out, std::span<const std::uint8_t, 4> salt) {
    const char bytes[] = {static_cast<char>(salt[0]), static_cast<char>(salt[1]), static_cast<char>(salt[2]),
                          static_cast<char>(salt[3])};
    put_authentication(out, AuthenticationKind::Md5, {bytes, sizeof bytes});
}

void put_authentication_sasl(Buffer& out, std::span<const std::string_view> mechanisms) {
    const MessageFrame frame(out, BackendMessage::Authentication);
    put_u32(out, static_cast<std::uint32_t>(AuthenticationKind::Sasl));
    for (const auto mechanism : mechanisms) put_cstring(out, mechanism);
    put_u8(out, 0);
}

void put_authentication_sasl_continue(Buffer& out, std::string_view data) {
    put_authentication(out, AuthenticationKind::SaslContinue, data);
}

void put_authentication_sasl_final(Buffer& out, std::string_view data) {
    put_authentication(out, AuthenticationKind::SaslFinal, data);
}

void put_parameter_status(Buffer& out, std::string_view name, std::string_view value) {
    const MessageFrame frame(out, BackendMessage::ParameterStatus);
    put_cstring(out, name);
    put_cstring(out, value);
}

void put_backend_key_data(Buffer& out, std::uint32_t pid, std::uint32_t secret) {
    const MessageFrame frame(out, BackendMessage::BackendKeyData);
    put_u32(out, pid);
    put_u32(out, secret);
}

void put_ready_for_query(Buffer& out, TransactionStatus status) {
    const MessageFrame frame(out, BackendMessage::ReadyForQuery);
    put_u8(out, static_cast<std::uint8_t>(status));
}

void put_command_complete(Buffer& out, std::string_view tag) {
    put_text(out, BackendMessage::CommandComplete, tag);
}
void put_empty_query_response(Buffer& out) {
    put_empty(out, BackendMessage::EmptyQueryResponse);
}
void put_parse_complete(Buffer& out) {
    put_empty(out, BackendMessage::ParseComplete);
}
void put_bind_complete(Buffer& out) {
    put_empty(out, BackendMessage::BindComplete);
}
void put_close_complete(Buffer& out) {
    put_empty(out, BackendMessage::CloseComplete);
}
void put_no_data(Buffer& out) {
    put_empty(out, BackendMessage::NoData);
}

void put_error_response(Buffer& out, Severity severity, const Error& error) {
    put_report(out, BackendMessage::ErrorResponse, severity, error);
}
void put_notice_response(Buffer& out, Severity severity, const Error& error) {
    put_report(out, BackendMessage::NoticeResponse, severity, error);
}

void put_query(Buffer& out, std::string_view sql) {
    put_text(out, FrontendMessage::Query, sql);
}

void put_parse(Buffer& out, std::string_view statement, std::string_view sql,
               std::span<const std::uint32_t> parameter_types) {
    const MessageFrame frame(out, FrontendMessage::Parse);
    put_cstring(out, statement);
    put_cstring(out, sql);
    put_u16(out, static_cast<std::uint16_t>(parameter_types.size()));
    for (const auto type : parameter_types) put_u32(out, type);
}

void put_bind(Buffer& out, std::string_view portal, std::string_view statement,
              std::span<const std::optional<std::string_view>> parameters) {
    const MessageFrame frame(out, FrontendMessage::Bind);
    put_cstring(out, portal);
    put_cstring(out, statement);
    put_u16(out, 0);  // no parameter formats: all text
    put_u16(out, static_cast<std::uint16_t>(parameters.size()));
    for (const auto& parameter : parameters) {
        put_u32(out, parameter ? static_cast<std::uint32_t>(parameter->size()) : 0xFFFFFFFFU);
        if (parameter) out.append(*parameter);
    }
    put_u16(out, 0);  // no result formats: all text
}

void put_describe_portal(Buffer& out, std::string_view portal) {
    put_object(out, FrontendMessage::Describe, ObjectKind::Portal, portal);
}
void put_close_statement(Buffer& out, std::string_view statement) {
    put_object(out, FrontendMessage::Close, ObjectKind::Statement, statement);
}

void put_execute(Buffer& out, std::string_view portal, std::uint32_t max_rows) {
    const MessageFrame frame(out, FrontendMessage::Execute);
    put_cstring(out, portal);
    put_u32(out, max_rows);
}

void put_flush(Buffer& out) {
    put_empty(out, FrontendMessage::Flush);
}
void put_sync(Buffer& out) {
    put_empty(out, FrontendMessage::Sync);
}
void put_terminate(Buffer& out) {
    put_empty(out, FrontendMessage::Terminate);
}

void put_copy_data(Buffer& out, Bytes data) {
    const MessageFrame frame(out, FrontendMessage::CopyData);
    out.append(data);
}
void put_copy_done(Buffer& out) {
    put_empty(out, FrontendMessage::CopyDone);
}
void put_copy_fail(Buffer& out, std::string_view reason) {
    put_text(out, FrontendMessage::CopyFail, reason);
}

void put_password(Buffer& out, std::string_view password) {
    put_text(out, FrontendMessage::Password, password);
}

void put_sasl_initial_response(Buffer& out, std::string_view mechanism, std::string_view data) {
    const MessageFrame frame(out, FrontendMessage::Password);
    put_cstring(out, mechanism);
    put_u32(out, static_cast<std::uint32_t>(data.size()));
    out.append(data);
}

void put_sasl_response(Buffer& out, std::string_view data) {
    const MessageFrame frame(out, FrontendMessage::Password);
    out.append(data);
}

Error ErrorFields::to_error() const {
    Error error(sqlstate, std::string(message), std::string(hint), std::string(detail));
    return error;
}

Result<ErrorFields> parse_error_fields(Bytes body) {
    ErrorFields fields;
    if (!scan_error_fields(body, fields)) return malformed("ErrorResponse or NoticeResponse");
    return fields;
}

bool scan_error_fields(Bytes body, ErrorFields& fields) {
    BodyReader reader(body);
    bool has_severity = false;
    while (true) {
        const auto code = static_cast<char>(reader.u8());
        if (!reader.ok()) return false;
        if (code == '\0') return reader.done();
        const auto text = reader.cstring();
        if (!reader.ok()) return false;
        if (code == 'V') has_severity = true;
        if (code == 'S') {
            if (!has_severity) fields.severity = text;
        } else if (auto* field = field_for(fields, code)) {
            *field = text;
        }
    }
}

Result<ParameterStatus> parse_parameter_status(Bytes body) {
    BodyReader reader(body);
    ParameterStatus status;
    status.name = reader.cstring();
    status.value = reader.cstring();
    if (!reader.done() || status.name.empty()) return malformed("ParameterStatus");
    return status;
}

Result<BackendKeyData> parse_backend_key_data(Bytes body) {
    BodyReader reader(body);
    BackendKeyData key;
    key.pid = reader.u32();
    key.secret = reader.u32();
    if (!reader.done()) return malformed("BackendKeyData");
    return key;
}

Result<TransactionStatus> parse_ready_for_query(Bytes body) {
    if (body.size() == 1) {
        switch (body[0]) {
            case 'I':
                return TransactionStatus::Idle;
            case 'T':
                return TransactionStatus::InBlock;
            case 'E':
                return TransactionStatus::Failed;
            default:
                break;
        }
    }
    return malformed("ReadyForQuery");
}

Result<std::string_view> parse_command_complete(Bytes body) {
    BodyReader reader(body);
    const auto tag = reader.cstring();
    if (!reader.done()) return malformed("CommandComplete");
    return tag;
}

Result<NotificationResponse> parse_notification(Bytes body) {
    BodyReader reader(body);
    NotificationResponse notification;
    notification.pid = reader.u32();
    notification.channel = reader.cstring();
    notification.payload = reader.cstring();
    if (!reader.done()) return malformed("NotificationResponse");
    return notification;
}

bool AuthenticationRequest::offers(std::string_view mechanism) const {
    BodyReader reader(data);
    while (reader.ok()) {
        const auto name = reader.cstring();
        if (name.empty()) return false;
        if (name == mechanism) return true;
    }
    return false;
}

Result<AuthenticationRequest> parse_authentication(Bytes body) {
    BodyReader reader(body);
    AuthenticationRequest request;
    const auto code = reader.u32();
    if (!reader.ok()) return malformed("Authentication");
    request.kind = static_cast<AuthenticationKind>(code);
    request.data = reader.rest();
    bool good = false;
    switch (request.kind) {
        case AuthenticationKind::Ok:
        case AuthenticationKind::KerberosV5:
        case AuthenticationKind::Cleartext:
        case AuthenticationKind::Gss:
        case AuthenticationKind::Sspi:
            good = request.data.empty();
            break;
        case AuthenticationKind::Md5:
            good = request.data.size() == 4;
            break;
        case AuthenticationKind::Sasl:
            // A list of names, each ended by a zero, and an empty name.
            good = request.data.size() >= 2 && request.data.ends_with(std::string_view("\0\0", 2));
            break;
        case AuthenticationKind::GssContinue:
        case AuthenticationKind::SaslContinue:
        case AuthenticationKind::SaslFinal:
            good = true;
            break;
        default:
            return Error(sqlstate::feature_not_supported,
                         "authentication method " + std::to_string(code) + " is not supported");
    }
    if (!good) return malformed("Authentication");
    return request;
}

Result<NegotiatedVersion> parse_negotiate_protocol_version(Bytes body) {
    BodyReader reader(body);
    NegotiatedVersion version;
    // The manual speaks of a minor version; SendNegotiateProtocolVersion sends the whole number, 3 << 16 |
    // minor.
    version.minor = reader.u32() & 0xFFFFU;
    version.unknown_options = reader.u32();
    if (!reader.ok() || version.unknown_options > body.size()) return malformed("NegotiateProtocolVersion");
    for (std::uint32_t i = 0; i < version.unknown_options; ++i) (void)reader.cstring();
    if (!reader.done()) return malformed("NegotiateProtocolVersion");
    return version;
}

Result<std::string_view> parse_query(Bytes body) {
    BodyReader reader(body);
    const auto sql = reader.cstring();
    if (!reader.done()) return malformed("Query");
    return sql;
}

Result<ParseMessage> parse_parse(Bytes body) {
    BodyReader reader(body);
    ParseMessage message;
    message.statement = reader.cstring();
    message.sql = reader.cstring();
    const std::size_t types = reader.u16();
    message.parameter_types = reader.take(types * 4);
    if (!reader.done()) return malformed("Parse");
    return message;
}

Result<BindNames> parse_bind_names(Bytes body) {
    BodyReader reader(body);
    BindNames names;
    names.portal = reader.cstring();
    names.statement = reader.cstring();
    if (!reader.ok()) return malformed("Bind");
    return names;
}

Result<ObjectName> parse_describe_or_close(Bytes body) {
    BodyReader reader(body);
    ObjectName object;
    const auto kind = reader.u8();
    object.name = reader.cstring();
    if (!reader.done() || (kind != 'S' && kind != 'P')) return malformed("Describe or Close");
    object.kind = static_cast<ObjectKind>(kind);
    return object;
}

Result<ExecuteMessage> parse_execute(Bytes body) {
    BodyReader reader(body);
    ExecuteMessage message;
    message.portal = reader.cstring();
    message.max_rows = reader.u32();
    if (!reader.done()) return malformed("Execute");
    return message;
}

Result<std::string_view> parse_password(Bytes body) {
    BodyReader reader(body);
    const auto password = reader.cstring();
    if (!reader.done()) return malformed("Password");
    return password;
}

Result<SaslInitialResponse> parse_sasl_initial_response(Bytes body) {
    BodyReader reader(body);
    SaslInitialResponse response;
    response.mechanism = reader.cstring();
    const auto bytes = reader.u32();
    if (bytes != 0xFFFFFFFFU) response.data = reader.take(bytes);
    if (!reader.done()) return malformed("SASLInitialResponse");
    return response;
}

}  // namespace pgxc::wire
