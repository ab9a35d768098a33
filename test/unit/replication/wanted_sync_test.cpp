#include <gtest/gtest.h>

#include "unit/replication/policy_fixture.h"

namespace pgxc::test {
namespace {

class WantedSyncTest : public ::testing::Test {
  protected:
    WantedSync wanted(int now_ms = 0) {
        return wanted_sync(record, topology, group, seen, missing_since, settings, after(now_ms));
    }

    /// A registered synchronous slave that streams under its name.
    void add(int n) {
        nodes.push_back(slave_node(n));
        topology = topology_of(nodes);
        seen[at(n)] = good_slave(n);
        streams(n);
    }
    void counts(const std::vector<int>& slaves, int k) { record.configurations = {configuration(slaves, k)}; }
    void streams(int n, const char* state = "streaming") {
        seen[at(1)].facts->standbys.push_back({member(n).name, state, Lsn{9}, Lsn{9}});
    }
    void stops_streaming(int n, int at_ms) {
        std::erase_if(seen[at(1)].facts->standbys,
                      [&](const StreamSeen& s) { return s.name == member(n).name; });
        missing_since[at(n)] = after(at_ms);
    }

    Record record = record_with({configuration({}, 0)});
    std::vector<Node> nodes;
    Topology topology = topology_of({});
    std::map<HostPort, Observation> seen{{at(1), good_master()}};
    std::map<HostPort, TimePoint> missing_since;
    PolicySettings settings;
};

TEST_F(WantedSyncTest, NobodyRegisteredNobodyCounts) {
    EXPECT_EQ(wanted().configuration, configuration({}, 0));
    EXPECT_EQ(wanted().why, "");
}

TEST_F(WantedSyncTest, JoinsWhoStreamsUnderItsName) {
    add(2);
    EXPECT_EQ(wanted().configuration, configuration({2}, 1));
    EXPECT_TRUE(wanted().to_prepare.empty());
    EXPECT_EQ(wanted().why, "");
}

TEST_F(WantedSyncTest, AnAsynchronousSlaveNeverCounts) {
    add(2);
    topology = topology_of({slave_node(2, Replication::Asynchronous)});
    EXPECT_EQ(wanted().configuration, configuration({}, 0));
    EXPECT_TRUE(wanted().to_prepare.empty());
}

TEST_F(WantedSyncTest, IsPreparedFirst) {
    add(2);
    // As pg_basebackup -R leaves it; with the slot of an earlier epoch; with the name only.
    const auto unprepared = [&](const char* slot, const char* conninfo) {
        seen[at(2)].facts->primary_slot = slot;
        seen[at(2)].facts->primary_conninfo = conninfo;
        const WantedSync answer = wanted();
        EXPECT_EQ(answer.configuration, configuration({}, 0));
        ASSERT_EQ(answer.to_prepare.size(), 1U);
        EXPECT_EQ(answer.to_prepare[0].key, datanode(2));
        EXPECT_NE(answer.why, "");
    };
    unprepared("", "host=10.0.0.1");
    unprepared("pgxc_d_2_e1", "host=10.0.0.1 application_name=pgxc_d_2_e1");
    unprepared("", "host=10.0.0.1 application_name=pgxc_d_2_e0");
    unprepared("pgxc_d_2_e0", "");
}

TEST_F(WantedSyncTest, DoesntCountBeforeItStreams) {
    add(2);
    seen[at(1)].facts->standbys.clear();
    EXPECT_EQ(wanted().configuration, configuration({}, 0));
    EXPECT_NE(wanted().why, "");
    streams(2, "catchup");
    EXPECT_EQ(wanted().configuration, configuration({}, 0));
    EXPECT_TRUE(wanted().to_prepare.empty());
}

TEST_F(WantedSyncTest, DoesntCountWhenItIsNotThereAsASlave) {
    add(2);
    const Observation good = seen[at(2)];
    seen.erase(at(2));
    EXPECT_EQ(wanted().configuration, configuration({}, 0));
    seen[at(2)] = good;
    seen[at(2)].silence = Silence::Timeout;
    EXPECT_EQ(wanted().configuration, configuration({}, 0));
    seen[at(2)] = good;
    seen[at(2)].facts->in_recovery = false;
    EXPECT_EQ(wanted().configuration, configuration({}, 0));
    EXPECT_TRUE(wanted().to_prepare.empty()) << "a master is never told to follow";
    EXPECT_NE(wanted().why, "");
}

TEST_F(WantedSyncTest, WhoCountsStaysThroughAShortGap) {
    add(2);
    counts({2}, 1);
    stops_streaming(2, 0);
    EXPECT_EQ(wanted(1'999).configuration, configuration({2}, 1));
    EXPECT_EQ(wanted(2'000).configuration, configuration({}, 0)) << "the detection time: degrade";
    EXPECT_NE(wanted(2'000).why, "");
}

TEST_F(WantedSyncTest, AStreamThatStandsIsNone) {
    add(2);
    add(3);
    counts({2, 3}, 2);
    settings.sync_slaves = 2;
    missing_since[at(3)] = after(0);  // though its master still says "streaming"
    EXPECT_EQ(wanted(1'999).configuration, configuration({2, 3}, 2));
    EXPECT_EQ(wanted(2'000).configuration, configuration({2}, 1));
    EXPECT_NE(wanted(2'000).why.find("flushed nothing"), std::string::npos) << wanted(2'000).why;
    // Nor does it count again before it moves, whatever it answers itself.
    counts({2}, 1);
    EXPECT_EQ(wanted(2'100).configuration, configuration({2}, 1));
    EXPECT_NE(wanted(2'100).why, "");
    missing_since.clear();
    EXPECT_EQ(wanted(2'200).configuration, configuration({2, 3}, 2));
}

TEST_F(WantedSyncTest, WhoCountsStaysWhileNobodyAsked) {
    // The monitor has just started: the record says that it counts, and nothing says that it doesn't.
    add(2);
    counts({2}, 1);
    seen.clear();
    EXPECT_EQ(wanted(60'000).configuration, configuration({2}, 1));
}

TEST_F(WantedSyncTest, DegradeKeepsThoseAlive) {
    add(2);
    add(3);
    add(4);
    counts({2, 3, 4}, 2);
    settings.sync_slaves = 2;
    stops_streaming(3, 0);
    EXPECT_EQ(wanted(2'000).configuration, configuration({2, 4}, 2));
    stops_streaming(2, 0);
    EXPECT_EQ(wanted(2'000).configuration, configuration({4}, 1));
}

TEST_F(WantedSyncTest, WithoutDegradeCommitsWait) {
    settings.sync_degrade = false;
    add(2);
    counts({2}, 1);
    stops_streaming(2, 0);
    EXPECT_EQ(wanted(3'600'000).configuration, configuration({2}, 1));
    // Nor does another way lead to nobody: it has been made again and knows its name no more.
    seen[at(2)].facts->primary_slot.clear();
    EXPECT_EQ(wanted(3'600'000).configuration, configuration({2}, 1));
}

TEST_F(WantedSyncTest, AFenceThatADeciderLeftBehindIsTakenBack) {
    // It fenced and died before it recorded anything; the master lives. Without this a cluster that may not
    // degrade would wait for ever.
    for (const bool degrade : {false, true}) {
        settings.sync_degrade = degrade;
        nodes.clear();
        seen[at(1)].facts->standbys.clear();
        add(2);
        counts({2}, 1);
        stops_streaming(2, 0);
        seen[at(2)].facts->primary_conninfo.clear();
        seen[at(2)].facts->receiver_status.clear();
        const WantedSync answer = wanted(100);
        EXPECT_EQ(answer.configuration, configuration({2}, 1)) << "it has not stopped counting";
        ASSERT_EQ(answer.to_prepare.size(), 1U);
        EXPECT_EQ(answer.to_prepare[0].key, datanode(2));
    }
}

TEST_F(WantedSyncTest, DroppedLeaves) {
    for (const bool degrade : {true, false}) {
        settings.sync_degrade = degrade;
        add(2);
        add(3);
        counts({2, 3}, 1);
        topology = topology_of({slave_node(3)});
        EXPECT_EQ(wanted().configuration, configuration({3}, 1));
        topology = topology_of({slave_node(2, Replication::Asynchronous)});
        EXPECT_EQ(wanted().configuration, configuration({}, 0)) << "an order, not a loss";
        topology = topology_of({});
        EXPECT_EQ(wanted().configuration, configuration({}, 0));
        nodes.clear();
    }
}

TEST_F(WantedSyncTest, ChangedIdIsAnotherName) {
    add(2);
    counts({2}, 1);
    Node renamed = slave_node(2);
    renamed.key.id = NodeId{7};
    topology = topology_of({renamed});
    const WantedSync answer = wanted();
    ASSERT_EQ(answer.to_prepare.size(), 1U);
    EXPECT_EQ(answer.to_prepare[0].key, datanode(7));
    settings.sync_degrade = false;
    EXPECT_EQ(wanted().configuration, configuration({2}, 1)) << "until it streams under the new one";
    const std::string name = standby_name(datanode(7), Epoch{0});
    seen[at(2)].facts->primary_slot = name;
    seen[at(2)].facts->primary_conninfo = "application_name=" + name;
    seen[at(1)].facts->standbys.push_back({name, "streaming", Lsn{9}, Lsn{9}});
    const Configuration renamed_one{Epoch{0}, {{name, at(2)}}, 1};
    EXPECT_EQ(wanted().configuration, renamed_one);
}

TEST_F(WantedSyncTest, KIsWhatIsAskedForButNoMoreThanThereAre) {
    add(2);
    add(3);
    add(4);
    const int expected[][2] = {{-1, 1}, {0, 1}, {1, 1}, {2, 2}, {3, 3}, {4, 3}, {100, 3}};
    for (const auto& [asked, k] : expected) {
        settings.sync_slaves = asked;
        EXPECT_EQ(wanted().configuration, configuration({2, 3, 4}, k)) << asked;
    }
}

TEST_F(WantedSyncTest, TheNamesAreOfTheRecordsEpoch) {
    add(2);
    record.epoch = Epoch{1};
    EXPECT_EQ(wanted().to_prepare.size(), 1U) << "it still has the name of epoch 0";
    seen[at(2)] = good_slave(2, 1);
    seen[at(1)].facts->standbys = {{member(2, 1).name, "streaming", Lsn{9}, Lsn{9}}};
    EXPECT_EQ(wanted().configuration, configuration({2}, 1, 1));
}

}  // namespace
}  // namespace pgxc::test
