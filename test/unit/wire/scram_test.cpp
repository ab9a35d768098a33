#include "wire/scram.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

#include "base/error.h"
#include "wire/base64.h"

namespace pgxc::wire {
namespace {

using namespace std::string_literals;

TEST(Base64, ReadsWhatItWrites) {
    EXPECT_EQ(base64_encode(""), "");
    EXPECT_EQ(base64_encode("f"), "Zg==");
    EXPECT_EQ(base64_encode("fo"), "Zm8=");
    EXPECT_EQ(base64_encode("foobar"), "Zm9vYmFy");
    std::string data;
    for (int i = 0; i < 300; ++i) {
        EXPECT_EQ(base64_decode(base64_encode(data)), data);
        data.push_back(static_cast<char>(i * 7));
    }
}

TEST(Base64, RefusesEveryOtherForm) {
    for (const char* bad : {"Z", "Zg", "Zg=", "Zg==Zg==", "====", "=", "Zh==", "Zm9=", "Z g=", "Zg==\n",
                            "Zm9v=", "Z===", "Zm-_"})
        EXPECT_EQ(base64_decode(bad), std::nullopt) << bad;
}

// The exchange of RFC 7677, section 3: user "user", password "pencil".
constexpr std::string_view rfc_salt = "W22ZaJ0SNY7soEsUEjb6gQ==";
constexpr std::string_view rfc_server_nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
constexpr std::string_view rfc_client_first = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
constexpr std::string_view rfc_server_first =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
constexpr std::string_view rfc_client_final =
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+"
    "Ute9ytag9zjfMHgsqmmiz7AndVQ=";
constexpr std::string_view rfc_server_final = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
constexpr std::string_view rfc_stored =
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

ScramSecret pencil() {
    return make_scram_secret("pencil", *base64_decode(rfc_salt), 4096);
}
ScramServerExchange rfc_server(bool doomed = false) {
    return ScramServerExchange::with_nonce(pencil(), doomed, std::string(rfc_server_nonce));
}

const std::array<std::uint8_t, 18> client_random = {1,  2,  3,  4,  5,  6,  7,  8,  9,
                                                    10, 11, 12, 13, 14, 15, 16, 17, 18};
const std::array<std::uint8_t, 18> server_random = {200, 201, 202, 4,  5,  6,  7,  8,  9,
                                                    10,  11,  12,  13, 14, 15, 16, 17, 0};

TEST(Scram, SecretsAreReadAndWritten) {
    EXPECT_EQ(to_string(pencil()), rfc_stored);
    EXPECT_EQ(parse_scram_secret(rfc_stored), pencil());
    EXPECT_TRUE(verify_plain_password("pencil", pencil()));
    EXPECT_FALSE(verify_plain_password("pencil ", pencil()));
    EXPECT_FALSE(verify_plain_password("", pencil()));
}

TEST(Scram, RefusesWhatIsNoSecret) {
    const std::string good(rfc_stored);
    for (std::size_t cut = 0; cut < good.size(); ++cut)
        EXPECT_FALSE(parse_scram_secret(good.substr(0, cut)).has_value()) << cut;
    const auto changed = [&good](std::string_view from, std::string_view to) {
        std::string text = good;
        return text.replace(text.find(from), from.size(), to);
    };
    for (const auto& bad : {good + "x", changed("4096", "0"), changed("4096", "-1"), changed("4096", "4096x"),
                            changed("4096", "99999999999"), changed("SCRAM", "scram"), changed("W22Z", "W2"),
                            changed("W22ZaJ0SNY7soEsUEjb6gQ==", ""), changed("WG5d", "WG5=")})
        EXPECT_FALSE(parse_scram_secret(bad).has_value()) << bad;
    EXPECT_FALSE(parse_scram_secret("md5d41d8cd98f00b204e9800998ecf8427e").has_value());
}

TEST(Scram, ServerPlaysTheExampleOfTheRfc) {
    auto server = rfc_server();
    const auto first = server.client_first(rfc_client_first);
    ASSERT_TRUE(first.ok());
    EXPECT_EQ(*first, rfc_server_first);
    const auto final = server.client_final(rfc_client_final);
    ASSERT_TRUE(final.ok());
    ASSERT_TRUE(final->has_value());
    EXPECT_EQ(**final, rfc_server_final);
    ASSERT_TRUE(server.client_keys().has_value());
    EXPECT_EQ(server.client_keys()->server_key, pencil().server_key);
}

/// Plays a whole exchange; the client's verdict, or nullopt where the server says no.
std::optional<Status> play(ScramClientExchange client, ScramServerExchange server,
                           std::optional<ScramClientKeys>* keys = nullptr) {
    const auto server_first = server.client_first(client.first());
    EXPECT_TRUE(server_first.ok());
    const auto client_final = client.server_first(*server_first);
    EXPECT_TRUE(client_final.ok());
    const auto server_final = server.client_final(*client_final);
    EXPECT_TRUE(server_final.ok());
    if (keys != nullptr) *keys = server.client_keys();
    if (!server_final->has_value()) return std::nullopt;
    return client.server_final(**server_final);
}

TEST(Scram, BothEndsAgree) {
    const auto verdict = play({"pencil", client_random}, {pencil(), false, server_random});
    ASSERT_TRUE(verdict.has_value());
    EXPECT_TRUE(verdict->ok());
    EXPECT_FALSE(play({"Pencil", client_random}, {pencil(), false, server_random}).has_value());
    EXPECT_FALSE(play({"", client_random}, {pencil(), false, server_random}).has_value());
}

TEST(Scram, RecoveredKeysOpenTheNextServer) {
    std::optional<ScramClientKeys> keys;
    ASSERT_TRUE(play({"pencil", client_random}, {pencil(), false, server_random}, &keys).has_value());
    ASSERT_TRUE(keys.has_value());
    const auto verdict = play({*keys, server_random}, {pencil(), false, client_random});
    ASSERT_TRUE(verdict.has_value());
    EXPECT_TRUE(verdict->ok());
    // The same password with another salt is another secret: the keys don't fit.
    const auto other = make_scram_secret("pencil", "another salt....", 4096);
    EXPECT_FALSE(play({*keys, server_random}, {other, false, client_random}).has_value());
}

TEST(Scram, ADoomedExchangeLooksLikeAnyOther) {
    const std::string nonce(32, 'n');
    const ScramSecret mock = mock_scram_secret("nobody", nonce);
    EXPECT_EQ(mock, mock_scram_secret("nobody", nonce));
    EXPECT_NE(mock.salt, mock_scram_secret("somebody", nonce).salt);
    EXPECT_NE(mock.salt, mock_scram_secret("nobody", std::string(32, 'm')).salt);
    EXPECT_EQ(mock.salt.size(), 16U);
    EXPECT_EQ(mock.iterations, 4096);
    std::optional<ScramClientKeys> keys;
    EXPECT_FALSE(play({"pencil", client_random}, {mock, true, server_random}, &keys).has_value());
    EXPECT_FALSE(keys.has_value());
    // Even the right proof doesn't open a doomed one.
    EXPECT_FALSE(play({"pencil", client_random}, {pencil(), true, server_random}, &keys).has_value());
    EXPECT_FALSE(keys.has_value());
}

TEST(Scram, MockSaltIsTheServersOwn) {
    // sha256("nobody" + nonce), its first 16 bytes: auth-scram.c, scram_mock_salt
    EXPECT_EQ(base64_encode(mock_scram_secret("nobody", std::string(32, 'n')).salt),
              "jcpgQ42zJ8iakPhisbndAA==");
}

TEST(Scram, ServerRefusesMalformedFirstMessages) {
    for (const auto& bad :
         {""s, "n"s, "n,"s, "n,,"s, "x,,n=,r=a"s, "p=tls-server-end-point,,n=,r=a"s, "n,x,n=,r=a"s,
          "nn,n=,r=a"s, "n,,r=a"s, "n,,n="s, "n,,n=,"s, "n,,n=,r"s, "n,,n=,r:a"s, "n,,n=,r=a\x7f"s,
          "n,,n=,r=a b"s, "n,,n=,r=a,1=x"s, "n,,n=,r=a,x"s, "n,,n=,r=a\0"s, "n,,n=,s=a"s}) {
        auto server = rfc_server();
        const auto answer = server.client_first(bad);
        ASSERT_FALSE(answer.ok()) << bad;
        EXPECT_EQ(answer.error().sqlstate, sqlstate::protocol_violation) << bad;
    }
    for (const char* unsupported : {"n,a=other,n=,r=a", "n,,m=x,n=,r=a"})
        EXPECT_EQ(rfc_server().client_first(unsupported).error().sqlstate, sqlstate::feature_not_supported);
    EXPECT_TRUE(rfc_server().client_first("y,,n=,r=a,x=1,y=").ok());
}

TEST(Scram, ServerRefusesMalformedFinalMessages) {
    const std::string good(rfc_client_final);
    const auto answer = [](const std::string& message) {
        auto server = rfc_server();
        EXPECT_TRUE(server.client_first(rfc_client_first).ok());
        return server.client_final(message);
    };
    for (std::size_t cut = 0; cut < good.size(); ++cut) EXPECT_FALSE(answer(good.substr(0, cut)).ok()) << cut;
    const auto changed = [&good](std::string_view from, std::string_view to) {
        std::string text = good;
        return text.replace(text.find(from), from.size(), to);
    };
    for (const auto& bad :
         {good + ",x=1", good + "\0"s, changed("biws", "eSws"), changed("biws", ""),
          changed("r=rOpr", "r=rOpx"), changed("k0,", "k0x,"), changed("p=dHzb", "p=dHz")}) {
        const auto result = answer(bad);
        ASSERT_FALSE(result.ok()) << bad;
        EXPECT_EQ(result.error().sqlstate, sqlstate::protocol_violation) << bad;
    }
    // A well-formed proof that is wrong is a wrong password.
    const auto wrong = answer(changed("p=dHzb", "p=eHzb"));
    ASSERT_TRUE(wrong.ok());
    EXPECT_FALSE(wrong->has_value());
    // Extensions before the proof are part of what is signed.
    const auto extended = answer(changed(",p=", ",x=1,p="));
    ASSERT_TRUE(extended.ok());
    EXPECT_FALSE(extended->has_value());
}

TEST(Scram, MessagesOutOfOrderAreRefused) {
    EXPECT_FALSE(rfc_server().client_final(rfc_client_final).ok());
    auto server = rfc_server();
    ASSERT_TRUE(server.client_first(rfc_client_first).ok());
    EXPECT_FALSE(server.client_first(rfc_client_first).ok());
    ASSERT_TRUE(server.client_final(rfc_client_final).ok());
    EXPECT_FALSE(server.client_final(rfc_client_final).ok());
    ScramClientExchange client("pencil", client_random);
    EXPECT_FALSE(client.server_final("v=AAAA").ok());
}

TEST(Scram, ClientRefusesAnImpostor) {
    const auto answer = [](const std::string& server_first) {
        ScramClientExchange client("pencil", client_random);
        return client.server_first(server_first).ok();
    };
    const std::string nonce = ScramClientExchange("pencil", client_random).first().substr(8);
    ASSERT_TRUE(answer("r=" + nonce + "x,s=AAAA,i=1"));
    for (const auto& bad :
         {""s, "r="s, "r=" + nonce + ",s=AAAA,i=1", "r=x" + nonce + ",s=AAAA,i=1", "r=" + nonce + "x,s=,i=1",
          "r=" + nonce + "x,s=A,i=1", "r=" + nonce + "x,s=AAAA,i=0", "r=" + nonce + "x,s=AAAA,i=-5",
          "r=" + nonce + "x,s=AAAA,i=2000000000", "r=" + nonce + "x,s=AAAA,i=1x", "r=" + nonce + "x,s=AAAA",
          "r=" + nonce + "x,i=1", "e=other-error"s})
        EXPECT_FALSE(answer(bad)) << bad;

    const auto finish = [&nonce](const std::string& server_final) {
        ScramClientExchange client("pencil", client_random);
        EXPECT_TRUE(client.server_first("r=" + nonce + "x,s=AAAA,i=1").ok());
        return client.server_final(server_final);
    };
    const std::string zeros = base64_encode(std::string(32, '\0'));
    EXPECT_EQ(finish("v=" + zeros).error().sqlstate, sqlstate::invalid_password);
    EXPECT_EQ(finish("e=invalid-proof").error().message,
              "error received from server in SCRAM exchange: invalid-proof");
    for (const char* bad : {"", "v=", "v=AAAA", "x=1"}) EXPECT_FALSE(finish(bad).ok()) << bad;
}

/// An exchange whose ends may have bound it to a channel.
std::optional<Status> play_bound(const std::string& at_client, bool client_plus, const std::string& at_server,
                                 bool server_plus, std::string* state = nullptr) {
    ScramClientExchange client("pencil", client_random);
    ScramServerExchange server(pencil(), false, server_random);
    client.bind_channel(at_client, client_plus);
    server.bind_channel(at_server, server_plus);
    const auto server_first = server.client_first(client.first());
    if (!server_first) {
        if (state != nullptr) *state = server_first.error().sqlstate;
        return server_first.error();
    }
    const auto client_final = client.server_first(*server_first);
    EXPECT_TRUE(client_final.ok());
    const auto server_final = server.client_final(*client_final);
    if (!server_final) {
        if (state != nullptr) *state = server_final.error().sqlstate;
        return server_final.error();
    }
    if (!server_final->has_value()) return std::nullopt;
    auto verdict = client.server_final(**server_final);
    EXPECT_TRUE(client.finished());
    return verdict;
}

TEST(Scram, ABoundChannelMustBeTheSameAtBothEnds) {
    const std::string hash("\0\xff binary, of course", 20);
    EXPECT_TRUE(play_bound(hash, true, hash, true)->ok());
    std::string state;
    EXPECT_FALSE(play_bound(hash, true, hash + "x", true, &state)->ok());
    EXPECT_EQ(state, "28000");
}

TEST(Scram, TheChoiceOfTheMechanismAndTheFlagMustAgree) {
    std::string state;
    // The client says "the server can't" to one that offered it: somebody in between took the offer away.
    EXPECT_FALSE(play_bound("hash", false, "hash", false, &state)->ok());
    EXPECT_EQ(state, "28000");
    EXPECT_FALSE(play_bound("hash", false, "hash", true, &state)->ok());
    EXPECT_EQ(state, "08P01");
    EXPECT_FALSE(play_bound("hash", true, "hash", false, &state)->ok());
    EXPECT_EQ(state, "08P01");
    // Without TLS 'y' is true.
    ScramClientExchange client("pencil", client_random);
    client.bind_channel({}, false);
    EXPECT_TRUE(play(client, {pencil(), false, server_random})->ok());
    // A client that wants none gets none, offered or not.
    ScramServerExchange server(pencil(), false, server_random);
    server.bind_channel("hash", false);
    EXPECT_TRUE(play({"pencil", client_random}, server)->ok());
}

TEST(Scram, OtherBindingsAreRefused) {
    for (const char* first :
         {"p=tls-unique,,n=,r=abc", "p=,,n=,r=abc", "p,,n=,r=abc", "p=tls-server-end-point",
          "p=tls-server-end-point,", "p=tls-server-end-point,a=x,n=,r=abc",
          "p=tls-server-end-point,x,n=,r=abc", "p"}) {
        ScramServerExchange server(pencil(), false, server_random);
        server.bind_channel("hash", true);
        EXPECT_FALSE(server.client_first(first).ok()) << first;
    }
}

TEST(Scram, PassedThroughKeysServeOnlyTheirSecret) {
    std::optional<ScramClientKeys> keys;
    ASSERT_TRUE(play({"pencil", client_random}, {pencil(), false, server_random}, &keys).has_value());
    const ScramPassThrough ours{*keys, pencil().salt, pencil().iterations};
    ScramClientExchange same({std::nullopt, ours}, client_random);
    EXPECT_TRUE(play(same, {pencil(), false, server_random})->ok());
    // Another salt: no proof is sent.
    const auto other = make_scram_secret("pencil", "another salt....", 4096);
    ScramClientExchange keys_alone({std::nullopt, ours}, client_random);
    ScramServerExchange server(other, false, server_random);
    const auto answer = keys_alone.server_first(*server.client_first(keys_alone.first()));
    ASSERT_FALSE(answer.ok());
    EXPECT_EQ(answer.error().sqlstate, sqlstate::invalid_password);
    EXPECT_FALSE(keys_alone.used_pass_through());
    // With a password beside them, that serves.
    EXPECT_TRUE(play({{"pencil", ours}, client_random}, {other, false, server_random})->ok());
}

TEST(Md5, IsWhatAServerExpects) {
    // md5("secret" + "alice"), and md5 of that and the salt
    EXPECT_EQ(md5_secret("secret", "alice"), "md54a0a68b43b6cd5cf266fa02f196e2371");
    EXPECT_EQ(md5_response("md54a0a68b43b6cd5cf266fa02f196e2371", std::array<std::uint8_t, 4>{1, 2, 3, 4}),
              "md598a0412b9c31436fc53776e863350083");
    EXPECT_TRUE(is_md5_secret("md54a0a68b43b6cd5cf266fa02f196e2371"));
    for (const char* bad : {"", "md5", "md5x", "md54a0a68b43b6cd5cf266fa02f196e23710", "MD5"})
        EXPECT_FALSE(is_md5_secret(bad)) << bad;
    EXPECT_EQ(md5_response("plain", std::array<std::uint8_t, 4>{1, 2, 3, 4}), "");
}

TEST(ConstantTime, ComparesAll) {
    EXPECT_TRUE(equal_constant_time("", ""));
    EXPECT_TRUE(equal_constant_time("abc", "abc"));
    EXPECT_FALSE(equal_constant_time("abc", "abd"));
    EXPECT_FALSE(equal_constant_time("abc", "ab"));
}

}  // namespace
}  // namespace pgxc::wire
