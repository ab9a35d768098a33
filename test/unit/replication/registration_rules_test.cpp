#include "replication/registration_rules.h"

#include <gtest/gtest.h>

namespace pgxc {
namespace {

/// A slave of 15.20 that streams from its master, everything in order.
SlaveCandidate sample() {
    SlaveCandidate candidate;
    candidate.slave = {NodeType::Datanode, NodeId{3}};
    candidate.slave_address = {"slave", 5003};
    candidate.master = {NodeType::Datanode, NodeId{1}};
    candidate.master_address = {"master", 5001};
    candidate.leads_to_master = true;
    NodeFacts& slave = candidate.slave_facts;
    slave.server_version_num = 150020;
    slave.in_recovery = true;
    slave.system_identifier = 42;
    slave.superuser_login = true;
    slave.streaming = true;
    slave.upstream_host = "master";
    slave.upstream_port = 5001;
    slave.application_name = "three";
    slave.data_directory = "/slave";
    slave.port = 5003;
    slave.started_at = "2";
    slave.rewind_possible = true;
    NodeFacts& master = candidate.master_facts;
    master = slave;
    master.in_recovery = false;
    master.streaming = false;
    master.application_name.clear();
    master.upstream_host.clear();
    master.upstream_port = 0;
    master.data_directory = "/master";
    master.port = 5001;
    master.started_at = "1";
    master.wal_level = "replica";
    master.max_wal_senders = 10;
    master.walsenders = 1;
    master.max_replication_slots = 10;
    master.standbys = {{"three", "streaming", "async", "10.0.0.3", ""}};
    return candidate;
}

void expect_refused(const Status& status, SqlState state, const std::string& message) {
    ASSERT_FALSE(status.ok()) << message;
    EXPECT_EQ(status.error().sqlstate, state);
    EXPECT_EQ(status.error().message, message);
    EXPECT_NE(status.error().hint, "");
}

constexpr SqlState not_ready = sqlstate::object_not_in_prerequisite_state;

TEST(CheckSlave, AcceptsASlaveOfItsMaster) {
    EXPECT_TRUE(check_slave(sample()).ok());
    EXPECT_TRUE(check_streaming(sample()).ok());
    EXPECT_TRUE(check_synchronous(sample()).ok());
    EXPECT_TRUE(registration_warnings(sample(), Replication::Synchronous).empty());
}

TEST(CheckSlave, RefusesAMaster) {
    auto candidate = sample();
    candidate.slave_facts.in_recovery = false;
    expect_refused(check_slave(candidate), not_ready,
                   "datanode 3 (slave:5003) is not a slave: it is not in recovery");
}

TEST(CheckSlave, RefusesTheMasterUnderAnotherAddress) {
    auto candidate = sample();
    candidate.slave_facts = candidate.master_facts;
    expect_refused(check_slave(candidate), sqlstate::unique_violation,
                   "slave:5003 leads to the same server as datanode 1 (master:5001)");
}

TEST(CheckSlave, RefusesACopyOfAnotherCluster) {
    auto candidate = sample();
    candidate.slave_facts.system_identifier = 43;
    expect_refused(check_slave(candidate), not_ready,
                   "datanode 3 (slave:5003) is not a copy of datanode 1 (master:5001)");
    EXPECT_EQ(check_slave(candidate).error().detail, "Their system identifiers are 43 and 42.");
}

TEST(CheckSlave, RefusesAMasterThatIsNone) {
    auto candidate = sample();
    candidate.master_facts.in_recovery = true;
    expect_refused(check_slave(candidate), not_ready,
                   "datanode 1 (master:5001) is registered as a master but is in recovery");
    candidate.master_is_slave = true;
    EXPECT_TRUE(check_slave(candidate).ok());
    candidate.master_facts.in_recovery = false;
    expect_refused(check_slave(candidate), not_ready,
                   "datanode 1 (master:5001) is registered as a slave but is not in recovery");
}

TEST(CheckSlave, RefusesAnotherUpstream) {
    auto candidate = sample();
    candidate.leads_to_master = false;
    candidate.slave_facts.upstream_host = "other";
    candidate.master_facts.standbys.clear();
    expect_refused(check_slave(candidate), not_ready,
                   "datanode 3 (slave:5003) streams from other:5001, not from datanode 1 (master:5001)");
    candidate.slave_facts.upstream_host.clear();
    candidate.slave_facts.upstream_port = 0;
    expect_refused(check_slave(candidate), not_ready, "datanode 3 (slave:5003) streams from nowhere");
}

TEST(CheckSlave, TrustsTheMastersListWhereAddressesSayNothing) {
    auto candidate = sample();
    candidate.leads_to_master = false;
    EXPECT_TRUE(check_slave(candidate).ok()) << "by its name";
    candidate.slave_facts.primary_slot_name = "slot_three";
    EXPECT_FALSE(check_slave(candidate).ok()) << "its slot isn't in use there";
    candidate.master_facts.standbys[0].slot_name = "slot_three";
    EXPECT_TRUE(check_slave(candidate).ok()) << "by its slot";
    candidate.leads_to_other = NodeKey{NodeType::Datanode, NodeId{7}};
    EXPECT_FALSE(check_slave(candidate).ok()) << "another node is known to be its master";
}

TEST(CheckSlave, ADefaultNameProvesNothing) {
    auto candidate = sample();
    candidate.leads_to_master = false;
    candidate.slave_facts.application_name.clear();
    candidate.master_facts.standbys[0].application_name = "walreceiver";
    EXPECT_FALSE(check_slave(candidate).ok());
    candidate.slave_facts.cluster_name = "15/main";
    candidate.master_facts.standbys[0].application_name = "15/main";
    EXPECT_FALSE(check_slave(candidate).ok());
}

TEST(CheckStreaming, RefusesASlaveThatIsCutOff) {
    auto candidate = sample();
    candidate.slave_facts.streaming = false;
    expect_refused(check_streaming(candidate), not_ready,
                   "datanode 3 (slave:5003) does not stream from datanode 1 (master:5001)");
}

TEST(CheckMaster, RefusesASlave) {
    const NodeKey key{NodeType::Datanode, NodeId{1}};
    EXPECT_TRUE(check_master(key, {"m", 1}, sample().master_facts).ok());
    expect_refused(check_master(key, {"m", 1}, sample().slave_facts), not_ready,
                   "datanode 1 (m:1) is not a master: it is in recovery");
}

TEST(CheckNewMaster, LooksAtTheClusterButNotAtTheStream) {
    auto candidate = sample();
    candidate.leads_to_master = false;
    candidate.slave_facts.streaming = false;
    candidate.master_facts.standbys.clear();
    EXPECT_TRUE(check_new_master(candidate).ok());
    candidate.slave_facts.system_identifier = 43;
    EXPECT_FALSE(check_new_master(candidate).ok());
}

TEST(ReplicationSeen, IsWhatTheMasterSays) {
    auto candidate = sample();
    EXPECT_EQ(replication_seen(candidate), Replication::Asynchronous);
    for (const char* state : {"sync", "quorum", "potential"}) {
        candidate.master_facts.standbys[0].sync_state = state;
        EXPECT_EQ(replication_seen(candidate), Replication::Synchronous) << state;
    }
    candidate.slave_facts.application_name = "THREE";
    EXPECT_EQ(replication_seen(candidate), Replication::Synchronous) << "names match in any letter case";
}

TEST(ReplicationSeen, PromisesNothingWhereStreamsShareAName) {
    auto candidate = sample();
    candidate.master_facts.standbys[0].sync_state = "sync";
    candidate.master_facts.standbys.push_back({"three", "streaming", "async", "10.0.0.4", ""});
    EXPECT_EQ(replication_seen(candidate), Replication::Asynchronous);
    EXPECT_EQ(stream_of(candidate), nullptr);
    candidate.master_facts.standbys.clear();
    EXPECT_EQ(replication_seen(candidate), Replication::Asynchronous);
}

TEST(CheckSynchronous, NamesWhatIsMissing) {
    const auto refused = [](auto change, SqlState state, const std::string& message) {
        auto candidate = sample();
        change(candidate);
        expect_refused(check_synchronous(candidate), state, message);
    };
    refused([](auto& c) { c.master_facts.superuser_login = false; }, sqlstate::insufficient_privilege,
            "pgxc.node_user is not a superuser on datanode 1 (master:5001)");
    refused([](auto& c) { c.slave_facts.superuser_login = false; }, sqlstate::insufficient_privilege,
            "pgxc.node_user is not a superuser on datanode 3 (slave:5003)");
    refused([](auto& c) { c.slave_facts.allow_alter_system = false; }, not_ready,
            "allow_alter_system is off on datanode 3 (slave:5003)");
    refused([](auto& c) { c.master_facts.wal_level = "minimal"; }, not_ready,
            "wal_level of datanode 1 (master:5001) is minimal");
    refused([](auto& c) { c.master_facts.max_wal_senders = 0; }, not_ready,
            "no WAL sender of datanode 1 (master:5001) is free: max_wal_senders is 0");
    refused([](auto& c) { c.master_facts.max_replication_slots = 0; }, not_ready,
            "no replication slot of datanode 1 (master:5001) is free: max_replication_slots is 0");
}

TEST(CheckSynchronous, CountsWhatTheSlaveHasAlready) {
    auto candidate = sample();
    candidate.master_facts.max_wal_senders = 1;
    EXPECT_TRUE(check_synchronous(candidate).ok()) << "its own stream is the one that is in use";
    candidate.master_facts.replication_slots = 10;
    EXPECT_FALSE(check_synchronous(candidate).ok());
    candidate.slave_facts.primary_slot_name = "slot_three";
    candidate.master_facts.standbys[0].slot_name = "slot_three";
    EXPECT_TRUE(check_synchronous(candidate).ok()) << "it has a slot";
}

/// A slave of 11 whose files are on another host.
SlaveCandidate out_of_reach() {
    auto candidate = sample();
    candidate.slave_facts.server_version_num = 110022;
    candidate.counting_name = "pgxc_d_3_e4";
    candidate.files_out_of_reach =
        Error(not_ready, "node at slave:5003 runs PostgreSQL 11", "", "It is not on this host.");
    return candidate;
}

TEST(CheckSynchronous, TellsWhatToWriteByHandWhereFilesAreOutOfReach) {
    auto candidate = out_of_reach();
    auto refused = check_synchronous(candidate);
    expect_refused(refused, not_ready, "node at slave:5003 runs PostgreSQL 11");
    EXPECT_EQ(refused.error().detail, "It is not on this host.");
    for (const char* words :
         {"recovery.conf of datanode 3 (slave:5003)", "primary_slot_name = 'pgxc_d_3_e4'",
          "application_name=pgxc_d_3_e4", "recovery_target_timeline = 'latest'",
          "on datanode 1 (master:5001) SELECT pg_create_physical_replication_slot('pgxc_d_3_e4', true)"})
        EXPECT_NE(refused.error().hint.find(words), std::string::npos) << words;

    candidate.slave_facts.server_version_num = 120022;
    refused = check_synchronous(candidate);
    EXPECT_NE(refused.error().hint.find("postgresql.auto.conf of"), std::string::npos);
    EXPECT_EQ(refused.error().hint.find("recovery_target_timeline"), std::string::npos);
}

TEST(CheckSynchronous, AcceptsWhatWasWrittenByHand) {
    auto candidate = out_of_reach();
    candidate.slave_facts.application_name = "pgxc_d_3_e4";
    EXPECT_FALSE(check_synchronous(candidate).ok()) << "without a slot of its own";
    candidate.slave_facts.primary_slot_name = "pgxc_d_3_e4";
    candidate.master_facts.standbys = {{"pgxc_d_3_e4", "streaming", "async", "10.0.0.3", "pgxc_d_3_e4"}};
    EXPECT_TRUE(check_synchronous(candidate).ok());
    candidate.counting_name = "pgxc_d_3_e5";
    EXPECT_FALSE(check_synchronous(candidate).ok()) << "the name of an older epoch";
}

TEST(Warnings, SayWhatWorksLessWell) {
    auto candidate = out_of_reach();
    candidate.master_facts.server_version_num = 110022;
    candidate.master_facts.rewind_possible = false;
    const auto warnings = registration_warnings(candidate, Replication::Synchronous);
    ASSERT_EQ(warnings.size(), 3U);
    EXPECT_EQ(warnings[0].message, "no automatic failover to datanode 3, which runs PostgreSQL 11.22");
    EXPECT_NE(warnings[1].message.find("do not wait"), std::string::npos);
    EXPECT_NE(warnings[2].hint.find("wal_log_hints"), std::string::npos);
    const auto asynchronous = registration_warnings(candidate, Replication::Asynchronous);
    ASSERT_EQ(asynchronous.size(), 2U);
    EXPECT_NE(asynchronous[0].message.find("does not follow a new master"), std::string::npos);

    candidate.files_out_of_reach.reset();
    EXPECT_EQ(registration_warnings(candidate, Replication::Synchronous).size(), 2U)
        << "within reach a slave of 11 is as good as another";
}

TEST(Warnings, KnowTheReleasesThatWereCorrected) {
    for (const int bad : {100023, 120022, 130020, 140017, 150012, 160008, 170004})
        EXPECT_TRUE(commits_may_not_wait_after_start(bad)) << bad;
    for (const int good : {130021, 140018, 150013, 150020, 160009, 170005, 180000})
        EXPECT_FALSE(commits_may_not_wait_after_start(good)) << good;
}

}  // namespace
}  // namespace pgxc
