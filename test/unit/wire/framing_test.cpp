#include "wire/framing.h"

#include <gtest/gtest.h>

#include "wire/messages.h"

namespace pgxc::wire {
namespace {

std::string header(char type, std::uint32_t length) {
    Buffer out;
    put_u8(out, static_cast<std::uint8_t>(type));
    put_u32(out, length);
    return out;
}

TEST(Framing, NeedsFiveBytesAndNoBody) {
    const std::string whole = header('Q', 1000);
    for (std::size_t have = 0; have < header_bytes; ++have)
        EXPECT_EQ(read_frontend_header(Bytes(whole).substr(0, have), FrontendPhase::Normal).state,
                  HeaderState::NeedMore)
            << have;
    const auto read = read_frontend_header(whole, FrontendPhase::Normal);
    ASSERT_TRUE(read.complete());
    EXPECT_EQ(read.type, FrontendMessage::Query);
    EXPECT_EQ(read.body_bytes, 996U);
    EXPECT_EQ(read.total_bytes(), 1001U);
}

TEST(Framing, TellsAWrongTypeByItsFirstByte) {
    for (int byte = 0; byte < 256; ++byte) {
        const char c = static_cast<char>(byte);
        const bool frontend = std::string_view("BCdcfDEHFPQSX").find(c) != std::string_view::npos;
        const bool backend = std::string_view("RK23CWdcGHDIEVvnNAtS1sZT").find(c) != std::string_view::npos;
        const Bytes one(&c, 1);
        EXPECT_EQ(read_frontend_header(one, FrontendPhase::Normal).violation(), !frontend) << byte;
        EXPECT_EQ(read_backend_header(one).violation(), !backend) << byte;
        EXPECT_EQ(read_frontend_header(one, FrontendPhase::CopyIn).violation(),
                  std::string_view("dcfHS").find(c) == std::string_view::npos)
            << byte;
        EXPECT_EQ(read_frontend_header(one, FrontendPhase::Password).violation(), c != 'p') << byte;
        EXPECT_EQ(read_frontend_header(one, FrontendPhase::Sasl).violation(), c != 'p') << byte;
    }
    const Error error = to_error(read_frontend_header("!", FrontendPhase::Normal));
    EXPECT_EQ(error.sqlstate, sqlstate::protocol_violation);
    EXPECT_EQ(error.message, "invalid frontend message type 33");
}

struct LimitCase {
    char type;
    FrontendPhase phase;
    std::uint32_t limit;
};

TEST(Framing, KeepsTheServersLimits) {
    for (const auto& [type, phase, limit] : {
             LimitCase{'Q', FrontendPhase::Normal, 0x3ffffffe},
             LimitCase{'P', FrontendPhase::Normal, 0x3ffffffe},
             LimitCase{'B', FrontendPhase::Normal, 0x3ffffffe},
             LimitCase{'F', FrontendPhase::Normal, 0x3ffffffe},
             LimitCase{'d', FrontendPhase::Normal, 0x3ffffffe},
             LimitCase{'d', FrontendPhase::CopyIn, 0x3ffffffe},
             LimitCase{'E', FrontendPhase::Normal, 10000},
             LimitCase{'D', FrontendPhase::Normal, 10000},
             LimitCase{'C', FrontendPhase::Normal, 10000},
             LimitCase{'S', FrontendPhase::CopyIn, 10000},
             LimitCase{'X', FrontendPhase::Normal, 10000},
             LimitCase{'f', FrontendPhase::CopyIn, 10000},
             LimitCase{'p', FrontendPhase::Password, 65535},
             LimitCase{'p', FrontendPhase::Sasl, 1024},
         }) {
        EXPECT_TRUE(read_frontend_header(header(type, limit), phase).complete()) << type;
        EXPECT_EQ(read_frontend_header(header(type, limit + 1), phase).state, HeaderState::InvalidLength)
            << type;
        EXPECT_EQ(read_frontend_header(header(type, 3), phase).state, HeaderState::InvalidLength) << type;
        EXPECT_EQ(read_frontend_header(header(type, 0), phase).state, HeaderState::InvalidLength) << type;
        EXPECT_EQ(read_frontend_header(header(type, 0xffffffff), phase).state, HeaderState::InvalidLength)
            << type;
        EXPECT_TRUE(read_frontend_header(header(type, 4), phase).complete()) << type;
    }
    EXPECT_EQ(to_error(read_frontend_header(header('Q', 3), FrontendPhase::Normal)).message,
              "invalid message length");
}

TEST(Framing, LetsRowsBeLargeAndStatusNot) {
    EXPECT_TRUE(read_backend_header(header('D', 0x3fffffff)).complete());
    EXPECT_FALSE(read_backend_header(header('D', 0x40000004)).complete());
    EXPECT_TRUE(read_backend_header(header('Z', 5)).complete());
    EXPECT_TRUE(read_backend_header(header('Z', 100'000)).violation());
    EXPECT_EQ(to_error(read_backend_header("\x01")).message, "invalid backend message type 1");
}

/// A stream that comes in two pieces, cut at every byte, is read as the same messages.
TEST(Framing, DoesNotDependOnWhereAStreamIsCut) {
    Buffer stream;
    put_parse(stream, "s", "select $1", {});
    put_bind(stream, "", "s");
    put_execute(stream, "", 0);
    put_sync(stream);
    put_query(stream, "select 1");
    for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
        std::string types;
        std::string unread;
        for (const Bytes piece : {Bytes(stream).substr(0, cut), Bytes(stream).substr(cut)}) {
            unread.append(piece);
            while (true) {
                const auto read = read_frontend_header(unread, FrontendPhase::Normal);
                ASSERT_FALSE(read.violation());
                if (!read.complete() || read.total_bytes() > unread.size()) break;
                types.push_back(static_cast<char>(read.type));
                unread.erase(0, read.total_bytes());
            }
        }
        EXPECT_EQ(types, "PBESQ") << cut;
        EXPECT_TRUE(unread.empty()) << cut;
    }
}

}  // namespace
}  // namespace pgxc::wire
