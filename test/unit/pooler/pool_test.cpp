#include "pooler/pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

namespace pgxc::pooler {
namespace {

constexpr TimePoint t0{};
using std::chrono::seconds;

TEST(List, AnObjectIsOnOneListAndLeavesItWhenDestroyed) {
    List<Member> a;
    List<Member> b;
    Member one;
    {
        Member two;
        a.push_back(one);
        a.push_back(two);
        EXPECT_EQ(a.size(), 2U);
        b.push_back(one);
        EXPECT_EQ(one.list(), &b);
        EXPECT_EQ(a.front(), &two);
    }
    EXPECT_TRUE(a.empty());
    b.remove(one);
    EXPECT_EQ(one.list(), nullptr);
}

TEST(Pool, LendsTheMostRecentlyUsedConnectionAtOnce) {
    Pool pool;
    pool.set_limits({10, 0});
    std::array<Member, 2> members;
    Waiter waiter;
    pool.became_idle(members[0], t0);
    pool.became_idle(members[1], t0);
    EXPECT_EQ(pool.borrow(waiter, t0), &members[1]);
    EXPECT_EQ(members[1].list(), &pool.lent());
    EXPECT_FALSE(waiter.waiting());
}

TEST(Pool, ServesWaitersInTheirOrder) {
    Pool pool;
    pool.set_limits({1, 0});
    Member member;
    std::array<Waiter, 3> waiters;
    for (auto& waiter : waiters) EXPECT_EQ(pool.borrow(waiter, t0), nullptr);
    for (auto& waiter : waiters) {
        pool.became_idle(member, t0);
        const auto match = pool.match();
        ASSERT_TRUE(match.has_value());
        EXPECT_EQ(match->waiter, &waiter);
        EXPECT_EQ(match->member, &member);
        EXPECT_FALSE(pool.match().has_value());
    }
}

TEST(Pool, ANewcomerDoesNotOvertakeThoseWhoWait) {
    Pool pool;
    pool.set_limits({1, 0});
    Member member;
    Waiter first;
    Waiter second;
    EXPECT_EQ(pool.borrow(first, t0), nullptr);
    pool.became_idle(member, t0);
    EXPECT_EQ(pool.borrow(second, t0), nullptr);
    EXPECT_EQ(pool.match()->waiter, &first);
}

TEST(Pool, OpensAsManyAsWaitAndNoMoreThanAllowed) {
    Pool pool;
    pool.set_limits({2, 0});
    std::array<Waiter, 3> waiters;
    std::array<Member, 2> members;
    EXPECT_EQ(pool.members_wanted(), 0);
    (void)pool.borrow(waiters[0], t0);
    EXPECT_EQ(pool.members_wanted(), 1);
    pool.add_connecting(members[0]);
    EXPECT_EQ(pool.members_wanted(), 0);
    (void)pool.borrow(waiters[1], t0);
    (void)pool.borrow(waiters[2], t0);
    EXPECT_EQ(pool.members_wanted(), 1);
    pool.add_connecting(members[1]);
    EXPECT_EQ(pool.members_wanted(), 0);
}

TEST(Pool, KeepsTheMinimumFromTheFirstUseOn) {
    Pool pool;
    pool.set_limits({10, 3});
    EXPECT_EQ(pool.members_wanted(), 0);
    Waiter waiter;
    Member member;
    pool.became_idle(member, t0);
    EXPECT_EQ(pool.borrow(waiter, t0), &member);
    EXPECT_EQ(pool.members_wanted(), 2);
    pool.rest();
    EXPECT_EQ(pool.members_wanted(), 0);
}

TEST(Pool, WhoseTurnItWasIsFirstAgainAndHasWaitedSinceItAskedFirst) {
    Pool pool;
    pool.set_limits({1, 0});
    Waiter first;
    Waiter second;
    Member useless;
    pool.became_idle(useless, TimePoint{});
    const TimePoint then = TimePoint{} + Millis{10};
    EXPECT_EQ(pool.borrow(first, then), &useless);
    EXPECT_EQ(pool.borrow(second, then + Millis{1}), nullptr);
    useless.unlink();
    EXPECT_EQ(pool.borrow_again(first), nullptr);
    EXPECT_EQ(pool.waiters().front(), &first);
    EXPECT_EQ(first.waiting_since(), then);
}

TEST(Pool, LendsNothingWhilePaused) {
    Pool pool;
    pool.set_limits({5, 2});
    Member member;
    Waiter waiter;
    pool.became_idle(member, t0);
    pool.pause();
    EXPECT_EQ(pool.borrow(waiter, t0 + seconds{1}), nullptr);
    EXPECT_EQ(waiter.waiting_since(), t0 + seconds{1});
    EXPECT_FALSE(pool.match().has_value());
    EXPECT_EQ(pool.members_wanted(), 0);
    pool.resume();
    EXPECT_TRUE(pool.match().has_value());
}

TEST(Pool, AWaiterThatGoesIsForgotten) {
    Pool pool;
    pool.set_limits({1, 0});
    Member member;
    {
        Waiter waiter;
        (void)pool.borrow(waiter, t0);
    }
    pool.became_idle(member, t0);
    EXPECT_FALSE(pool.match().has_value());
}

TEST(Pool, SurplusIsWhatWasIdleLongestBeyondTheMinimum) {
    Pool pool;
    pool.set_limits({5, 1, seconds{10}});
    std::array<Member, 2> members;
    Waiter waiter;
    pool.became_idle(members[0], t0);
    EXPECT_EQ(pool.borrow(waiter, t0), &members[0]);
    pool.became_idle(members[0], t0);
    pool.became_idle(members[1], t0 + seconds{5});
    EXPECT_EQ(pool.surplus(t0 + seconds{9}), nullptr);
    EXPECT_EQ(pool.surplus(t0 + seconds{10}), &members[0]);
    pool.set_limits({5, 1});
    EXPECT_EQ(pool.surplus(t0 + seconds{1000}), nullptr);
    pool.set_limits({5, 1, seconds{10}});
    pool.retire(members[0]);
    EXPECT_NE(pool.surplus(t0 + seconds{30}), &members[0]);
}

TEST(Pool, ConnectionsEndAtTheirAgeThoughTheMinimumWantsThemButNotAllAtOnce) {
    Pool pool;
    pool.set_limits({20, 20, seconds{0}, seconds{1000}});
    std::array<Member, 10> members;
    for (auto& member : members) {
        pool.connected(member, t0);
        pool.became_idle(member, t0);
    }
    EXPECT_EQ(pool.surplus(t0 + seconds{899}), nullptr);
    std::vector<int> ended_at;
    for (int second = 899; second <= 1000; ++second) {
        while (Member* old = pool.surplus(t0 + seconds{second})) {
            EXPECT_TRUE(pool.outlived(*old, t0 + seconds{second}));
            old->unlink();
            ended_at.push_back(second);
        }
    }
    ASSERT_EQ(ended_at.size(), members.size());
    EXPECT_EQ(std::unique(ended_at.begin(), ended_at.end()), ended_at.end());
}

TEST(Pool, ALowerMaximumEndsWhatIsTooMuch) {
    Pool pool;
    pool.set_limits({3, 0});
    std::array<Member, 3> members;
    Waiter waiter;
    for (auto& member : members) pool.became_idle(member, t0);
    Member* lent = pool.borrow(waiter, t0);
    EXPECT_FALSE(pool.outlived(*lent, t0));
    pool.set_limits({1, 0});
    EXPECT_TRUE(pool.outlived(*lent, t0));
    for (int i = 0; i < 2; ++i) {
        Member* surplus = pool.surplus(t0);
        ASSERT_NE(surplus, nullptr);
        surplus->unlink();
    }
    EXPECT_EQ(pool.surplus(t0), nullptr);
    EXPECT_FALSE(pool.outlived(*lent, t0));
}

TEST(Pool, ARetiredConnectionCountsUntilItIsGone) {
    Pool pool;
    pool.set_limits({1, 0});
    Member member;
    Waiter waiter;
    pool.retire(member);
    (void)pool.borrow(waiter, t0);
    EXPECT_EQ(pool.members_wanted(), 0);
    member.unlink();
    EXPECT_EQ(pool.members_wanted(), 1);
}

/// 32 clients that always want the next transaction, and 32 connections to a server that is slower the more
/// of them are busy.
class CrowdedPool {
  public:
    explicit CrowdedPool(bool adaptive) {
        Pool::Limits limits;
        limits.max_members = static_cast<int>(members.size());
        limits.adaptive = adaptive;
        pool.set_limits(limits);
        for (auto& member : members) {
            pool.connected(member, now);
            pool.became_idle(member, now);
        }
        for (auto& waiter : waiters) (void)pool.borrow(waiter, now);
    }

    void run(seconds how_long) {
        const TimePoint end = now + how_long;
        for (TimePoint next_tick = now; now < end;) {
            now += std::chrono::microseconds{50 + 2 * pool.lent().size()};
            end_first();
            if (now >= next_tick) {
                pool.tick(now);
                next_tick = now + Millis{250};
            }
        }
    }

    void end_first() {
        Member& member = *pool.lent().front();
        Waiter& waiter = *member.last_user();
        pool.transaction_ended(member, now);
        pool.became_idle(member, now);
        while (pool.match()) {
        }
        (void)pool.borrow(waiter, now);
    }

    Pool pool;
    std::array<Member, 32> members;
    std::array<Waiter, 32> waiters;
    TimePoint now = t0;
};

TEST(Pool, LendsFewWhereManyAreInEachOthersWayAlwaysTheSame) {
    CrowdedPool crowd{true};
    crowd.run(seconds{5});
    const int limit = crowd.pool.concurrency_limit();
    ASSERT_LE(limit, 8);
    for (int i = 0; i < 100; ++i) crowd.end_first();
    EXPECT_EQ(crowd.pool.lent().size(), static_cast<std::size_t>(limit));
    EXPECT_EQ(crowd.pool.waiters().size(), crowd.waiters.size() - static_cast<std::size_t>(limit));
    EXPECT_FALSE(crowd.pool.may_match());
    for (int i = 0; i < limit; ++i) EXPECT_EQ(crowd.members.at(i).list(), &crowd.pool.lent()) << i;
    EXPECT_EQ(crowd.pool.members_wanted(), 0);
}

TEST(Pool, LendsAllIfItMayNotAdapt) {
    CrowdedPool crowd{false};
    crowd.run(seconds{5});
    EXPECT_EQ(crowd.pool.concurrency_limit(), ConcurrencyLimit::none);
    EXPECT_EQ(crowd.pool.lent().size(), crowd.members.size());
}

TEST(Pool, WhoIsLentForLongIsNotWhatOthersWaitFor) {
    CrowdedPool crowd{true};
    crowd.run(seconds{5});
    const int limit = crowd.pool.concurrency_limit();
    ASSERT_LE(limit, 8);
    EXPECT_FALSE(crowd.pool.may_match());
    // They were lent at the tick before, too.
    crowd.pool.tick(crowd.now + Millis{1});
    crowd.pool.tick(crowd.now + Millis{2});
    ASSERT_EQ(crowd.pool.concurrency_limit(), limit);
    ASSERT_TRUE(crowd.pool.may_match());
    while (crowd.pool.match()) {
    }
    EXPECT_EQ(crowd.pool.lent().size(), 2 * static_cast<std::size_t>(limit));
}

TEST(Pool, HasNoConcurrencyLimitAfterAPauseUntilManyRunAgain) {
    CrowdedPool crowd{true};
    crowd.run(seconds{5});
    ASSERT_NE(crowd.pool.concurrency_limit(), ConcurrencyLimit::none);
    crowd.pool.pause();
    EXPECT_EQ(crowd.pool.concurrency_limit(), ConcurrencyLimit::none);
    crowd.pool.resume();
    while (crowd.pool.match()) {
    }
    EXPECT_EQ(crowd.pool.lent().size(), crowd.members.size());
    crowd.run(seconds{1});
    EXPECT_LE(crowd.pool.concurrency_limit(), 8);
}

}  // namespace
}  // namespace pgxc::pooler
