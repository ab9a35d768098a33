#include "pooler/causal_bound.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

namespace pgxc::pooler {
namespace {

using State = CausalBound::State;
constexpr Epoch first{0};

class CausalPositionTest : public ::testing::Test {
  protected:
    CausalPositionTest() {
        one.attach(*record, 0, 2);
        two.attach(*record, 1, 2);
    }
    void resolve(std::uint64_t flushed, std::uint64_t inserted = 0, Epoch epoch = first,
                 std::uint64_t xmax = 0) {
        one.answered(one.ask(epoch), {Lsn{flushed}, Lsn{inserted == 0 ? flushed : inserted}, xmax});
    }
    std::unique_ptr<CausalRecord> record = std::make_unique<CausalRecord>();
    CausalPosition one;
    CausalPosition two;
};

TEST_F(CausalPositionTest, IsUnknownUntilTheMasterWasAsked) {
    EXPECT_EQ(one.bound(first, 0).state, State::Unknown);
    resolve(100);
    EXPECT_EQ(two.bound(first, 0).state, State::Known);
    EXPECT_EQ(two.bound(first, 0).progress.position, Lsn{100});
    EXPECT_EQ(two.bound(first, 0).epoch, first);
}

TEST_F(CausalPositionTest, AnAnsweredCommitMakesItUnknownForAllWorkersUntilItIsCovered) {
    resolve(100);
    const auto ticket = one.commit_begins();
    one.commit_ends(ticket, false);
    EXPECT_EQ(one.bound(first, 0).state, State::Unknown);
    EXPECT_EQ(two.bound(first, 0).state, State::Unknown);
    resolve(150);
    EXPECT_EQ(two.bound(first, 0).progress.position, Lsn{150});
}

TEST_F(CausalPositionTest, AQuestionCoversOnlyWhatWasAnsweredBeforeItWasSent) {
    resolve(100);
    const auto question = one.ask(first);
    two.commit_ends(two.commit_begins(), false);
    one.answered(question, {Lsn{500}, Lsn{500}});
    EXPECT_EQ(one.bound(first, 0).state, State::Unknown);
    resolve(600);
    EXPECT_EQ(one.bound(first, 0).progress.position, Lsn{600});
}

TEST_F(CausalPositionTest, AnswersThatOvertakeEachOtherNeverLowerIt) {
    resolve(100);
    const auto early = one.ask(first);
    two.commit_ends(two.commit_begins(), false);
    const auto late = two.ask(first);
    two.answered(late, {Lsn{300}, Lsn{300}});
    one.answered(early, {Lsn{200}, Lsn{200}});
    EXPECT_EQ(one.bound(first, 0).progress.position, Lsn{300});
}

TEST_F(CausalPositionTest, ARunningCommitConcernsWhoMayHaveSeenIt) {
    resolve(100);
    const auto before = two.newest();
    const auto ticket = one.commit_begins();
    EXPECT_EQ(two.bound(first, before).state, State::Known);
    EXPECT_EQ(two.bound(first, two.newest()).state, State::Unknown);
    one.commit_ends(ticket, false);
    EXPECT_EQ(two.bound(first, before).state, State::Unknown);
    resolve(150);
    EXPECT_EQ(two.bound(first, two.newest()).state, State::Known);
}

TEST_F(CausalPositionTest, TheOldestRunningCommitCounts) {
    resolve(100);
    const auto a = one.commit_begins();
    const auto b = one.commit_begins();
    const auto c = two.commit_begins();
    one.commit_ends(a, false);
    resolve(110);
    EXPECT_EQ(two.bound(first, a).state, State::Known);
    EXPECT_EQ(two.bound(first, b).state, State::Unknown);
    one.commit_ends(b, false);
    resolve(120);
    EXPECT_EQ(two.bound(first, b).state, State::Known);
    EXPECT_EQ(one.bound(first, c).state, State::Unknown);
    two.commit_ends(c, false);
    resolve(130);
    EXPECT_EQ(one.bound(first, c).state, State::Known);
}

TEST_F(CausalPositionTest, ACommitIsRunningOrAnsweredAtEveryMoment) {
    std::atomic<bool> over{false};
    std::atomic<CausalPosition::Ticket> sent{0};  // to the master, who may show it from then on
    std::thread writer([&] {
        while (!over.load()) {
            sent = two.commit_begins();
            two.commit_ends(sent, false);
        }
    });
    // The position is the number of commits that it covers: the two of attach() and all of the writer's.
    int known = 0;
    for (int i = 0; i < 300'000; ++i) {
        const auto question = one.ask(first);
        one.answered(question, {Lsn{question.acked}, Lsn{question.acked}});
        const CausalPosition::Ticket seen = sent;
        const auto bound = one.bound(first, seen);
        if (bound.state != State::Known) continue;
        ++known;
        EXPECT_GE(bound.progress.position.bytes(), seen + 2) << i;
        if (HasFailure()) break;
    }
    over = true;
    writer.join();
    EXPECT_GT(known, 0);
}

TEST_F(CausalPositionTest, WhatMayNotHaveBeenFlushedIsCoveredByWhatWasInserted) {
    resolve(100, 900);
    EXPECT_EQ(one.bound(first, 0).progress.position, Lsn{100});
    one.commit_ends(one.commit_begins(), true);
    resolve(200, 901);
    EXPECT_EQ(one.bound(first, 0).progress.position, Lsn{901});
    one.commit_ends(one.commit_begins(), false);
    resolve(1000, 2000);
    EXPECT_EQ(one.bound(first, 0).progress.position, Lsn{1000});
}

TEST_F(CausalPositionTest, AnotherEpochBeginsAnewAndAnswersOfTheOldOneAreIgnored) {
    resolve(500);
    EXPECT_EQ(one.bound(Epoch{1}, 0).state, State::Unknown);
    const auto old = one.ask(first);
    resolve(50, 50, Epoch{1});
    EXPECT_EQ(one.bound(Epoch{1}, 0).progress.position, Lsn{50});
    one.answered(old, {Lsn{700}, Lsn{700}});
    EXPECT_EQ(one.bound(Epoch{1}, 0).progress.position, Lsn{50});
    EXPECT_EQ(one.bound(first, 0).state, State::Unknown);
}

class ReregisteredTest : public CausalPositionTest {
  protected:
    ReregisteredTest() {
        one.registered(old_one, Generation{3});
        two.registered(old_one, Generation{3});
    }
    static constexpr Registration old_one{7};
    static constexpr Registration new_one{3};
};

TEST_F(ReregisteredTest, ItsFirstEpochIsNewerThanTheLastOneBefore) {
    resolve(500, 500, Epoch{2}, 90);
    EXPECT_EQ(two.bound(Epoch{2}, 0).state, State::Known);
    one.registered(new_one, Generation{5});
    two.registered(new_one, Generation{5});
    resolve(50, 50, first, 60);
    EXPECT_EQ(two.bound(first, 0).state, State::Known);
    EXPECT_EQ(two.bound(first, 0).progress.position, Lsn{50});
    EXPECT_EQ(two.bound(first, 0).progress.xmax, 60U);
    EXPECT_EQ(two.bound(Epoch{2}, 0).state, State::Unknown);
}

TEST_F(ReregisteredTest, InTheSameEpochNothingIsKnownOfItUntilItWasAsked) {
    resolve(500);
    const auto under_way = one.ask(first);
    one.registered(new_one, Generation{5});
    EXPECT_EQ(one.bound(first, 0).state, State::Unknown);
    EXPECT_EQ(two.bound(first, 0).state, State::Unknown) << "its view is old, and so is what it reads";
    one.answered(under_way, {Lsn{900}, Lsn{900}});
    EXPECT_EQ(one.bound(first, 0).state, State::Unknown);
    resolve(50);
    EXPECT_EQ(one.bound(first, 0).progress.position, Lsn{50});
}

TEST_F(ReregisteredTest, AWorkerWithAnOldViewChangesNothingOfIt) {
    resolve(500);
    one.registered(new_one, Generation{5});
    resolve(50);
    two.answered(two.ask(first), {Lsn{900}, Lsn{900}});
    two.registered({}, Generation{4});
    two.registered(old_one, Generation{4});
    two.answered(two.ask(Epoch{1}), {Lsn{900}, Lsn{900}});
    EXPECT_EQ(one.bound(first, 0).progress.position, Lsn{50});
    two.registered(new_one, Generation{5});
    EXPECT_EQ(two.bound(first, 0).progress.position, Lsn{50});
}

TEST_F(ReregisteredTest, AViewThatCannotTellTakesNothingAway) {
    resolve(500);
    one.registered({}, Generation{4});
    EXPECT_EQ(one.bound(first, 0).state, State::Unknown);
    EXPECT_EQ(two.bound(first, 0).state, State::Known);
    one.registered(old_one, Generation{5});
    EXPECT_EQ(one.bound(first, 0).state, State::Known);
}

TEST_F(CausalPositionTest, WhatAMasterShowsBelongsToThePosition) {
    resolve(500, 500, first, 70);
    EXPECT_EQ(two.bound(first, 0).progress.xmax, 70U);
    resolve(500, 500, first, 69);
    EXPECT_EQ(two.bound(first, 0).progress.xmax, 70U) << "answers overtake each other";
    resolve(50, 50, Epoch{1}, 60);
    EXPECT_EQ(two.bound(Epoch{1}, 0).progress.xmax, 60U);
}

TEST_F(CausalPositionTest, AWorkerThatStartsAnewTakesBackWhatItsForerunnerLeft) {
    resolve(100);
    (void)two.commit_begins();
    CausalPosition again;
    again.attach(*record, 1, 2);
    EXPECT_EQ(one.bound(first, 0).state, State::Unknown);
    resolve(200);
    EXPECT_EQ(one.bound(first, one.newest()).state, State::Known);
}

TEST_F(CausalPositionTest, WhoIsNotAloneAndSharesNothingKnowsNothing) {
    CausalPosition lonely;
    lonely.answered(lonely.ask(first), {Lsn{1}, Lsn{1}});
    EXPECT_EQ(lonely.bound(first, 0).state, State::Known);
    lonely.know_nothing();
    EXPECT_EQ(lonely.bound(first, 0).state, State::Unknown);
}

TEST_F(CausalPositionTest, IsWantedForASecond) {
    const TimePoint now = Clock::now();
    EXPECT_FALSE(one.wanted(now));
    two.want(now);
    EXPECT_TRUE(one.wanted(now + Millis{900}));
    EXPECT_FALSE(one.wanted(now + Millis{1100}));
}

TEST(ReplayProgress, GrowsAndIsForgotten) {
    ReplayProgress slave;
    const TimePoint now = Clock::now();
    auto version = slave.ask(now);
    EXPECT_TRUE(slave.asking());
    slave.answered(version, {Lsn{100}, 7});
    EXPECT_EQ(slave.progress().position, Lsn{100});
    version = slave.ask(now);
    slave.forget();
    slave.answered(version, {Lsn{200}, 8});
    EXPECT_FALSE(slave.progress().position.known());
}

TEST(ReplayProgress, IsAskedLessOftenTheLongerItIsBehind) {
    ReplayProgress slave;
    const TimePoint now = Clock::now();
    slave.wanted = {Lsn{1000}, 70};
    EXPECT_TRUE(slave.due(now));
    Millis last{0};
    for (int i = 0; i < 10; ++i) {
        slave.answered(slave.ask(now), {Lsn{10}, 69});
        EXPECT_GE(slave.pause(), last);
        last = slave.pause();
        EXPECT_FALSE(slave.due(now));
        EXPECT_TRUE(slave.due(now + last));
    }
    EXPECT_EQ(last, Millis{100});
    slave.answered(slave.ask(now), {Lsn{1000}, 69});
    EXPECT_TRUE(slave.behind());
    EXPECT_EQ(slave.pause(), Millis{100});
    slave.answered(slave.ask(now), {Lsn{1000}, 70});
    EXPECT_EQ(slave.pause(), Millis{0});
}

}  // namespace
}  // namespace pgxc::pooler
