#include "pooler/connection.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <memory>
#include <string>

#include "fakes/certificates.h"
#include "fakes/run_until.h"
#include "net/loop.h"

namespace pgxc::pooler {
namespace {

using fakes::run_until;

/// One side of a socket pair, which reads while it is told to.
class Side final : public net::StreamEvents {
  public:
    Side(net::Loop& loop, int fd) {
        auto made = net::Stream::adopt(loop, UniqueFd{fd}, *this);
        EXPECT_TRUE(made.ok());
        connection = Connection{std::move(*made)};
    }
    void on_readable() override {
        char buffer[16384];
        const auto result = connection.stream().read(buffer);
        if (result.outcome == net::IoResult::Outcome::Done) received += result.bytes;
    }
    void on_writable() override {
        ++writable;
        EXPECT_TRUE(connection.flush());
    }

    Connection connection;
    std::size_t received = 0;
    int writable = 0;
};

TEST(Connection, WhatIsEncryptedAndNotSentIsBacklog) {
    fakes::Certificates certificates;
    const auto issued = certificates.issue("server", "db.example");
    net::TlsServerSettings settings;
    settings.cert_file = issued.cert;
    settings.key_file = issued.key;
    net::Loop loop;
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    Side server{loop, fds[0]};
    Side client{loop, fds[1]};
    ASSERT_TRUE(server.connection.stream().start_tls(*net::TlsContext::server(settings)).ok());
    ASSERT_TRUE(client.connection.stream().start_tls(*net::TlsContext::client({})).ok());
    server.connection.stream().want_readable(true);
    client.connection.stream().want_readable(true);
    ASSERT_TRUE(run_until(
        loop, [&] { return server.connection.stream().secured() && client.connection.stream().secured(); }));

    const int small = 4096;
    ASSERT_EQ(::setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    client.connection.stream().want_readable(false);
    // Less than is encrypted before the socket is asked: nothing of it stays in out().
    const std::string answer(40'000, 'x');
    ASSERT_TRUE(server.connection.flush(answer));
    EXPECT_GT(server.connection.backlog(), 0U);
    EXPECT_TRUE(server.connection.congested());
    // A flush without anything new doesn't take it for sent.
    ASSERT_TRUE(server.connection.flush());
    EXPECT_GT(server.connection.backlog(), 0U);
    EXPECT_EQ(server.writable, 0);

    client.connection.stream().want_readable(true);
    EXPECT_TRUE(run_until(loop, [&] { return client.received == answer.size() && server.writable > 0; }));
    EXPECT_EQ(server.connection.backlog(), 0U);
    EXPECT_FALSE(server.connection.congested());
}

}  // namespace
}  // namespace pgxc::pooler
