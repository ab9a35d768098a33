// Streams, listeners and addresses, on loopback and in a directory of their own.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "fakes/bystander.h"
#include "fakes/run_until.h"
#include "net/listener.h"
#include "net/poller.h"
#include "net/stream.h"

namespace pgxc::net {
namespace {

using fakes::run_until;

class Recorder final : public StreamEvents {
  public:
    void on_readable() override {
        ++readable;
        if (when_readable) when_readable();
    }
    void on_writable() override { ++writable; }
    int readable = 0;
    int writable = 0;
    std::function<void()> when_readable;
};

struct Pair {
    Pair() {
        int fds[2];
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
        ours.reset(fds[0]);
        theirs.reset(fds[1]);
    }
    UniqueFd ours;
    UniqueFd theirs;
};

TEST(Stream, TellsOnlyWhatIsWanted) {
    Loop loop;
    Pair pair;
    Recorder events;
    auto stream = Stream::adopt(loop, std::move(pair.ours), events);
    ASSERT_TRUE(stream.ok());
    ASSERT_EQ(::write(pair.theirs.get(), "abc", 3), 3);
    (void)loop.run_for(Millis{5});
    EXPECT_EQ(events.readable, 0);
    stream->want_readable(true);
    EXPECT_TRUE(run_until(loop, [&] { return events.readable >= 2; }));  // level-triggered: nobody has read
    stream->want_readable(false);
    (void)loop.run_for(Millis{5});
    const int before = events.readable;
    (void)loop.run_for(Millis{5});
    EXPECT_EQ(events.readable, before);
    char buffer[16];
    const auto result = stream->read(buffer);
    EXPECT_EQ(result.outcome, IoResult::Outcome::Done);
    EXPECT_EQ(result.bytes, 3U);
    EXPECT_EQ(stream->read(buffer).outcome, IoResult::Outcome::WouldBlock);
    pair.theirs.reset();
    EXPECT_EQ(stream->read(buffer).outcome, IoResult::Outcome::Ended);
    const auto failed = stream->write(std::string_view{"x"});
    EXPECT_EQ(failed.outcome, IoResult::Outcome::Failed);
    EXPECT_EQ(failed.error, EPIPE);
}

TEST(Stream, CanBeDestroyedInItsOwnCallback) {
    Loop loop;
    Pair pair;
    Recorder events;
    auto made = Stream::adopt(loop, std::move(pair.ours), events);
    auto stream = std::make_unique<Stream>(std::move(*made));
    events.when_readable = [&] { stream.reset(); };
    stream->want_readable(true);
    stream->want_writable();
    ASSERT_EQ(::write(pair.theirs.get(), "abc", 3), 3);
    EXPECT_TRUE(run_until(loop, [&] { return events.readable == 1; }));
    (void)loop.run_for(Millis{5});
    EXPECT_EQ(events.readable, 1);
}

TEST(Stream, TellsThatItCanBeWrittenOnceForEachTimeOfAsking) {
    Loop loop;
    Pair pair;
    Recorder events;
    auto stream = Stream::adopt(loop, std::move(pair.ours), events);
    stream->want_readable(true);
    stream->want_writable();
    EXPECT_TRUE(run_until(loop, [&] { return events.writable == 1; }));
    (void)loop.run_for(Millis{5});
    EXPECT_EQ(events.writable, 1);
    stream->want_writable();
    EXPECT_TRUE(run_until(loop, [&] { return events.writable == 2; }));
    EXPECT_EQ(events.readable, 0);
}

TEST(Stream, DoesNotSpinOnAnEndThatNobodyWantsToKnowOf) {
    Loop loop;
    Pair pair;
    Recorder events;
    auto stream = Stream::adopt(loop, std::move(pair.ours), events);
    pair.theirs.reset();
    (void)loop.run_for(Millis{5});
    // The set has nothing more to tell, so the loop sleeps.
    pollfd set{loop.poller().fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&set, 1, 0), 0);
    EXPECT_EQ(events.readable, 0);
    stream->want_readable(true);
    EXPECT_TRUE(run_until(loop, [&] { return events.readable >= 1; }));
    char buffer[16];
    EXPECT_EQ(stream->read(buffer).outcome, IoResult::Outcome::Ended);
}

TEST(Stream, ThatGoesInTheSameTurnIsNotTold) {
    Loop loop;
    Pair first_pair;
    Pair second_pair;
    Recorder first_events;
    Recorder second_events;
    auto first = Stream::adopt(loop, std::move(first_pair.ours), first_events);
    auto second = Stream::adopt(loop, std::move(second_pair.ours), second_events);
    // Whichever is told first ends the other, whose event has been seen by then.
    first_events.when_readable = [&] { second->close(); };
    second_events.when_readable = [&] { first->close(); };
    ASSERT_EQ(::write(first_pair.theirs.get(), "abc", 3), 3);
    ASSERT_EQ(::write(second_pair.theirs.get(), "abc", 3), 3);
    first->want_readable(true);
    second->want_readable(true);
    EXPECT_TRUE(run_until(loop, [&] { return first_events.readable + second_events.readable > 0; }));
    EXPECT_NE(first_events.readable > 0, second_events.readable > 0);
}

TEST(Address, ReadsLiterals) {
    const auto v4 = SocketAddress::from_literal("127.0.0.1", 5432);
    ASSERT_TRUE(v4.has_value());
    EXPECT_EQ(v4->ip_bytes(), (std::vector<std::uint8_t>{127, 0, 0, 1}));
    EXPECT_EQ(v4->port(), 5432);
    const auto v6 = SocketAddress::from_literal("::1", 1);
    ASSERT_TRUE(v6.has_value());
    EXPECT_EQ(v6->ip_bytes().size(), 16U);
    EXPECT_FALSE(SocketAddress::from_literal("localhost", 1).has_value());
    EXPECT_FALSE(SocketAddress::unix_socket(std::string(200, 'x')).has_value());
}

class UnixSocketTest : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string name = (std::filesystem::temp_directory_path() / "pgxc_net_XXXXXX").string();
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        directory = name;
        path = directory + "/.s.PGSQL.5999";
    }
    void TearDown() override { std::filesystem::remove_all(directory); }
    Result<std::unique_ptr<Listener>> listen(unsigned permissions = 0777) {
        return Listener::unix_socket(loop, directory, 5999, "", permissions,
                                     [this](Accepted accepted) { taken.push_back(std::move(accepted)); });
    }
    Loop loop;
    std::string directory;
    std::string path;
    std::vector<Accepted> taken;
};

TEST_F(UnixSocketTest, ListensWithPermissionsAndCleansUp) {
    {
        auto listener = listen(0700);
        ASSERT_TRUE(listener.ok()) << listener.error().message;
        struct stat info {};
        ASSERT_EQ(::stat(path.c_str(), &info), 0);
        EXPECT_EQ(info.st_mode & 0777U, 0700U);
        auto client = start_connect(*SocketAddress::unix_socket(path));
        EXPECT_EQ(client.error, 0);
        EXPECT_TRUE(run_until(loop, [&] { return taken.size() == 1; }));
        EXPECT_TRUE(taken[0].peer.ip_bytes().empty());
    }
    EXPECT_FALSE(std::filesystem::exists(path));
    EXPECT_FALSE(std::filesystem::exists(path + ".lock"));
}

TEST_F(UnixSocketTest, TakesOverWhatADeadProcessLeft) {
    const pid_t dead = ::fork();
    if (dead == 0) ::_exit(0);
    ASSERT_EQ(::waitpid(dead, nullptr, 0), dead);
    std::ofstream{path + ".lock"} << dead << "\n";
    std::ofstream{path} << "";
    EXPECT_TRUE(listen().ok());
}

TEST_F(UnixSocketTest, RefusesASocketThatALivingProcessHolds) {
    const fakes::Bystander alive;
    ASSERT_GT(alive.pid(), 0);
    std::ofstream{path + ".lock"} << alive.pid() << "\n";
    auto listener = listen();
    ASSERT_FALSE(listener.ok());
    EXPECT_NE(listener.error().hint.find(std::to_string(alive.pid())), std::string::npos);
}

TEST(TcpListener, SaysWhenThePortIsTaken) {
    Loop loop;
    auto first = Listener::tcp(loop, *SocketAddress::from_literal("127.0.0.1", 0), false, [](Accepted) {});
    ASSERT_TRUE(first.ok());
    const auto port = static_cast<std::uint16_t>((*first)->port());
    auto second =
        Listener::tcp(loop, *SocketAddress::from_literal("127.0.0.1", port), false, [](Accepted) {});
    ASSERT_FALSE(second.ok());
    EXPECT_NE(second.error().message.find(std::to_string(port)), std::string::npos);
    EXPECT_FALSE(second.error().hint.empty());
}

TEST(TcpListener, SeveralMayShareAPort) {
    Loop loop;
    auto first = Listener::tcp(loop, *SocketAddress::from_literal("127.0.0.1", 0), true, [](Accepted) {});
    ASSERT_TRUE(first.ok());
    const auto port = static_cast<std::uint16_t>((*first)->port());
    EXPECT_TRUE(
        Listener::tcp(loop, *SocketAddress::from_literal("127.0.0.1", port), true, [](Accepted) {}).ok());
}

}  // namespace
}  // namespace pgxc::net
