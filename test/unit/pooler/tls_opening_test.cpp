// How a server connection becomes encrypted, against scripted servers on a socket pair.
#include "pooler/tls_opening.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fakes/certificates.h"

namespace pgxc::pooler {
namespace {

class TlsOpeningTest : public ::testing::Test, private net::StreamEvents {
  protected:
    void SetUp() override {
        int fds[2];
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
        auto stream = net::Stream::adopt(loop, UniqueFd{fds[0]}, *this);
        ASSERT_TRUE(stream.ok());
        connection = Connection{std::move(*stream)};
        server.reset(fds[1]);
        tls.mode = SslMode::Require;
        tls.context = *net::TlsContext::client({});
    }
    void begin() {
        ASSERT_TRUE(opening.begin(connection, tls, "db.example"));
        char request[16];
        ASSERT_EQ(::recv(server.get(), request, sizeof request, 0), 8);
    }
    TlsOpening::Step answer(std::string_view bytes) {
        EXPECT_EQ(::send(server.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
        return opening.readable(connection);
    }
    void on_readable() override {}
    void on_writable() override {}

    net::Loop loop;
    NodeTls tls;
    Connection connection;
    UniqueFd server;
    TlsOpening opening;
};

TEST_F(TlsOpeningTest, NoIsAnAnswerOnlyWhereItMayBe) {
    tls.mode = SslMode::Prefer;
    begin();
    EXPECT_EQ(opening.readable(connection), TlsOpening::Step::Wait);
    EXPECT_EQ(answer("N"), TlsOpening::Step::Refused);
}

TEST_F(TlsOpeningTest, NoIsAnErrorWhereTlsIsAMust) {
    begin();
    EXPECT_EQ(answer("N"), TlsOpening::Step::Failed);
    EXPECT_EQ(opening.error().sqlstate, sqlstate::unable_to_connect);
    EXPECT_FALSE(opening.connection_lost());
}

TEST_F(TlsOpeningTest, AMustOfTheChannelIsAMustOfTls) {
    tls.mode = SslMode::Prefer;
    tls.must_bind_channel = true;
    begin();
    EXPECT_EQ(answer("N"), TlsOpening::Step::Failed);
}

TEST_F(TlsOpeningTest, PlainBytesBehindTheAnswerAreRefused) {
    begin();
    EXPECT_EQ(answer("S\x16\x03"), TlsOpening::Step::Failed);
    EXPECT_EQ(opening.error().sqlstate, sqlstate::protocol_violation);
}

TEST_F(TlsOpeningTest, OtherAnswersAreNoAnswers) {
    begin();
    EXPECT_EQ(answer("X"), TlsOpening::Step::Failed);
    EXPECT_EQ(opening.error().sqlstate, sqlstate::protocol_violation);
}

TEST_F(TlsOpeningTest, AServerThatCouldNotEvenForkIsLost) {
    begin();
    EXPECT_EQ(answer("Ecould not fork\n"), TlsOpening::Step::Failed);
    EXPECT_TRUE(opening.connection_lost());
}

TEST_F(TlsOpeningTest, TheEndIsALoss) {
    begin();
    server.reset();
    EXPECT_EQ(opening.readable(connection), TlsOpening::Step::Failed);
    EXPECT_TRUE(opening.connection_lost());
}

TEST_F(TlsOpeningTest, WithoutAContextTheReasonIsTold) {
    tls.context = nullptr;
    tls.error = Error{sqlstate::config_file_error, "no root certificate"};
    begin();
    EXPECT_EQ(answer("S"), TlsOpening::Step::Failed);
    EXPECT_EQ(opening.error(), tls.error);
}

TEST_F(TlsOpeningTest, GarbageInPlaceOfAHandshakeFails) {
    begin();
    EXPECT_EQ(answer("S"), TlsOpening::Step::Wait);
    EXPECT_EQ(answer("HTTP/1.1 400 Bad Request\r\n"), TlsOpening::Step::Failed);
    EXPECT_FALSE(opening.connection_lost());
}

/// The other end in TLS, too.
class Peer final : private net::StreamEvents {
  public:
    Peer(net::Loop& loop, UniqueFd fd, std::shared_ptr<const net::TlsContext> context) {
        auto adopted = net::Stream::adopt(loop, std::move(fd), *this);
        stream_ = std::move(adopted).value();
        EXPECT_TRUE(stream_.start_tls(std::move(context)).ok());
    }
    void read() {
        char buffer[256];
        (void)stream_.read(buffer);
    }

  private:
    void on_readable() override {}
    void on_writable() override {}
    net::Stream stream_;
};

TEST_F(TlsOpeningTest, TheNameIsLookedAtInModeVerifyFull) {
    fakes::Certificates certificates;
    const auto files = certificates.issue("node", "other", "DNS:other.example");
    net::TlsServerSettings settings;
    settings.cert_file = files.cert;
    settings.key_file = files.key;
    net::TlsClientSettings client;
    client.root_cert = certificates.authority();
    tls.context = *net::TlsContext::client(client);
    for (const auto mode : {SslMode::VerifyFull, SslMode::VerifyCa}) {
        TearDown();
        SetUp();
        tls.context = *net::TlsContext::client(client);
        tls.mode = mode;
        opening = TlsOpening{};
        begin();
        EXPECT_EQ(answer("S"), TlsOpening::Step::Wait);
        Peer peer(loop, std::move(server), *net::TlsContext::server(settings));
        auto step = TlsOpening::Step::Wait;
        for (int i = 0; i < 20 && step == TlsOpening::Step::Wait; ++i) {
            peer.read();
            step = opening.readable(connection);
        }
        EXPECT_EQ(step, mode == SslMode::VerifyFull ? TlsOpening::Step::Failed : TlsOpening::Step::Secured);
    }
}

}  // namespace
}  // namespace pgxc::pooler
