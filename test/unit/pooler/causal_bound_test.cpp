#include "pooler/causal_bound.h"

#include <gtest/gtest.h>

#include "fakes/fake_environment.h"

namespace pgxc::pooler {
namespace {

using State = CausalBound::State;

WallTime at(int second) {
    return WallTime{std::chrono::seconds{1000 + second}};
}

class CausalPositionTest : public ::testing::Test {
  protected:
    /// The master's answer came at `seen`; the view is looked at at `now`.
    void show(int seen, std::uint64_t lsn, int now, int epoch = 1) {
        NodeView master = FakeEnvironment::master(1, "127.0.0.1", 1, epoch, Gate::Open);
        master.last_seen = at(seen);
        master.position = Lsn{lsn};
        position.observe(&master, at(now));
    }
    /// Nothing has been committed and the position is 100 by the answer of second 3.
    void make_known() {
        show(0, 100, 1);
        show(2, 100, 2);
        show(3, 100, 3);
        ASSERT_EQ(position.bound().state, State::Known);
    }
    CausalPosition position;
};

TEST_F(CausalPositionTest, IsUnknownUntilTheSecondAnswerAfterTheStart) {
    EXPECT_EQ(position.bound().state, State::Unknown);
    show(0, 100, 1);
    EXPECT_EQ(position.bound().state, State::Unknown);
    show(2, 110, 2);
    EXPECT_EQ(position.bound().state, State::Unknown);
    show(2, 110, 3);  // the same answer again
    EXPECT_EQ(position.bound().state, State::Unknown);
    show(3, 120, 3);
    EXPECT_EQ(position.bound().state, State::Known);
    EXPECT_EQ(position.bound().position, Lsn{120});
    EXPECT_EQ(position.bound().epoch, Epoch{1});
}

TEST_F(CausalPositionTest, AKnownPositionStaysUntilTheNextCommit) {
    make_known();
    show(4, 500, 4);
    EXPECT_EQ(position.bound().position, Lsn{100});
    position.commit_begins();
    EXPECT_EQ(position.bound().state, State::Unknown);
    position.commit_ends();
    EXPECT_EQ(position.bound().state, State::Unknown);
    show(6, 600, 7);
    show(8, 610, 8);
    EXPECT_EQ(position.bound().state, State::Unknown);
    show(9, 620, 9);
    EXPECT_EQ(position.bound().position, Lsn{620});
}

TEST_F(CausalPositionTest, AnswersThatWereThereBeforeTheCommitWasSeenDoNotCount) {
    make_known();
    position.commit_begins();
    position.commit_ends();
    show(3, 100, 10);
    // Views that were published late.
    show(8, 100, 10);
    show(9, 100, 10);
    show(10, 100, 10);
    EXPECT_EQ(position.bound().state, State::Unknown);
    show(11, 200, 11);
    EXPECT_EQ(position.bound().state, State::Unknown);
    show(12, 200, 12);
    EXPECT_EQ(position.bound().state, State::Known);
}

TEST_F(CausalPositionTest, StaysUnknownWhileAnyCommitRuns) {
    make_known();
    position.commit_begins();
    position.commit_begins();
    position.commit_ends();
    for (int second = 5; second < 20; ++second) show(second, 100, second);
    EXPECT_EQ(position.bound().state, State::Unknown);
    position.commit_ends();
    show(20, 100, 20);
    show(21, 100, 21);
    show(22, 130, 22);
    EXPECT_EQ(position.bound().position, Lsn{130});
}

TEST_F(CausalPositionTest, AnotherEpochOrASilentMasterBeginsAnew) {
    make_known();
    show(4, 50, 4, 2);
    EXPECT_EQ(position.bound().state, State::Unknown);
    show(5, 50, 5, 2);
    show(6, 60, 6, 2);
    EXPECT_EQ(position.bound().epoch, Epoch{2});
    EXPECT_EQ(position.bound().position, Lsn{60});
    position.observe(nullptr, at(7));
    EXPECT_EQ(position.bound().state, State::Unknown);
}

TEST_F(CausalPositionTest, AMasterThatDoesNotAnswerProperlyGivesNoPosition) {
    NodeView master = FakeEnvironment::master(1, "127.0.0.1", 1, 1, Gate::Open);
    master.position = Lsn{100};
    master.state = NodeState::Starting;
    for (int second = 1; second < 10; ++second) {
        master.last_seen = at(second);
        position.observe(&master, at(second));
    }
    EXPECT_EQ(position.bound().state, State::Unknown);
    master.state = NodeState::Up;
    master.position = Lsn{};
    for (int second = 10; second < 20; ++second) {
        master.last_seen = at(second);
        position.observe(&master, at(second));
    }
    EXPECT_EQ(position.bound().state, State::Unknown);
}

}  // namespace
}  // namespace pgxc::pooler
