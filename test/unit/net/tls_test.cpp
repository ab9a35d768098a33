// TLS streams on a socket pair, against OpenSSL's own functions on the other side and against themselves.
#include "net/tls.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include "fakes/certificates.h"
#include "fakes/run_until.h"
#include "net/stream.h"

namespace pgxc::net {
namespace {

using fakes::run_until;

/// A stream that reads all it can and writes what it is given, as the pooler's connections do.
class End final : public StreamEvents {
  public:
    End(Loop& loop, int fd) {
        auto made = Stream::adopt(loop, UniqueFd{fd}, *this);
        EXPECT_TRUE(made.ok());
        stream = std::move(*made);
    }
    void on_readable() override {
        ++readable;
        char buffer[4096];
        const IoResult result = stream.read({buffer, read_size});
        last = result;
        if (result.outcome == IoResult::Outcome::Done) received.append(buffer, result.bytes);
        if (result.outcome == IoResult::Outcome::Ended || result.outcome == IoResult::Outcome::Failed)
            stream.want_readable(false);
    }
    void on_writable() override { send(); }
    void send(std::string_view more = {}) {
        backlog += more;
        const IoResult result = stream.write(backlog);
        if (result.outcome == IoResult::Outcome::Done) backlog.erase(0, result.bytes);
        if (!backlog.empty()) stream.want_writable();
    }
    [[nodiscard]] bool over() const {
        return last.outcome == IoResult::Outcome::Ended || last.outcome == IoResult::Outcome::Failed;
    }

    Stream stream;
    std::string received;
    std::string backlog;
    IoResult last;
    int readable = 0;
    std::size_t read_size = 4096;
};

class TlsTest : public ::testing::Test {
  protected:
    void SetUp() override {
        int fds[2];
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
        server = std::make_unique<End>(loop, fds[0]);
        other = fds[1];
    }
    std::shared_ptr<const TlsContext> server_context(bool verify = false) {
        TlsServerSettings settings;
        settings.cert_file = issued.cert;
        settings.key_file = issued.key;
        if (verify) settings.ca_file = certificates.authority();
        auto made = TlsContext::server(settings);
        EXPECT_TRUE(made.ok()) << made.error().message;
        return *made;
    }
    std::shared_ptr<const TlsContext> client_context(bool verify = true, const std::string& name = {}) {
        TlsClientSettings settings;
        if (verify) settings.root_cert = certificates.authority();
        if (!name.empty()) {
            const auto files = certificates.issue("client", name);
            settings.cert = files.cert;
            settings.key = files.key;
        }
        auto made = TlsContext::client(settings);
        EXPECT_TRUE(made.ok()) << made.error().message;
        return *made;
    }
    void begin(std::shared_ptr<const TlsContext> at_server, std::shared_ptr<const TlsContext> at_client) {
        client = std::make_unique<End>(loop, std::exchange(other, -1));
        ASSERT_TRUE(server->stream.start_tls(std::move(at_server)).ok());
        ASSERT_TRUE(client->stream.start_tls(std::move(at_client), "db.example").ok());
        server->stream.want_readable(true);
        client->stream.want_readable(true);
    }
    bool both_secured() {
        return run_until(loop,
                         [&] {
                             return (server->stream.secured() && client->stream.secured()) ||
                                    server->over() || client->over();
                         }) &&
               server->stream.secured() && client->stream.secured();
    }
    void TearDown() override {
        if (other >= 0) ::close(other);
    }

    fakes::Certificates certificates;
    fakes::Certificates::Files issued =
        certificates.issue("server", "db.example", "DNS:db.example, DNS:*.wild.example, IP:127.0.0.1");
    Loop loop;
    std::unique_ptr<End> server;
    std::unique_ptr<End> client;
    int other = -1;
};

/// OpenSSL's blocking client at the other end, in a thread of its own.
class BlockingClient {
  public:
    BlockingClient(int fd, const std::function<void(SSL*)>& talk) : fd_(fd) {
        ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
        thread_ = std::thread{[this, talk] {
            SSL_CTX* context = SSL_CTX_new(TLS_client_method());
            SSL* ssl = SSL_new(context);
            SSL_set_fd(ssl, fd_);
            if (SSL_connect(ssl) == 1) talk(ssl);
            SSL_free(ssl);
            SSL_CTX_free(context);
            ::close(fd_);
        }};
    }
    ~BlockingClient() { thread_.join(); }
    BlockingClient(const BlockingClient&) = delete;
    BlockingClient& operator=(const BlockingClient&) = delete;

  private:
    int fd_;
    std::thread thread_;
};

TEST_F(TlsTest, TalksWithOpensslItself) {
    ASSERT_TRUE(server->stream.start_tls(server_context()).ok());
    server->stream.want_readable(true);
    std::string answer;
    {
        const BlockingClient peer(std::exchange(other, -1), [&](SSL* ssl) {
            SSL_write(ssl, "hello", 5);
            char buffer[16];
            const int got = SSL_read(ssl, buffer, sizeof buffer);
            if (got > 0) answer.assign(buffer, static_cast<std::size_t>(got));
            SSL_shutdown(ssl);
        });
        EXPECT_TRUE(run_until(loop, [&] { return server->received == "hello"; }));
        EXPECT_TRUE(server->stream.secured());
        server->send("world");
        EXPECT_TRUE(run_until(loop, [&] { return server->over(); }));
    }
    EXPECT_EQ(answer, "world");
    EXPECT_EQ(server->last.outcome, IoResult::Outcome::Ended);
    EXPECT_EQ(server->stream.tls()->info().protocol, "TLSv1.3");
}

TEST_F(TlsTest, RefusesRenegotiation) {
    ASSERT_TRUE(server->stream.start_tls(server_context()).ok());
    server->stream.want_readable(true);
    const BlockingClient peer(std::exchange(other, -1), [](SSL* ssl) {
        SSL_renegotiate(ssl);
        SSL_do_handshake(ssl);
    });
    EXPECT_TRUE(run_until(loop, [&] { return server->over(); }));
}

TEST_F(TlsTest, ASlowReaderHoldsTheWriterBack) {
    begin(server_context(), client_context());
    ASSERT_TRUE(both_secured());
    std::string much;
    for (int i = 0; much.size() < 8'000'000; ++i) much += std::to_string(i) + ",";
    client->stream.want_readable(false);
    server->send(much);
    (void)loop.run_for(Millis{50});
    // All but what the socket and one round of encryption hold is still the owner's.
    EXPECT_GT(server->backlog.size(), much.size() / 2);
    client->stream.want_readable(true);
    EXPECT_TRUE(run_until(loop, [&] { return client->received.size() >= much.size(); }));
    EXPECT_TRUE(client->received == much);
    // And the other way.
    client->send("thanks");
    EXPECT_TRUE(run_until(loop, [&] { return server->received == "thanks"; }));
}

TEST_F(TlsTest, WhatIsDecryptedAlreadyIsToldWithoutTheSocket) {
    begin(server_context(), client_context());
    ASSERT_TRUE(both_secured());
    server->read_size = 3;
    client->send("0123456789");
    EXPECT_TRUE(run_until(loop, [&] { return server->received == "0123456789"; }));
    // Not wanted, not told; wanted again, told at once.
    server->received.clear();
    server->stream.want_readable(false);
    client->send("abcdefgh");
    (void)loop.run_for(Millis{20});
    EXPECT_EQ(server->received, "");
    server->stream.want_readable(true);
    EXPECT_TRUE(run_until(loop, [&] { return server->received == "abcdefgh"; }));
    // Nothing is left: no callback without an event.
    const int before = server->readable;
    (void)loop.run_for(Millis{20});
    EXPECT_EQ(server->readable, before);
}

TEST_F(TlsTest, SmallPartsShareARecord) {
    begin(server_context(), client_context());
    ASSERT_TRUE(both_secured());
    std::string a = "first ";
    std::string b = "second";
    const std::array<iovec, 2> parts{iovec{a.data(), a.size()}, iovec{b.data(), b.size()}};
    const IoResult result = server->stream.write(parts);
    EXPECT_EQ(result.bytes, 12U);
    EXPECT_TRUE(run_until(loop, [&] { return client->received == "first second"; }));
    EXPECT_EQ(client->last.bytes, 12U);
}

TEST_F(TlsTest, GarbageInPlaceOfAHandshakeFails) {
    ASSERT_TRUE(server->stream.start_tls(server_context()).ok());
    server->stream.want_readable(true);
    ASSERT_GT(::send(other, "GET / HTTP/1.1\r\n\r\n", 18, 0), 0);
    EXPECT_TRUE(run_until(loop, [&] { return server->over(); }));
    EXPECT_EQ(server->last.outcome, IoResult::Outcome::Failed);
    EXPECT_EQ(server->last.error, EPROTO);
    EXPECT_FALSE(server->stream.tls()->error().empty());
    EXPECT_FALSE(server->stream.secured());
    EXPECT_EQ(server->stream.write("x").outcome, IoResult::Outcome::WouldBlock);
}

TEST_F(TlsTest, HalfAHandshakeWaitsAndAClosedOneEnds) {
    ASSERT_TRUE(server->stream.start_tls(server_context()).ok());
    server->stream.want_readable(true);
    ASSERT_EQ(::send(other, "\x16\x03\x01\x02", 4, 0), 4);
    (void)loop.run_for(Millis{20});
    EXPECT_FALSE(server->over());
    ::close(std::exchange(other, -1));
    EXPECT_TRUE(run_until(loop, [&] { return server->over(); }));
    EXPECT_EQ(server->last.outcome, IoResult::Outcome::Ended);
}

TEST_F(TlsTest, BothSidesKnowTheSameEndPoint) {
    begin(server_context(), client_context());
    ASSERT_TRUE(both_secured());
    const std::string here = server->stream.tls()->info().server_end_point;
    EXPECT_EQ(here.size(), 32U);
    EXPECT_EQ(here, client->stream.tls()->info().server_end_point);
    EXPECT_EQ(client->stream.tls()->info().common_name, "db.example");
    EXPECT_FALSE(server->stream.tls()->info().peer_certificate);
}

TEST_F(TlsTest, TheEndPointIsHashedAsTheCertificateWasSigned) {
    issued = certificates.issue("server384", "db.example", {}, EVP_sha384());
    begin(server_context(), client_context());
    ASSERT_TRUE(both_secured());
    EXPECT_EQ(server->stream.tls()->info().server_end_point.size(), 48U);
}

TEST_F(TlsTest, AClientsCertificateIsVerified) {
    begin(server_context(true), client_context(true, "alice"));
    ASSERT_TRUE(both_secured());
    const TlsInfo info = server->stream.tls()->info();
    EXPECT_TRUE(info.peer_certificate);
    EXPECT_EQ(info.common_name, "alice");
    EXPECT_EQ(info.distinguished_name, "CN=alice");
}

TEST_F(TlsTest, AClientsCertificateOfAnotherAuthorityEndsIt) {
    fakes::Certificates others;
    const auto files = others.issue("mallory", "alice");
    TlsClientSettings settings;
    settings.cert = files.cert;
    settings.key = files.key;
    begin(server_context(true), *TlsContext::client(settings));
    EXPECT_TRUE(run_until(loop, [&] { return server->over(); }));
    EXPECT_EQ(server->last.outcome, IoResult::Outcome::Failed);
    EXPECT_NE(server->stream.tls()->error().find("certificate"), std::string::npos)
        << server->stream.tls()->error();
}

TEST_F(TlsTest, AServerOfAnotherAuthorityIsRefused) {
    fakes::Certificates others;
    TlsClientSettings settings;
    settings.root_cert = others.authority();
    begin(server_context(), *TlsContext::client(settings));
    EXPECT_TRUE(run_until(loop, [&] { return client->over(); }));
    EXPECT_EQ(client->last.outcome, IoResult::Outcome::Failed);
    EXPECT_FALSE(client->stream.secured());
}

/// OpenSSL's own variable says what this system trusts.
class SystemRoots {
  public:
    explicit SystemRoots(const std::string& file) { ::setenv("SSL_CERT_FILE", file.c_str(), 1); }
    SystemRoots(const SystemRoots&) = delete;
    SystemRoots& operator=(const SystemRoots&) = delete;
    ~SystemRoots() { ::unsetenv("SSL_CERT_FILE"); }
};

TEST_F(TlsTest, AServerMayBeVerifiedByWhatTheSystemTrusts) {
    const SystemRoots trusted{certificates.authority()};
    TlsClientSettings settings;
    settings.system_roots = true;
    const auto context = *TlsContext::client(settings);
    EXPECT_TRUE(context->verifies_peer());
    begin(server_context(), context);
    EXPECT_TRUE(both_secured());
}

TEST_F(TlsTest, AServerThatTheSystemDoesNotTrustIsRefused) {
    fakes::Certificates others;
    const SystemRoots trusted{others.authority()};
    TlsClientSettings settings;
    settings.system_roots = true;
    begin(server_context(), *TlsContext::client(settings));
    EXPECT_TRUE(run_until(loop, [&] { return client->over(); }));
    EXPECT_EQ(client->last.outcome, IoResult::Outcome::Failed);
    EXPECT_FALSE(client->stream.secured());
}

TEST_F(TlsTest, TheHostMustBeInTheCertificate) {
    begin(server_context(), client_context());
    ASSERT_TRUE(both_secured());
    const TlsSession& tls = *client->stream.tls();
    EXPECT_TRUE(tls.check_host("db.example").ok());
    EXPECT_TRUE(tls.check_host("DB.example").ok());
    EXPECT_TRUE(tls.check_host("a.wild.example").ok());
    EXPECT_TRUE(tls.check_host("127.0.0.1").ok());
    EXPECT_FALSE(tls.check_host("127.0.0.2").ok());
    EXPECT_FALSE(tls.check_host("a.b.wild.example").ok());
    EXPECT_FALSE(tls.check_host("other.example").ok());
}

TEST_F(TlsTest, TheGoodbyeArrives) {
    begin(server_context(), client_context());
    ASSERT_TRUE(both_secured());
    server->send("last words");
    server->stream.close();
    EXPECT_TRUE(run_until(loop, [&] { return client->over(); }));
    EXPECT_EQ(client->received, "last words");
    EXPECT_EQ(client->last.outcome, IoResult::Outcome::Ended);
}

TEST_F(TlsTest, BadFilesAreToldByName) {
    TlsServerSettings settings;
    settings.cert_file = certificates.path("none.crt");
    settings.key_file = issued.key;
    auto made = TlsContext::server(settings);
    ASSERT_FALSE(made.ok());
    EXPECT_NE(made.error().message.find("none.crt"), std::string::npos);
    EXPECT_EQ(made.error().sqlstate, sqlstate::config_file_error);

    settings.cert_file = issued.cert;
    ::chmod(issued.key.c_str(), 0644);
    made = TlsContext::server(settings);
    ASSERT_FALSE(made.ok());
    EXPECT_NE(made.error().message.find("group or world access"), std::string::npos);
    ::chmod(issued.key.c_str(), 0600);

    settings.key_file = certificates.issue("stranger", "x").key;
    EXPECT_FALSE(TlsContext::server(settings).ok());
    settings.key_file = issued.key;
    std::ofstream{issued.cert} << "no certificate";
    EXPECT_FALSE(TlsContext::server(settings).ok());
}

TEST_F(TlsTest, ProtocolsAndCurvesAreSet) {
    TlsServerSettings settings;
    settings.cert_file = issued.cert;
    settings.key_file = issued.key;
    settings.max_protocol = "TLSv1.2";
    settings.groups = "prime256v1";
    settings.ciphers = "HIGH:MEDIUM:+3DES:!aNULL";
    begin(*TlsContext::server(settings), client_context());
    ASSERT_TRUE(both_secured());
    EXPECT_EQ(client->stream.tls()->info().protocol, "TLSv1.2");
    settings.min_protocol = "TLSv1.3";
    EXPECT_FALSE(TlsContext::server(settings).ok());
    settings.min_protocol = "";
    settings.groups = "no such curve";
    EXPECT_FALSE(TlsContext::server(settings).ok());
    settings.groups = "";
    settings.ciphers = "NOTHING";
    EXPECT_FALSE(TlsContext::server(settings).ok());
}

}  // namespace
}  // namespace pgxc::net
