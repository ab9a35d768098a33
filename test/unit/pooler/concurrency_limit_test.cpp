#include "pooler/concurrency_limit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <random>

namespace pgxc::pooler {
namespace {

/// Clients that each want the next transaction as soon as the last one has ended, and a server that ends
/// `rate(k)` transactions a second while k run, give or take.
class Load {
  public:
    using Rate = std::function<double(int)>;

    Load(int clients, Rate rate) : clients_(clients), rate_(std::move(rate)) {}

    void now_is(Rate rate) { rate_ = std::move(rate); }
    void clients_are(int clients) { clients_ = clients; }

    /// Runs for that long; returns transactions per second.
    double run(double seconds) {
        const TimePoint end = now_ + after(seconds);
        const TimePoint begin = now_;
        int done = 0;
        limited_ = 0;
        while (now_ < end) {
            const int present = clients_ - (std::bernoulli_distribution(thinking_)(random_) ? 1 : 0);
            const int running = std::min(limit.limit(), std::min(present, most));
            const double drift =
                1 + 0.1 * std::sin(2 * std::numbers::pi * seconds_of(now_.time_since_epoch()) / 0.7);
            step(std::exponential_distribution<>(rate_(running) * drift)(random_), running, present);
            limit.ended(most, now_);
            ++done;
        }
        return done / seconds_of(now_ - begin);
    }
    /// One of them is often away, thinking.
    void one_thinks(double share) { thinking_ = share; }
    /// Nothing ends for that long, with the clients there or gone.
    void stand_still(double seconds) {
        const TimePoint end = now_ + after(seconds);
        while (now_ < end) step(0.25, std::min(limit.limit(), std::min(clients_, most)), clients_);
    }
    /// Of the last run: the share of the time in which a limit was in force.
    [[nodiscard]] double limited_share(double of_seconds) const { return limited_ / of_seconds; }

    ConcurrencyLimit limit;
    int most = 100;

  private:
    static double seconds_of(Clock::duration duration) {
        return std::chrono::duration<double>(duration).count();
    }
    static Clock::duration after(double seconds) {
        return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    }
    void step(double seconds, int running, int present) {
        now_ += after(seconds);
        if (limit.limit() != ConcurrencyLimit::none) limited_ += seconds;
        limit.passed(static_cast<std::size_t>(running), static_cast<std::size_t>(present - running), now_);
        if (now_ >= next_tick_) {
            limit.tick(now_);
            next_tick_ = now_ + Millis{250};
        }
    }

    int clients_;
    double thinking_ = 0;
    Rate rate_;
    double limited_ = 0;
    std::mt19937 random_{7};
    TimePoint now_{};
    TimePoint next_tick_{};
};

/// Two processors, and each more that runs costs all of them something.
double crowded(int running) {
    return 10'000.0 * std::min(running, 2) / (1 + 0.02 * std::max(0, running - 2));
}

/// Each has a disk of its own.
double waiting_for_disks(int running) {
    return 500.0 * running;
}

TEST(ConcurrencyLimit, IsNoneAtFirst) {
    ConcurrencyLimit limit;
    EXPECT_EQ(limit.limit(), ConcurrencyLimit::none);
}

TEST(ConcurrencyLimit, FindsFewWhereManyAreInEachOthersWay) {
    Load load(32, crowded);
    load.run(3);
    const double found = load.run(5);
    EXPECT_LE(load.limit.found(), 8);
    EXPECT_GE(load.limit.found(), 2);
    EXPECT_GT(found, 1.3 * crowded(32));
    EXPECT_GT(found, 0.93 * crowded(2));
}

TEST(ConcurrencyLimit, CostsNearlyNothingWhereMoreIsBetter) {
    Load load(32, waiting_for_disks);
    load.run(2);
    EXPECT_GT(load.run(30), 0.98 * waiting_for_disks(32));
    EXPECT_GE(load.limit.found(), 32);
}

TEST(ConcurrencyLimit, CostsNearlyNothingWhereItDoesNotMatter) {
    Load load(32, [](int running) { return 10'000.0 * std::min(running, 2); });
    EXPECT_GT(load.run(30), 0.97 * 20'000);
}

TEST(ConcurrencyLimit, GrowsSoonWhenTransactionsBeginToWaitForSomethingElse) {
    Load load(32, crowded);
    load.run(4);
    ASSERT_NE(load.limit.found(), ConcurrencyLimit::none);
    load.now_is(waiting_for_disks);
    load.run(2);
    EXPECT_GT(load.run(5), 0.85 * waiting_for_disks(32));
    EXPECT_GE(load.limit.found(), 32);
}

TEST(ConcurrencyLimit, GrowsWithWhatIsBest) {
    // Eight processors in place of two, and all faster: nothing falls that would give the limit up.
    Load load(64, crowded);
    load.run(4);
    ASSERT_LE(load.limit.found(), 8);
    const auto more = [](int running) {
        return 12'000.0 * std::min(running, 16) / (1 + 0.02 * std::max(0, running - 16));
    };
    load.now_is(more);
    load.run(40);
    EXPECT_GT(load.run(5), 0.8 * more(16));
}

TEST(ConcurrencyLimit, GrowsWhenTransactionsBeginToWaitMoreAndMore) {
    Load load(32, crowded);
    load.run(100);
    ASSERT_LE(load.limit.found(), 8);
    for (int step = 0; step < 20; ++step) {
        const double share = step / 19.0;
        load.now_is([share](int running) {
            return 1 / ((1 - share) / crowded(running) + share / waiting_for_disks(running));
        });
        load.run(0.2);
    }
    load.run(2);
    EXPECT_GT(load.run(5), 0.8 * waiting_for_disks(32));
}

TEST(ConcurrencyLimit, HoldsNoBurstsBackThatEndBeforeAnythingIsKnown) {
    Load load(32, [](int running) { return 80.0 * running; });
    double done = 0;
    for (int burst = 0; burst < 20; ++burst) {
        load.clients_are(32);
        const double rate = load.run(0.6);
        if (burst >= 3) done += rate;
        load.clients_are(0);
        load.stand_still(2);
    }
    EXPECT_GT(done / 17, 0.8 * 80 * 32);
}

TEST(ConcurrencyLimit, SlowTransactionsThatAreInNobodysWayDoNotWait) {
    Load load(32, [](int running) { return 10.0 * running; });
    load.run(60);
    EXPECT_EQ(load.limited_share(60), 0);
}

TEST(ConcurrencyLimit, IsThereAgainSoonAfterAStall) {
    Load load(32, crowded);
    load.run(100);
    load.stand_still(1);
    load.run(0.2);
    EXPECT_GT(load.run(5), 1.3 * crowded(32));
    EXPECT_GT(load.limited_share(5), 0.9);
}

TEST(ConcurrencyLimit, LeavesTransactionsAloneThatAreFew) {
    Load load(32, [](int running) { return running > 4 ? 50.0 : 75.0; });
    load.run(30);
    EXPECT_EQ(load.limited_share(30), 0);
}

TEST(ConcurrencyLimit, HoldsNoFifthClientBack) {
    Load load(5, waiting_for_disks);
    load.one_thinks(0.3);
    load.run(5);
    EXPECT_GT(load.run(30), 0.97 * waiting_for_disks(5) * 0.94);
}

TEST(ConcurrencyLimit, StaysBelowWhatMayRunForAnotherReason) {
    Load load(32, crowded);
    load.most = 6;
    load.run(5);
    EXPECT_GT(load.run(10), 0.93 * crowded(6));
}

TEST(ConcurrencyLimit, LeavesFewClientsAlone) {
    Load load(3, crowded);
    load.run(10);
    EXPECT_EQ(load.limited_share(10), 0);
}

TEST(ConcurrencyLimit, IsGivenUpWhenNothingEnds) {
    Load load(32, crowded);
    load.run(4);
    ASSERT_NE(load.limit.limit(), ConcurrencyLimit::none);
    load.stand_still(1);
    EXPECT_EQ(load.limit.limit(), ConcurrencyLimit::none);
}

TEST(ConcurrencyLimit, IsFoundAgainSoonAfterAPause) {
    Load load(32, crowded);
    load.run(4);
    load.clients_are(0);
    load.stand_still(10);
    EXPECT_EQ(load.limit.limit(), ConcurrencyLimit::none);
    load.clients_are(32);
    load.run(1);
    EXPECT_LE(load.limit.found(), 8);
}

TEST(ConcurrencyLimit, IsForgotten) {
    Load load(32, crowded);
    load.run(4);
    load.limit.forget();
    EXPECT_EQ(load.limit.limit(), ConcurrencyLimit::none);
    EXPECT_EQ(load.limit.found(), ConcurrencyLimit::none);
}

}  // namespace
}  // namespace pgxc::pooler
