#include "wire/startup.h"

#include <gtest/gtest.h>

#include "base/limits.h"
#include "wire/framing.h"
#include "wire/messages.h"

namespace pgxc::wire {
namespace {

using namespace std::string_literals;

std::string packet(std::uint32_t code, const std::string& body) {
    Buffer out;
    put_u32(out, static_cast<std::uint32_t>(body.size() + 8));
    put_u32(out, code);
    return out + body;
}

StartupMessage parse_message(const std::string& body, std::uint32_t version = protocol_3_0) {
    auto parsed = parse_startup_packet(packet(version, body));
    EXPECT_TRUE(parsed.ok()) << (parsed.ok() ? "" : parsed.error().message);
    if (!parsed || !std::holds_alternative<StartupMessage>(*parsed)) return {};
    return std::get<StartupMessage>(*std::move(parsed));
}

StartupMessage parse_options(const std::string& options) {
    return parse_message("user\0u\0options\0"s + options + "\0\0"s);
}

Error parse_error(const std::string& bytes) {
    auto parsed = parse_startup_packet(bytes);
    EXPECT_FALSE(parsed.ok());
    return parsed.ok() ? Error{} : parsed.error();
}

TEST(StartupPacket, ReadsTheRequestCodes) {
    auto parsed = parse_startup_packet(packet(ssl_request_code, ""));
    ASSERT_TRUE(parsed.ok());
    EXPECT_TRUE(std::holds_alternative<SslRequest>(*parsed));
    parsed = parse_startup_packet(packet(gssenc_request_code, ""));
    ASSERT_TRUE(parsed.ok());
    EXPECT_TRUE(std::holds_alternative<GssEncRequest>(*parsed));

    Buffer cancel;
    put_cancel_request(cancel, {4711, 0xDEADBEEF});
    parsed = parse_startup_packet(cancel);
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(std::get<CancelRequest>(*parsed).pid, 4711U);
    EXPECT_EQ(std::get<CancelRequest>(*parsed).secret, 0xDEADBEEF);
    EXPECT_EQ(parse_error(packet(cancel_request_code, "1234567")).sqlstate, sqlstate::protocol_violation);
    EXPECT_EQ(parse_error(packet(cancel_request_code, "123456789")).sqlstate, sqlstate::protocol_violation);
}

TEST(StartupPacket, ReadsAStartupMessage) {
    const auto message =
        parse_message("user\0alice\0database\0app\0application_name\0psql\0client_encoding\0UTF8\0\0"s);
    EXPECT_EQ(message.user, "alice");
    EXPECT_EQ(message.database, "app");
    EXPECT_EQ(message.parameters,
              (std::vector<Setting>{{"application_name", "psql"}, {"client_encoding", "UTF8"}}));
    EXPECT_EQ(message.replication, ReplicationRequest::None);
    EXPECT_FALSE(message.wants_negotiation());
    EXPECT_EQ(message.setting("Application_Name"), "psql");
    EXPECT_EQ(message.setting("work_mem"), std::nullopt);
}

TEST(StartupPacket, TakesTheUserForTheDatabase) {
    EXPECT_EQ(parse_message("user\0alice\0\0"s).database, "alice");
    EXPECT_EQ(parse_message("user\0alice\0database\0\0\0"s).database, "alice");
}

TEST(StartupPacket, CutsLongNamesAsTheServerDoes) {
    const auto message = parse_message("user\0"s + std::string(100, 'u') + "\0\0"s);
    EXPECT_EQ(message.user, std::string(63, 'u'));
    EXPECT_EQ(message.database, std::string(63, 'u'));
}

TEST(StartupPacket, RefusesWhatTheServerRefuses) {
    EXPECT_EQ(parse_error(packet(protocol_3_0, "\0"s)).sqlstate, sqlstate::invalid_authorization);
    EXPECT_EQ(parse_error(packet(protocol_3_0, "user\0\0\0"s)).sqlstate, sqlstate::invalid_authorization);
    for (const auto& body : {""s, "user"s, "user\0"s, "user\0a"s, "user\0a\0"s, "user\0a\0\0x"s,
                             "user\0a\0x\0"s, "user\0a\0database\0\0"s})
        EXPECT_EQ(parse_error(packet(protocol_3_0, body)).sqlstate, sqlstate::protocol_violation) << body;
    const Error old = parse_error(packet(2U << 16U, std::string(288, '\0')));
    EXPECT_EQ(old.sqlstate, sqlstate::feature_not_supported);
    EXPECT_EQ(old.message, "unsupported frontend protocol 2.0: server supports 3.0 to 3.0");
    EXPECT_EQ(parse_error(packet(4U << 16U, "user\0a\0\0"s)).sqlstate, sqlstate::feature_not_supported);
    EXPECT_EQ(parse_error(packet(protocol_3_0, "user\0a\0replication\0maybe\0\0"s)).sqlstate,
              sqlstate::invalid_parameter_value);
}

TEST(StartupPacket, ReadsReplication) {
    const auto replication = [](const std::string& value) {
        return parse_message("user\0a\0replication\0"s + value + "\0\0"s).replication;
    };
    for (const char* on : {"true", "on", "1", "yes", "T", "y"})
        EXPECT_EQ(replication(on), ReplicationRequest::Physical);
    for (const char* off : {"false", "off", "of", "0", "no", "N"})
        EXPECT_EQ(replication(off), ReplicationRequest::None);
    EXPECT_EQ(replication("database"), ReplicationRequest::Database);
}

TEST(StartupPacket, ChecksTheLengthFirst) {
    for (const auto& few : {""s, "\0"s, "\0\0"s, "\0\0\0"s}) {
        auto bytes = startup_packet_bytes(few);
        ASSERT_TRUE(bytes.ok());
        EXPECT_FALSE(bytes->has_value());
    }
    const auto length = [](std::uint32_t value) {
        Buffer out;
        put_u32(out, value);
        return startup_packet_bytes(out);
    };
    for (const std::uint32_t bad : {0U, 4U, 7U, 10005U, 0x80000000U, 0xFFFFFFFFU})
        EXPECT_FALSE(length(bad).ok()) << bad;
    EXPECT_EQ(**length(8), 8U);
    EXPECT_EQ(**length(10004), limits::max_startup_bytes + 4);
    EXPECT_FALSE(startup_packet_bytes("GET / HTTP/1.1\r\n").ok());
    EXPECT_FALSE(
        startup_packet_bytes("\x16\x03\x01\x02\x00\x01").ok());  // a TLS ClientHello without SSLRequest
    EXPECT_EQ(parse_error(packet(protocol_3_0, "user\0a\0\0"s).substr(0, 12)).sqlstate,
              sqlstate::protocol_violation);
}

TEST(StartupPacket, NegotiatesMinorVersionsAndOptions) {
    const auto message = parse_message("user\0a\0_pq_.shiny\0on\0\0"s, protocol_3_0 | 2);
    EXPECT_EQ(message.minor, 2);
    ASSERT_TRUE(message.wants_negotiation());
    EXPECT_TRUE(message.parameters.empty());
    Buffer out;
    put_negotiate_protocol_version(out, message);
    const auto header = read_backend_header(out);
    ASSERT_TRUE(header.complete());
    EXPECT_EQ(header.total_bytes(), out.size());
    EXPECT_EQ(header.type, BackendMessage::NegotiateProtocolVersion);
    const auto version = parse_negotiate_protocol_version(Bytes(out).substr(header_bytes));
    ASSERT_TRUE(version.ok());
    EXPECT_EQ(version->minor, 0U);
    EXPECT_EQ(version->unknown_options, 1U);
    EXPECT_NE(out.find("_pq_.shiny"), std::string::npos);
}

TEST(Options, AreCutAsTheServerCutsThem) {
    const auto texts = [](std::string_view options) {
        std::vector<std::string> result;
        for (auto& argument : split_options(options)) result.push_back(argument.text);
        return result;
    };
    using Texts = std::vector<std::string>;
    EXPECT_EQ(texts(""), Texts{});
    EXPECT_EQ(texts("  \t\n "), Texts{});
    EXPECT_EQ(texts(" -c  a=b\t-E "), (Texts{"-c", "a=b", "-E"}));
    EXPECT_EQ(texts(R"(-c a=b\ c)"), (Texts{"-c", "a=b c"}));
    EXPECT_EQ(texts(R"(a\\b)"), (Texts{R"(a\b)"}));
    EXPECT_EQ(texts(R"(a\)"), (Texts{"a"}));
    for (const std::string& value : {"a b"s, "\\"s, "\\ \\"s, "x\ty"s, "plain"s})
        EXPECT_EQ(texts(escape_option(value)), Texts{value}) << value;
}

struct OwnCase {
    const char* options;
    const char* node;  // nullptr = none
    const char* forwarded;
};

TEST(Options, LoseOurSettingsAndKeepTheRest) {
    for (const auto& [options, node, forwarded] : {
             OwnCase{"-c pgxc.node=1", "1", ""},
             OwnCase{"-cpgxc.node=1", "1", ""},
             OwnCase{"--pgxc.node=1", "1", ""},
             OwnCase{"--PGXC.Node=C", "C", ""},
             OwnCase{"-c pgxc.node=1 -c pgxc.node=2", "2", ""},
             OwnCase{"-c work_mem=1MB -c pgxc.node=1 --geqo=off", "1", "-c work_mem=1MB --geqo=off"},
             OwnCase{"-c search_path=a\\ b  --pgxc.node=7", "7", "-c search_path=a\\ b"},
             OwnCase{"-Ec pgxc.node=3", "3", "-E"},
             OwnCase{"-E  -c  geqo=off", nullptr, "-E  -c  geqo=off"},
             OwnCase{"-c pgxc.node=", "", ""},
             OwnCase{"-c pgxc.node", nullptr, "-c pgxc.node"},
             OwnCase{"-d -c pgxc.node=1", nullptr, "-d -c pgxc.node=1"},  // -d takes "-c" for its argument
             OwnCase{"-- -c pgxc.node=1", nullptr, "-- -c pgxc.node=1"},
             OwnCase{"-c pgxcx.node=1", nullptr, "-c pgxcx.node=1"},
             OwnCase{"-c", nullptr, "-c"},
             OwnCase{"-? -c pgxc.node=4", "4", "-?"},
         }) {
        const auto message = parse_options(options);
        EXPECT_EQ(message.options, forwarded) << options;
        if (node == nullptr) {
            EXPECT_EQ(message.node(), std::nullopt) << options;
        } else {
            EXPECT_EQ(message.node(), std::string_view(node)) << options;
        }
    }
}

TEST(Options, GiveTheirSettings) {
    const auto message =
        parse_options("-c work_mem=1MB --default-transaction-read-only=on --pgxc.read_routing=master");
    EXPECT_EQ(message.options_settings,
              (std::vector<Setting>{{"work_mem", "1MB"}, {"default_transaction_read_only", "on"}}));
    EXPECT_EQ(message.read_routing(), "master");
    EXPECT_EQ(message.setting("default_transaction_read_only"), "on");
    EXPECT_FALSE(message.options_have_switches);
    for (const char* odd : {"-E", "-d 1", "word", "-c novalue", "-?", "--", "-", "-c geqo=off -e"})
        EXPECT_TRUE(parse_options(odd).options_have_switches) << odd;
}

TEST(Options, GiveWayToParameters) {
    const auto message = parse_message(
        "user\0u\0pgxc.node\0002\0geqo\0on\0options\0-c pgxc.node=1 -c geqo=off\0PGXC.read_routing\0master\0\0"s);
    EXPECT_EQ(message.node(), "2");
    EXPECT_EQ(message.read_routing(), "master");
    EXPECT_EQ(message.setting("geqo"), "on");
    EXPECT_EQ(message.parameters, (std::vector<Setting>{{"geqo", "on"}}));
}

TEST(StartupPacket, IsReadBackAsItWasBuilt) {
    Buffer out;
    const std::vector<Setting> parameters = {{"application_name", "pool"}, {"options", "-c geqo=off"}};
    put_startup_message(out, "bob", "app", parameters);
    auto bytes = startup_packet_bytes(out);
    ASSERT_TRUE(bytes.ok());
    ASSERT_EQ(**bytes, out.size());
    auto parsed = parse_startup_packet(out);
    ASSERT_TRUE(parsed.ok());
    const auto& message = std::get<StartupMessage>(*parsed);
    EXPECT_EQ(message.user, "bob");
    EXPECT_EQ(message.database, "app");
    EXPECT_EQ(message.options, "-c geqo=off");
    for (std::size_t cut = 0; cut < out.size(); ++cut)
        EXPECT_FALSE(parse_startup_packet(out.substr(0, cut)).ok());

    Buffer ssl = "x";
    put_ssl_request(ssl);
    EXPECT_EQ(ssl, "x\0\0\0\x08\x04\xd2\x16\x2f"s);
}

}  // namespace
}  // namespace pgxc::wire
