#pragma once

#include <cstdint>

#include "base/error.h"
#include "base/limits.h"
#include "wire/bytes.h"

namespace pgxc::wire {

/// Type bytes of messages from a client.
enum class FrontendMessage : std::uint8_t {
    Bind = 'B',
    Close = 'C',
    CopyData = 'd',
    CopyDone = 'c',
    CopyFail = 'f',
    Describe = 'D',
    Execute = 'E',
    Flush = 'H',
    FunctionCall = 'F',
    Parse = 'P',
    Password = 'p',  // PasswordMessage, SASLInitialResponse, SASLResponse: the state tells which
    Query = 'Q',
    Sync = 'S',
    Terminate = 'X',
};

/// Type bytes of messages from a server.
enum class BackendMessage : std::uint8_t {
    Authentication = 'R',
    BackendKeyData = 'K',
    BindComplete = '2',
    CloseComplete = '3',
    CommandComplete = 'C',
    CopyBothResponse = 'W',
    CopyData = 'd',
    CopyDone = 'c',
    CopyInResponse = 'G',
    CopyOutResponse = 'H',
    DataRow = 'D',
    EmptyQueryResponse = 'I',
    ErrorResponse = 'E',
    FunctionCallResponse = 'V',
    NegotiateProtocolVersion = 'v',
    NoData = 'n',
    NoticeResponse = 'N',
    NotificationResponse = 'A',
    ParameterDescription = 't',
    ParameterStatus = 'S',
    ParseComplete = '1',
    PortalSuspended = 's',
    ReadyForQuery = 'Z',
    RowDescription = 'T',
};

/// What a client may say now. The server reads its messages in these four ways, each with its own limits.
enum class FrontendPhase : std::uint8_t {
    Password,  // a password was asked for (auth.c, recv_password_packet)
    Sasl,      // in a SASL exchange (auth-sasl.c): 1024 bytes
    Normal,  // after authentication (postgres.c, SocketBackend); copy messages are accepted, as they may come
             // late
    CopyIn,  // the server has asked for copy data (copyfromparse.c): nothing but copy messages, Flush and
             // Sync
};

inline constexpr std::size_t header_bytes = 5;

/// Upper bounds of the length word on the wire, which counts itself but not the type byte.
inline constexpr std::uint32_t small_message_limit = 10'000;  // PQ_SMALL_MESSAGE_LIMIT
inline constexpr std::uint32_t sasl_message_limit = 1024;     // PG_MAX_SASL_MESSAGE_LENGTH
inline constexpr std::uint32_t short_answer_limit = 30'000;   // libpq's limit for answers that are never long
inline constexpr std::uint32_t large_message_limit = limits::max_message_bytes;  // PQ_LARGE_MESSAGE_LIMIT
/// A server's StringInfo holds up to MaxAllocSize; the length word counts 4 more.
inline constexpr std::uint32_t long_answer_limit = 0x3fffffff + 4;

enum class HeaderState : std::uint8_t {
    NeedMore,       // not enough bytes yet, and nothing wrong with those that are there
    Complete,       // type and body_bytes are valid
    UnknownType,    // no such message in this direction and phase: the boundary is lost, end the connection
    InvalidLength,  // below 4, or above the limit of the type: end the connection
};

/// The outcome of looking at the front of a buffer. The body needn't be there: forward it in pieces.
template <class Message>
struct HeaderRead {
    HeaderState state = HeaderState::NeedMore;
    Message type{};
    std::uint32_t body_bytes = 0;
    [[nodiscard]] bool complete() const { return state == HeaderState::Complete; }
    [[nodiscard]] bool violation() const {
        return state == HeaderState::UnknownType || state == HeaderState::InvalidLength;
    }
    /// Header and body.
    [[nodiscard]] std::size_t total_bytes() const { return header_bytes + body_bytes; }
};

/// Reads the header at the front of `buffer`. A wrong type byte is told by that byte alone.
[[nodiscard]] HeaderRead<FrontendMessage> read_frontend_header(Bytes buffer, FrontendPhase phase);
[[nodiscard]] HeaderRead<BackendMessage> read_backend_header(Bytes buffer);

/// The largest value of the length word (itself included) for a message; 0 = not allowed at all.
[[nodiscard]] std::uint32_t length_limit(FrontendMessage type, FrontendPhase phase);
[[nodiscard]] std::uint32_t length_limit(BackendMessage type);

/// The error (08P01) for a violation, in the server's words: "invalid frontend message type 33".
[[nodiscard]] Error to_error(const HeaderRead<FrontendMessage>& read);
[[nodiscard]] Error to_error(const HeaderRead<BackendMessage>& read);

}  // namespace pgxc::wire
