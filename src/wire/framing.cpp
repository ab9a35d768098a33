#include "wire/framing.h"

#include <array>
#include <string>

namespace pgxc::wire {
namespace {

using LimitTable = std::array<std::uint32_t, 256>;

template <class Message>
constexpr void allow(LimitTable& table, std::uint32_t limit, std::initializer_list<Message> types) {
    for (const Message type : types) table[static_cast<std::uint8_t>(type)] = limit;
}

// postgres.c, SocketBackend
constexpr LimitTable normal_limits = [] {
    using enum FrontendMessage;
    LimitTable table{};
    allow(table, large_message_limit, {Query, FunctionCall, Bind, Parse, CopyData});
    allow(table, small_message_limit, {Terminate, Close, Describe, Execute, Flush, Sync, CopyDone, CopyFail});
    return table;
}();

// copyfromparse.c, CopyGetData
constexpr LimitTable copy_in_limits = [] {
    using enum FrontendMessage;
    LimitTable table{};
    allow(table, large_message_limit, {CopyData});
    allow(table, small_message_limit, {CopyDone, CopyFail, Flush, Sync});
    return table;
}();

// auth.c, recv_password_packet
constexpr LimitTable password_limits = [] {
    LimitTable table{};
    allow(table, limits::max_auth_message_bytes, {FrontendMessage::Password});
    return table;
}();

// auth-sasl.c, CheckSASLAuth
constexpr LimitTable sasl_limits = [] {
    LimitTable table{};
    allow(table, sasl_message_limit, {FrontendMessage::Password});
    return table;
}();

// fe-protocol3.c, VALID_LONG_MESSAGE_TYPE; and what newer servers and many columns can make long.
constexpr LimitTable backend_limits = [] {
    using enum BackendMessage;
    LimitTable table{};
    allow(table, long_answer_limit,
          {RowDescription, DataRow, CopyData, FunctionCallResponse, ErrorResponse, NoticeResponse,
           NotificationResponse, ParameterDescription, ParameterStatus});
    allow(table, short_answer_limit,
          {Authentication, BackendKeyData, BindComplete, CloseComplete, CommandComplete, CopyBothResponse,
           CopyDone, CopyInResponse, CopyOutResponse, EmptyQueryResponse, NegotiateProtocolVersion, NoData,
           ParseComplete, PortalSuspended, ReadyForQuery});
    return table;
}();

constexpr const LimitTable& limits_of(FrontendPhase phase) {
    switch (phase) {
        case FrontendPhase::Password:
            return password_limits;
        case FrontendPhase::Sasl:
            return sasl_limits;
        case FrontendPhase::Normal:
            return normal_limits;
        case FrontendPhase::CopyIn:
            return copy_in_limits;
    }
    return normal_limits;
}

template <class Message>
HeaderRead<Message> read_header(Bytes buffer, const LimitTable& table) {
    HeaderRead<Message> read;
    if (buffer.empty()) return read;
    const auto type = static_cast<std::uint8_t>(buffer[0]);
    read.type = static_cast<Message>(type);
    if (table[type] == 0) {
        read.state = HeaderState::UnknownType;
        return read;
    }
    if (buffer.size() < header_bytes) return read;
    const std::uint32_t length = get_u32(buffer.data() + 1);
    if (length < 4 || length > table[type]) {
        read.state = HeaderState::InvalidLength;
        return read;
    }
    read.state = HeaderState::Complete;
    read.body_bytes = length - 4;
    return read;
}

template <class Message>
Error violation_error(const HeaderRead<Message>& read, const char* side) {
    if (read.state == HeaderState::InvalidLength)
        return {sqlstate::protocol_violation, "invalid message length"};
    return {sqlstate::protocol_violation, std::string("invalid ") + side + " message type " +
                                              std::to_string(static_cast<unsigned>(read.type))};
}

}  // namespace

HeaderRead<FrontendMessage> read_frontend_header(Bytes buffer, FrontendPhase phase) {
    return read_header<FrontendMessage>(buffer, limits_of(phase));
}

HeaderRead<BackendMessage> read_backend_header(Bytes buffer) {
    return read_header<BackendMessage>(buffer, backend_limits);
}

std::uint32_t length_limit(FrontendMessage type, FrontendPhase phase) {
    return limits_of(phase)[static_cast<std::uint8_t>(type)];
}

std::uint32_t length_limit(BackendMessage type) {
    return backend_limits[static_cast<std::uint8_t>(type)];
}

Error to_error(const HeaderRead<FrontendMessage>& read) {
    return violation_error(read, "frontend");
}
Error to_error(const HeaderRead<BackendMessage>& read) {
    return violation_error(read, "backend");
}

}  // namespace pgxc::wire
