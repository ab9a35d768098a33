// Any number of slaves and any k, and none that counts: who is promoted, and who isn't. docs/testing.md lists
// which rule's test each is.
#include <functional>
#include <set>
#include <stdexcept>

#include "monitor_fixture.h"
#include "replication/node_effects.h"

namespace pgxc::test {
namespace {

constexpr std::uint64_t mega = 1024ULL * 1024;

/// A phase of a HistoryRow.
Millis ms(double value) {
    return Millis(static_cast<Millis::rep>(value));
}

/// Many slaves, and any k.
class Quorum : public MonitorTest {
  protected:
    void make_cluster(int count, int k) {
        // A slave that dies with its master is still listed when the failover begins.
        settings.policy.probe_timeout = Millis(2'000);
        start_with_slaves(count, k);
    }
    RealServer& slave_at(const HostPort& address) {
        for (auto& slave : slaves)
            if (slave->address() == address) return *slave;
        throw std::logic_error("no slave of before is at " + address.to_string());
    }
    RealServer& heir() { return slave_at(record().master); }
    /// Makes a cluster and measures what takes no longer than that; the best of a few times, since the
    /// machine may be busy with something else.
    void expect_once_within(Millis limit, const std::function<void(Millis& took)>& attempt) {
        Millis best = deadline_time;
        for (int round = 0; round < 4 && best >= limit; ++round) {
            if (round > 0) remove_cluster();
            Millis took = deadline_time;
            attempt(took);
            if (HasFailure()) return;
            best = std::min(best, took);
        }
        EXPECT_LT(best, limit);
    }
    /// Commits a row, kills the master, and at that point its heir. Gives the heir's address once there is
    /// another one.
    HostPort lose_the_first_heir_at(const std::string& crash_point) {
        EXPECT_TRUE(commits(master.port, 1));
        std::optional<HostPort> first;
        coordinator->environment.on_crash_point = [&](const std::string& point) {
            if (point != crash_point || first) return;
            first = record().master;
            heir().kill9();
        };
        master.kill9();
        wait_history(2);
        coordinator->environment.on_crash_point = {};
        EXPECT_TRUE(first.has_value());
        return first.value_or(HostPort{});
    }
};

TEST_F(Quorum, KOfThreeOfFiveSurvivesTheMasterAndTwoSlavesAtOnce) {
    make_cluster(5, 3);
    if (HasFatalFailure()) return;
    expect_master(master, 1, names(3, {2, 3, 4, 5, 6}, 0));
    ASSERT_TRUE(commits(master.port, 1));
    slaves[0]->kill9();
    slaves[3]->kill9();
    master.kill9();
    wait_history(1);
    wait_until("the two that are left to count", [&] {
        return !record().pending && record().configurations.size() == 1 &&
               record().wanted().slaves.size() == 2 && record().wanted().k == 2;
    });
    EXPECT_TRUE(commits(heir().port, 2));
    EXPECT_EQ(values(heir()), "1,2");
    EXPECT_EQ(store.history[0].lost_wal_bytes, 0);
}

TEST_F(Quorum, KOfAllNeedsOneFence) {
    make_cluster(5, 5);
    if (HasFatalFailure()) return;
    ASSERT_TRUE(commits(master.port, 1));
    for (int each = 0; each < 4; ++each) slaves[static_cast<std::size_t>(each)]->kill9();
    master.kill9();
    wait_history(1);
    expect_master(*slaves[4], 2, "");
    EXPECT_EQ(values(*slaves[4]), "1");
}

TEST_F(Quorum, KOfOneNeedsEverybodyFenced) {
    make_cluster(4, 1);
    if (HasFatalFailure()) return;
    ASSERT_TRUE(commits(master.port, 1));
    slaves[2]->kill9();
    master.kill9();
    wait_until("the refusal", [&] { return why().find("waiting for an answer of 4") != std::string::npos; });
    coordinator->run_for(Millis(1'000));
    EXPECT_TRUE(store.history.empty()) << "the one that is missing may be the only one that has the commit";
    slaves[2]->start();
    wait_history(1);
    EXPECT_EQ(values(heir()), "1");
}

TEST_F(Quorum, ASlaveThatHangsDoesNotHoldUpAFailoverThatNeedsTheOthersOnly) {
    expect_once_within(effect_timeout, [&](Millis& took) {
        make_cluster(3, 2);
        if (HasFatalFailure()) return;
        RealServer& hangs = *slaves[0];
        ASSERT_TRUE(commits(master.port, 1));
        hangs.freeze();
        master.kill9();
        wait_history(1);
        const HistoryRow& row = store.history[0];
        // No step may have waited for an answer of the one that hangs.
        took = ms(row.decide_ms + row.fence_ms + row.promote_ms);
        EXPECT_EQ(row.lost_wal_bytes, 0);
        EXPECT_NE(record().master, hangs.address());
        EXPECT_EQ(record().wanted().find(hangs.address()), nullptr)
            << "not fenced, it isn't known to be a prefix";
        EXPECT_TRUE(commits(heir().port, 2));
        hangs.thaw();
        wait_until("all that are left to count", [&] {
            return gate() == Gate::Open && record().configurations.size() == 1 &&
                   record().wanted().slaves.size() == 2 && record().wanted().k == 2;
        });
        EXPECT_TRUE(commits(heir().port, 3));
        wait_until("the rows in the one that hung", [&] { return values(hangs) == "1,2,3"; });
    });
}

TEST_F(Quorum, WhatIsThrownInTheMiddleOfAPromotionHoldsUpNobody) {
    make_cluster(3, 1);
    if (HasFatalFailure()) return;
    ASSERT_TRUE(commits(master.port, 1));
    std::set<std::string> thrown;
    coordinator->environment.on_crash_point = [&](const std::string& point) {
        const bool one_of_them = point == "one fenced" || point == "names in force" ||
                                 point == "slots made" || point == "followers pointed" ||
                                 point == "gate proven";
        if (one_of_them && thrown.insert(point).second) throw std::runtime_error("no memory");
    };
    master.kill9();
    wait_history(1);
    EXPECT_EQ(thrown.size(), 5U);
    EXPECT_TRUE(commits(heir().port, 2));
    EXPECT_EQ(values(heir()), "1,2");
}

TEST_F(Quorum, ASlaveThatDiesBeforeTheCatalogFollowsLeavesTheRecordOnlyAfterTheNames) {
    make_cluster(3, 1);
    if (HasFatalFailure()) return;
    ASSERT_TRUE(commits(master.port, 1));
    coordinator->environment.catalog_is_locked = true;
    master.kill9();
    wait_until("an open master that the catalog doesn't have", [&] {
        return record().pending && record().epoch == Epoch{1} && gate() == Gate::Open &&
               record().wanted().slaves.size() == 2;
    });
    for (auto& slave : slaves) {
        if (record().wanted().find(slave->address()) == nullptr) continue;
        slave->kill9();
        break;
    }
    wait_until("the configuration without it",
               [&] { return record().pending && record().wanted().slaves.size() == 1; });
    bool settled = false;
    coordinator->environment.memory_arbiter.on_change = [&](const Record& next) {
        if (settled || next.pending || next.configurations.size() != 1) return;
        settled = true;
        const std::string written = "synchronous_standby_names = '" + names_in_force(next.wanted()) + "'";
        EXPECT_NE(heir().file("postgresql.auto.conf").find(written), std::string::npos)
            << "the record lists nobody but those of " << written << ", and in force is\n"
            << heir().file("postgresql.auto.conf");
    };
    coordinator->environment.catalog_is_locked = false;
    wait_history(1);
    wait_until("the end", [&] { return settled; });
    EXPECT_TRUE(commits(heir().port, 2));
}

TEST_F(Quorum, AFollowerThatHangsBeforeItIsPointedCostsNoMoreThanItsDetection) {
    // Nothing it is needed for may wait for a whole statement's time: with the detection itself it would be
    // seven seconds.
    expect_once_within(effect_timeout + Millis(1'500), [&](Millis& took) {
        settings.policy.probe_timeout = Millis(500);
        start_with_slaves(2, 1);
        if (HasFatalFailure()) return;
        RealServer& second = *slaves[0];
        RealServer& third = *slaves[1];
        ASSERT_TRUE(commits(master.port, 1));
        RealServer* hangs = nullptr;
        TimePoint since;
        coordinator->environment.on_crash_point = [&](const std::string& point) {
            if (point != "promotion recorded" || hangs != nullptr) return;
            hangs = record().master == second.address() ? &third : &second;
            hangs->freeze();
            since = Clock::now();
        };
        master.kill9();
        wait_history(1);
        took = std::chrono::duration_cast<Millis>(Clock::now() - since);
        ASSERT_NE(hangs, nullptr);
        EXPECT_TRUE(commits(heir().port, 2));
        hangs->thaw();
        wait_counting({hangs}, 1);
        wait_until("the rows in the one that hung", [&] { return values(*hangs) == "1,2"; });
    });
}

TEST_F(Quorum, WhereTheFollowerThatIsPointedFirstHangsAnotherTakesItsPlace) {
    // What it would cost if the gate waited for it.
    settings.policy.probe_timeout = deadline_time / 2;
    start_with_slaves(3, 1);
    if (HasFatalFailure()) return;
    ASSERT_TRUE(commits(master.port, 1));
    RealServer* hangs = nullptr;
    coordinator->environment.on_crash_point = [&](const std::string& point) {
        if (point != "promotion recorded" || hangs != nullptr) return;
        hangs = &slave_at(record().wanted().slaves.front().address);
        hangs->freeze();
    };
    master.kill9();
    wait_history(1);
    ASSERT_NE(hangs, nullptr);
    EXPECT_LT(ms(store.history[0].outage_ms), settings.policy.probe_timeout * 2 / 3);
    EXPECT_TRUE(commits(heir().port, 2));
    hangs->thaw();
    wait_until("the rows in the one that hung", [&] { return values(*hangs) == "1,2"; });
}

TEST_F(Quorum, AFollowerThatAnswersAndNeverStreamsHoldsUpNoPromotion) {
    make_cluster(3, 2);
    if (HasFatalFailure()) return;
    ASSERT_TRUE(commits(master.port, 1));
    RealServer* stuck = nullptr;
    coordinator->environment.on_crash_point = [&](const std::string& point) {
        if (point != "promotion recorded" || stuck != nullptr) return;
        stuck = &slave_at(record().wanted().slaves.front().address);
        stuck->freeze_startup();
    };
    master.kill9();
    wait_history(1);
    ASSERT_NE(stuck, nullptr);
    EXPECT_LT(record().wanted().k, 2);
    EXPECT_EQ(record().wanted().find(stuck->address()), nullptr);
    EXPECT_TRUE(commits(heir().port, 2));
    stuck->thaw();
    wait_until("all that are left to count", [&] {
        return gate() == Gate::Open && record().configurations.size() == 1 &&
               record().wanted().slaves.size() == 2 && record().wanted().k == 2;
    });
    wait_until("the rows", [&] { return values(*stuck) == "1,2"; });
}

TEST_F(Quorum, ASlaveThatHangsInTheMiddleOfItsFenceIsTakenUpLater) {
    expect_once_within(fence_timeout, [&](Millis& took) {
        make_cluster(3, 2);
        if (HasFatalFailure()) return;
        ASSERT_TRUE(commits(master.port, 1));
        // The first one that is about to be cut: what was sent to it takes effect when it wakes.
        RealServer* hangs = nullptr;
        coordinator->environment.on_crash_point = [&](const std::string& point) {
            if (point != "stream cut" || hangs != nullptr) return;
            hangs = slaves[0].get();
            hangs->freeze();
        };
        master.kill9();
        wait_history(1);
        ASSERT_NE(hangs, nullptr);
        took = ms(store.history[0].fence_ms);
        EXPECT_TRUE(commits(heir().port, 2));
        hangs->thaw();
        wait_until("all that are left to count", [&] {
            return gate() == Gate::Open && record().configurations.size() == 1 &&
                   record().wanted().slaves.size() == 2 && record().wanted().k == 2;
        });
        for (const auto& slave : slaves) wait_until("the rows", [&] { return values(*slave) == "1,2"; });
    });
}

TEST_F(Quorum, AChosenThatDiesWhileItIsPromotedIsReplacedInItsTurn) {
    make_cluster(3, 2);
    if (HasFatalFailure()) return;
    const HostPort first = lose_the_first_heir_at("names in force");
    EXPECT_NE(record().master, first);
    EXPECT_EQ(record().epoch, Epoch{2});
    EXPECT_EQ(store.history[0].epoch, Epoch{1});
    EXPECT_NE(store.history[0].cause.find("lost before its promotion was finished"), std::string::npos);
    EXPECT_EQ(store.history[1].old_address, first);
    EXPECT_EQ(store.history[1].lost_wal_bytes, 0);
    EXPECT_TRUE(commits(heir().port, 2));
    EXPECT_EQ(values(heir()), "1,2");
    EXPECT_EQ(store.topology.find(group)->address, record().master);
    EXPECT_EQ(record().formers.size(), 2U) << "both masters that were replaced are waited for";
}

TEST_F(Quorum, APromotedOneThatDiesBeforeItsFollowersCaughtUpIsReplaced) {
    make_cluster(3, 2);
    if (HasFatalFailure()) return;
    const HostPort first = lose_the_first_heir_at("server promoted");
    EXPECT_NE(record().master, first);
    EXPECT_TRUE(commits(heir().port, 2));
    EXPECT_EQ(values(heir()), "1,2");
}

TEST_F(Quorum, ACascadingSlaveFollowsWhoeverItsMasterFollows) {
    make_cluster(2, 1);
    if (HasFatalFailure()) return;
    RealServer& below = clone_master(4);
    std::vector<Node> nodes = store.topology.nodes();
    Node cascading = slave_node(4, below, asynchronous);
    cascading.master_id = NodeId{2};
    nodes.push_back(cascading);
    store.topology = Topology(std::move(nodes));
    coordinator->monitor->catalog_changed();
    wait_until("the cascade", [&] {
        return sql(*slaves[0], "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1";
    });
    ASSERT_TRUE(commits(master.port, 1));
    master.kill9();
    wait_history(1);
    wait_until("everybody but the heir to follow", [&] {
        return values(below) == "1" && record().wanted().slaves.size() == 1 && gate() == Gate::Open;
    });
    ASSERT_TRUE(commits(heir().port, 2));
    wait_until("the row below", [&] { return values(below) == "1,2"; });
    EXPECT_EQ(record().wanted().find(below.address()), nullptr) << "a cascading slave never counts";
}

/// Nobody counts; pgxc.max_lost_wal.
class Asynchronous : public MonitorTest {
  protected:
    /// What the master told last must not be old when it dies, of a pause of a busy machine.
    static constexpr Millis patient{10'000};

    void cut(const RealServer& slave) {
        (void)sql(slave, "ALTER SYSTEM SET primary_conninfo = ''");
        (void)sql(slave, "SELECT pg_reload_conf()");
        wait_until("the cut", [&] { return sql(master, "SELECT count(*) FROM pg_stat_replication") == "0"; });
    }
    /// Writes about so many bytes, and waits until the monitor has seen the master's new position.
    void write_unseen_by_slaves(int kilobytes) {
        (void)sql(master, "SELECT pg_logical_emit_message(true, 'test', repeat('x', " +
                              std::to_string(kilobytes) + " * 1024))");
        const auto end = Lsn::parse(sql(master, "SELECT pg_current_wal_flush_lsn()"));
        wait_until("the monitor to see it", [&] {
            const NodeView* shown = coordinator->environment.view.find(group);
            return shown != nullptr && shown->position >= *end;
        });
    }
};

TEST_F(Asynchronous, IsPromotedByItselfWhereMaxLostWalAllowsIt) {
    settings.policy.probe_timeout = patient;
    settings.policy.max_lost_wal_bytes = mega;
    settings.policy.sync_degrade = false;  // nobody counted: nothing is degraded
    make_master();
    RealServer& first = make_slave(2, asynchronous);
    RealServer& second = make_slave(3, asynchronous);
    start_coordinator();
    wait_counting({}, 0);
    ASSERT_TRUE(commits(master.port, 1));
    wait_until("the row", [&] { return values(first) == "1" && values(second) == "1"; });
    master.kill9();
    wait_history(1);
    RealServer& heir = record().master == first.address() ? first : second;
    RealServer& rest = &heir == &first ? second : first;
    expect_master(heir, 2, "");
    EXPECT_EQ(values(heir), "1");
    EXPECT_EQ(store.history[0].lost_wal_bytes, -1)
        << "nothing is known to be lost, and what nobody saw is not known: never 0";
    EXPECT_NE(store.history[0].cause.find("pgxc.max_lost_wal"), std::string::npos);
    const auto told = std::find_if(
        coordinator->environment.evidence.begin(), coordinator->environment.evidence.end(),
        [](const Evidence& each) { return each.reason.find("max_lost_wal allows") != std::string::npos; });
    EXPECT_NE(told, coordinator->environment.evidence.end());
    ASSERT_TRUE(commits(heir.port, 2));
    wait_until("the other one to follow", [&] { return values(rest) == "1,2"; });
}

TEST_F(Asynchronous, WhatIsKnownToBeLostIsTold) {
    settings.policy.probe_timeout = patient;
    settings.policy.max_lost_wal_bytes = mega;
    make_master();
    RealServer& slave = make_slave(2, asynchronous);
    start_coordinator();
    wait_counting({}, 0);
    cut(slave);
    write_unseen_by_slaves(200);
    master.kill9();
    wait_history(1);
    EXPECT_GE(store.history[0].lost_wal_bytes, 200 * 1024);
    EXPECT_LE(store.history[0].lost_wal_bytes, static_cast<std::int64_t>(mega));
    ASSERT_EQ(record().formers.size(), 1U);
    EXPECT_NE(record().formers[0].keep_because, "") << "it has what its successor lacks";
}

TEST_F(Asynchronous, IsNotPromotedWhereItLacksMore) {
    settings.policy.probe_timeout = patient;
    settings.policy.max_lost_wal_bytes = mega;
    make_master();
    RealServer& slave = make_slave(2, asynchronous);
    start_coordinator();
    wait_counting({}, 0);
    cut(slave);
    write_unseen_by_slaves(1'200);
    master.kill9();
    wait_until("the refusal", [&] { return why().find("more than pgxc.max_lost_wal") != std::string::npos; });
    coordinator->run_for(Millis(1'000));
    EXPECT_TRUE(store.history.empty());
    EXPECT_EQ(sql(slave, "SELECT pg_is_in_recovery()"), "t");
    EXPECT_EQ(log_text().find(": fenced "), std::string::npos) << "refused before anything was cut";
    const auto& evidence = coordinator->environment.evidence;
    EXPECT_EQ(std::count_if(evidence.begin(), evidence.end(),
                            [](const Evidence& each) { return each.decision == "no failover"; }),
              1)
        << "it is tried twice a second, and told once";
    EXPECT_NE(evidence.back().reason.find("more than pgxc.max_lost_wal"), std::string::npos);
}

TEST_F(Asynchronous, LagZeroIsNoBoundWithMaxLostWalZero) {
    make_master();
    RealServer& slave = make_slave(2, asynchronous);
    start_coordinator();
    wait_counting({}, 0);
    ASSERT_TRUE(commits(master.port, 1));
    wait_until("the row", [&] { return values(slave) == "1"; });
    master.kill9();
    wait_until("the refusal", [&] { return why().find("no failover") != std::string::npos; });
    coordinator->run_for(Millis(1'000));
    EXPECT_TRUE(store.history.empty());
}

TEST_F(Asynchronous, IsNeverPromotedPastSynchronousSlaves) {
    settings.policy.max_lost_wal_bytes = 1024 * mega;
    settings.policy.probe_timeout = Millis(2'000);
    make_master();
    RealServer& counts = make_slave(2, synchronous);
    RealServer& other = make_slave(3, asynchronous);
    start_coordinator();
    wait_counting({&counts}, 1);
    ASSERT_TRUE(commits(master.port, 1));
    counts.kill9();
    master.kill9();
    coordinator->run_for(Millis(4'000));
    EXPECT_TRUE(store.history.empty());
    EXPECT_EQ(sql(other, "SELECT pg_is_in_recovery()"), "t");
    counts.start();
    wait_history(1);
    EXPECT_EQ(record().master, counts.address());
    EXPECT_EQ(store.history[0].lost_wal_bytes, 0);
}

TEST_F(Asynchronous, IsNotPromotedByAMonitorThatHasNeverSeenTheMaster) {
    settings.policy.max_lost_wal_bytes = mega;
    settings.policy.restart_grace = Millis(500);
    make_master();
    const RealServer& slave = make_slave(2, asynchronous);
    start_coordinator();
    wait_counting({}, 0);
    coordinator.reset();
    master.kill9();
    start_coordinator();
    wait_until("the refusal",
               [&] { return why().find("has not answered this monitor") != std::string::npos; });
    coordinator->run_for(Millis(500));
    EXPECT_TRUE(store.history.empty());
    EXPECT_EQ(sql(slave, "SELECT pg_is_in_recovery()"), "t");
}

}  // namespace
}  // namespace pgxc::test
