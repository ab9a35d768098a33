#include "wire/messages.h"

#include <gtest/gtest.h>

#include <vector>

namespace pgxc::wire {
namespace {

using namespace std::string_literals;

/// The body of the one message in `out`, its framing checked.
template <class Read>
Bytes body_of(const Buffer& out, char type, Read read) {
    const auto header = read(out);
    EXPECT_TRUE(header.complete());
    EXPECT_EQ(static_cast<char>(header.type), type);
    EXPECT_EQ(header.total_bytes(), out.size());
    return Bytes(out).substr(header_bytes);
}
Bytes backend_body(const Buffer& out, char type) {
    return body_of(out, type, read_backend_header);
}
Bytes frontend_body(const Buffer& out, char type, FrontendPhase phase = FrontendPhase::Normal) {
    return body_of(out, type, [phase](Bytes bytes) { return read_frontend_header(bytes, phase); });
}

TEST(Messages, ErrorsKeepTheirFields) {
    const Error error{sqlstate::undefined_object, "no such node", "REGISTER it", "it is 7"};
    Buffer out;
    put_error_response(out, Severity::Fatal, error);
    const auto fields = parse_error_fields(backend_body(out, 'E'));
    ASSERT_TRUE(fields.ok());
    EXPECT_EQ(fields->severity, "FATAL");
    EXPECT_TRUE(fields->fatal());
    EXPECT_EQ(fields->to_error(), error);

    out.clear();
    put_notice_response(out, Severity::Warning, Error("01000", "careful"));
    const auto notice = parse_error_fields(backend_body(out, 'N'));
    ASSERT_TRUE(notice.ok());
    EXPECT_EQ(notice->severity, "WARNING");
    EXPECT_FALSE(notice->fatal());
    EXPECT_TRUE(notice->hint.empty());
}

TEST(Messages, ErrorFieldsPreferTheUntranslatedSeverity) {
    for (const auto& body : {"SFATALE\0VFATAL\0C57P01\0Mweg\0RProcessInterrupts\0!x\0\0"s,
                             "VFATAL\0SFATALE\0C57P01\0Mweg\0RProcessInterrupts\0\0"s}) {
        const auto fields = parse_error_fields(body);
        ASSERT_TRUE(fields.ok());
        EXPECT_EQ(fields->severity, "FATAL");
        EXPECT_EQ(fields->routine, "ProcessInterrupts");
    }
    EXPECT_EQ(parse_error_fields("SERROR\0C22012\0Mx\0\0"s)->severity, "ERROR");
}

TEST(Messages, RefuseMalformedErrorFields) {
    const std::string good = "SERROR\0C22012\0Mdivision by zero\0\0"s;
    for (std::size_t cut = 0; cut < good.size(); ++cut)
        EXPECT_FALSE(parse_error_fields(Bytes(good).substr(0, cut)).ok()) << cut;
    EXPECT_FALSE(parse_error_fields(good + "x").ok());
    ErrorFields partial;
    EXPECT_FALSE(scan_error_fields(Bytes(good).substr(0, 20), partial));
    EXPECT_EQ(partial.sqlstate, "22012");
}

TEST(Messages, AServersStatusIsReadBack) {
    Buffer out;
    put_parameter_status(out, "TimeZone", "UTC");
    EXPECT_EQ(parse_parameter_status(backend_body(out, 'S'))->value, "UTC");
    out.clear();
    put_backend_key_data(out, 77, 0xFFFFFFFE);
    EXPECT_EQ(parse_backend_key_data(backend_body(out, 'K'))->secret, 0xFFFFFFFE);
    EXPECT_FALSE(parse_backend_key_data("1234567").ok());
    EXPECT_FALSE(parse_backend_key_data("123456789").ok());
    for (const auto status :
         {TransactionStatus::Idle, TransactionStatus::InBlock, TransactionStatus::Failed}) {
        out.clear();
        put_ready_for_query(out, status);
        EXPECT_EQ(*parse_ready_for_query(backend_body(out, 'Z')), status);
    }
    for (const char* bad : {"", "X", "II"}) EXPECT_FALSE(parse_ready_for_query(bad).ok());
    out.clear();
    put_command_complete(out, "INSERT 0 1");
    EXPECT_EQ(*parse_command_complete(backend_body(out, 'C')), "INSERT 0 1");
    EXPECT_FALSE(parse_command_complete("INSERT").ok());
    const std::string notify =
        "\0\0\0\x05"
        "ch\0load\0"s;
    const auto notification = parse_notification(notify);
    ASSERT_TRUE(notification.ok());
    EXPECT_EQ(notification->pid, 5U);
    EXPECT_EQ(notification->payload, "load");
    EXPECT_FALSE(parse_notification("\0\0\0\x05"
                                    "ch\0load"s)
                     .ok());
}

TEST(Messages, BareAnswersHaveNoBody) {
    using Put = void (*)(Buffer&);
    const std::vector<std::pair<Put, char>> backend = {
        {put_empty_query_response, 'I'}, {put_parse_complete, '1'}, {put_bind_complete, '2'},
        {put_close_complete, '3'},       {put_no_data, 'n'},        {put_copy_done, 'c'}};
    for (const auto& [put, type] : backend) {
        Buffer out;
        put(out);
        EXPECT_TRUE(backend_body(out, type).empty());
    }
    const std::vector<std::pair<Put, char>> frontend = {
        {put_flush, 'H'}, {put_sync, 'S'}, {put_terminate, 'X'}};
    for (const auto& [put, type] : frontend) {
        Buffer out;
        put(out);
        EXPECT_TRUE(frontend_body(out, type).empty());
    }
}

TEST(Messages, AuthenticationIsReadBack) {
    const auto request = [](const Buffer& out) { return parse_authentication(backend_body(out, 'R')); };
    Buffer out;
    put_authentication_ok(out);
    EXPECT_EQ(request(out)->kind, AuthenticationKind::Ok);
    out.clear();
    put_authentication_cleartext(out);
    EXPECT_EQ(request(out)->kind, AuthenticationKind::Cleartext);
    out.clear();
    put_authentication_md5(out, std::array<std::uint8_t, 4>{1, 2, 3, 255});
    EXPECT_EQ(request(out)->kind, AuthenticationKind::Md5);
    EXPECT_EQ(request(out)->data, "\x01\x02\x03\xff");
    out.clear();
    const std::array<std::string_view, 2> mechanisms = {"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"};
    put_authentication_sasl(out, mechanisms);
    EXPECT_TRUE(request(out)->offers("SCRAM-SHA-256"));
    EXPECT_TRUE(request(out)->offers("SCRAM-SHA-256-PLUS"));
    EXPECT_FALSE(request(out)->offers("SCRAM-SHA"));
    EXPECT_FALSE(request(out)->offers(""));
    out.clear();
    put_authentication_sasl_continue(out, "r=x");
    EXPECT_EQ(request(out)->data, "r=x");
    out.clear();
    put_authentication_sasl_final(out, "v=x");
    EXPECT_EQ(request(out)->kind, AuthenticationKind::SaslFinal);
    for (const auto& bad : {""s, "\0\0\0"s,
                            "\0\0\0\x05"
                            "abc"s,
                            "\0\0\0\0x"s, "\0\0\0\x0a"s,
                            "\0\0\0\x0a"
                            "SCRAM\0"s})
        EXPECT_FALSE(parse_authentication(bad).ok());
    EXPECT_EQ(parse_authentication("\0\0\0\x06"s).error().sqlstate, sqlstate::feature_not_supported);
}

TEST(Messages, AClientsMessagesAreReadBack) {
    Buffer out;
    put_query(out, "select 1");
    EXPECT_EQ(*parse_query(frontend_body(out, 'Q')), "select 1");
    EXPECT_FALSE(parse_query("select 1").ok());
    EXPECT_FALSE(parse_query("select 1\0x"s).ok());

    out.clear();
    const std::array<std::uint32_t, 2> types = {23, 25};
    put_parse(out, "s1", "select $1, $2", types);
    const Bytes parse_body = frontend_body(out, 'P');
    const auto parse = parse_parse(parse_body);
    ASSERT_TRUE(parse.ok());
    EXPECT_EQ(parse->statement, "s1");
    EXPECT_EQ(parse->sql, "select $1, $2");
    EXPECT_EQ(get_u32(parse->parameter_types.data() + 4), 25U);
    for (std::size_t cut = 0; cut < parse_body.size(); ++cut)
        EXPECT_FALSE(parse_parse(parse_body.substr(0, cut)).ok()) << cut;

    out.clear();
    const std::array<std::optional<std::string_view>, 2> values = {"7", std::nullopt};
    put_bind(out, "p1", "s1", values);
    const auto bind = parse_bind_names(frontend_body(out, 'B'));
    ASSERT_TRUE(bind.ok());
    EXPECT_EQ(bind->portal, "p1");
    EXPECT_EQ(bind->statement, "s1");
    EXPECT_EQ(Bytes(out).substr(header_bytes + 6),
              "\0\0\0\2\0\0\0\1"
              "7\xff\xff\xff\xff\0\0"s);
    EXPECT_FALSE(parse_bind_names("p1\0s1"s).ok());

    out.clear();
    put_describe_portal(out, "p1");
    EXPECT_EQ(parse_describe_or_close(frontend_body(out, 'D'))->kind, ObjectKind::Portal);
    out.clear();
    put_close_statement(out, "s1");
    EXPECT_EQ(parse_describe_or_close(frontend_body(out, 'C'))->name, "s1");
    for (const auto& bad : {""s, "S"s, "Sx"s, "Xx\0"s, "Sx\0y"s})
        EXPECT_FALSE(parse_describe_or_close(bad).ok());

    out.clear();
    put_execute(out, "p1", 50);
    EXPECT_EQ(parse_execute(frontend_body(out, 'E'))->max_rows, 50U);
    EXPECT_FALSE(parse_execute("p1\0\0\0\0"s).ok());

    out.clear();
    put_copy_data(out, "a\0b"s);
    EXPECT_EQ(frontend_body(out, 'd', FrontendPhase::CopyIn), "a\0b"s);
    out.clear();
    put_copy_fail(out, "enough");
    EXPECT_EQ(frontend_body(out, 'f', FrontendPhase::CopyIn), "enough\0"s);
}

TEST(Messages, AStringEndsAtItsFirstZero) {
    Buffer out;
    put_query(out, "select 1\0; drop table x"s);
    EXPECT_EQ(*parse_query(frontend_body(out, 'Q')), "select 1");
}

TEST(Messages, SaslAnswersAreReadBack) {
    Buffer out;
    put_password(out, "secret");
    EXPECT_EQ(*parse_password(frontend_body(out, 'p', FrontendPhase::Password)), "secret");
    EXPECT_FALSE(parse_password("secret").ok());
    out.clear();
    put_sasl_initial_response(out, "SCRAM-SHA-256", "n,,n=,r=abc");
    const Bytes body = frontend_body(out, 'p', FrontendPhase::Sasl);
    const auto initial = parse_sasl_initial_response(body);
    ASSERT_TRUE(initial.ok());
    EXPECT_EQ(initial->mechanism, "SCRAM-SHA-256");
    EXPECT_EQ(initial->data, "n,,n=,r=abc");
    for (std::size_t cut = 0; cut < body.size(); ++cut)
        EXPECT_FALSE(parse_sasl_initial_response(body.substr(0, cut)).ok()) << cut;
    EXPECT_EQ(parse_sasl_initial_response("X\0\xff\xff\xff\xff"s)->data, std::nullopt);
    EXPECT_EQ(parse_sasl_initial_response("X\0\0\0\0\0"s)->data, "");
    EXPECT_FALSE(parse_sasl_initial_response("X\0\x7f\xff\xff\xff"s).ok());
    out.clear();
    put_sasl_response(out, "c=biws");
    EXPECT_EQ(frontend_body(out, 'p', FrontendPhase::Sasl), "c=biws");
}

TEST(Messages, NegotiationRefusesAnAbsurdCount) {
    EXPECT_TRUE(parse_negotiate_protocol_version("\0\3\0\0\0\0\0\0"s).ok());
    EXPECT_FALSE(parse_negotiate_protocol_version("\0\3\0\0\xff\xff\xff\xff"s).ok());
    EXPECT_FALSE(parse_negotiate_protocol_version("\0\3\0\0\0\0\0\1"s).ok());
    EXPECT_FALSE(parse_negotiate_protocol_version("\0\3\0"s).ok());
}

TEST(BodyReader, StaysFailedBeyondTheEnd) {
    BodyReader reader("ab");
    EXPECT_EQ(reader.u32(), 0U);
    EXPECT_FALSE(reader.ok());
    EXPECT_EQ(reader.u8(), 0);
    EXPECT_FALSE(reader.done());
}

}  // namespace
}  // namespace pgxc::wire
