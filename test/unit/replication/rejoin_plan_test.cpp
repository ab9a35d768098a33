#include "replication/rejoin_plan.h"

#include <gtest/gtest.h>

#include <functional>

namespace pgxc::replication {
namespace {

/// A killed master whose WAL is a beginning of the new one's, its files within reach.
RejoinFacts stopped() {
    RejoinFacts facts;
    facts.files_reachable = true;
    facts.of_this_system = true;
    facts.major_version = 15;
    facts.master_answers = true;
    facts.timeline = 1;
    facts.recorded_timeline = 1;
    facts.last_record = Lsn{0x3000100};
    facts.fork = Lsn{0x3000200};
    facts.wal_there = true;
    facts.can_rewind = true;
    return facts;
}

RejoinFacts running() {
    RejoinFacts facts = stopped();
    facts.runs = true;
    facts.answers = true;
    return facts;
}

struct Case {
    const char* name;
    RejoinFacts facts;
    RejoinStep step;
    const char* reason;  // a part of it
};

RejoinFacts with(RejoinFacts facts, const std::function<void(RejoinFacts&)>& change) {
    change(facts);
    return facts;
}

std::vector<Case> cases() {
    using F = RejoinFacts&;
    const auto at = [](RejoinStage stage, bool this_epoch) {
        return with(stopped(), [=](F f) {
            f.stage = stage;
            f.stage_of_this_epoch = this_epoch;
        });
    };
    return {
        {"a beginning goes straight", stopped(), RejoinStep::Prepare, "beginning"},
        {"the record at the fork is the new master's own",
         with(stopped(), [](F f) { f.last_record = f.fork; }), RejoinStep::Rewind, "behind"},
        {"diverged", with(stopped(), [](F f) { f.last_record = Lsn{0x4000000}; }), RejoinStep::Rewind,
         "0/4000000"},
        {"the end can't be told", with(stopped(), [](F f) { f.last_record.reset(); }), RejoinStep::Rewind,
         "can't be told"},
        {"diverged, no hints",
         with(stopped(),
              [](F f) {
                  f.last_record = f.fork;
                  f.can_rewind = false;
              }),
         RejoinStep::Copy, "wal_log_hints"},
        {"diverged, neither way",
         with(stopped(),
              [](F f) {
                  f.last_record = f.fork;
                  f.can_rewind = false;
                  f.copy_impossible_because = "it has tablespaces";
              }),
         RejoinStep::ByHand, "tablespaces"},
        {"the WAL to replay after a rewind is gone",
         with(stopped(),
              [](F f) {
                  f.last_record = f.fork;
                  f.wal_there = false;
              }),
         RejoinStep::Copy, "no WAL"},
        {"the WAL is gone", with(stopped(), [](F f) { f.wal_there = false; }), RejoinStep::Copy,
         "no WAL any more"},
        {"promoted by somebody", with(stopped(), [](F f) { f.timeline = 2; }), RejoinStep::Copy, "promoted"},
        {"no ancestor", with(stopped(), [](F f) { f.fork.reset(); }), RejoinStep::Copy, "no ancestor"},
        {"never proven", with(stopped(), [](F f) { f.recorded_timeline = 0; }), RejoinStep::Copy,
         "which line"},
        {"the new master is silent: no copy for that",
         with(stopped(),
              [](F f) {
                  f.master_answers = false;
                  f.fork.reset();
              }),
         RejoinStep::Wait, "doesn't answer"},
        {"processes left", with(stopped(), [](F f) { f.processes_left = true; }), RejoinStep::Wait, "ending"},
        {"off", with(stopped(), [](F f) { f.enabled = false; }), RejoinStep::ByHand, "pgxc.rejoin"},
        {"FORCE left commits", with(stopped(), [](F f) { f.keep_because = "look first"; }),
         RejoinStep::ByHand, "look first"},
        {"counts", with(running(), [](F f) { f.counted = true; }), RejoinStep::Wait, "evidence"},
        {"out of reach",
         with(stopped(),
              [](F f) {
                  f.files_reachable = false;
                  f.files_unreachable_because = "no such directory";
              }),
         RejoinStep::ByHand, "no such"},
        {"out of reach, the library answers",
         with(running(),
              [](F f) {
                  f.files_reachable = false;
                  f.library_answers = true;
              }),
         RejoinStep::AskLibrary, "the library on its host"},
        {"out of reach, its library doesn't run",
         with(stopped(),
              [](F f) {
                  f.files_reachable = false;
                  f.files_unreachable_because = "no such directory";
                  f.library_is_known = true;
              }),
         RejoinStep::Wait, "start it there"},
        {"within reach, nobody is asked", with(stopped(), [](F f) { f.library_answers = true; }),
         RejoinStep::Prepare, "beginning"},
        {"the master's own", with(running(), [](F f) { f.is_the_masters = true; }), RejoinStep::Wait,
         "present"},
        {"another cluster's", with(running(), [](F f) { f.of_this_system = false; }), RejoinStep::ByHand,
         "another cluster"},
        {"too old", with(stopped(), [](F f) { f.major_version = 12; }), RejoinStep::ByHand, "older"},
        {"systemd", with(running(), [](F f) { f.managed_by = "systemd as pg.service"; }), RejoinStep::ByHand,
         "systemd"},
        {"fixed port", with(stopped(), [](F f) { f.port_fixed_by = "its command line"; }), RejoinStep::ByHand,
         "command line"},
        {"runs as a master", running(), RejoinStep::Stop, "as a master"},
        {"runs, has written nothing more", with(running(), [](F f) { f.within_line = true; }),
         RejoinStep::StopNow, "no WAL"},
        {"frozen", with(running(), [](F f) { f.answers = false; }), RejoinStep::Wait, "doesn't answer"},
        {"runs as a slave", with(running(), [](F f) { f.standby_signal = true; }), RejoinStep::Done, "slave"},
        {"ours, without a stream",
         with(running(),
              [](F f) {
                  f.standby_signal = true;
                  f.stream_failed = true;
                  f.stage = RejoinStage::Prepared;
              }),
         RejoinStep::Stop, "can't stream"},
        {"somebody's, without a stream",
         with(running(),
              [](F f) {
                  f.standby_signal = true;
                  f.stream_failed = true;
              }),
         RejoinStep::Wait, "somebody else"},
        {"somebody's, stopped", with(stopped(), [](F f) { f.standby_signal = true; }), RejoinStep::Wait,
         "somebody else"},
        {"rewind was interrupted", at(RejoinStage::Rewinding, true), RejoinStep::Copy,
         "did not come to its end"},
        {"rewound", at(RejoinStage::Rewound, true), RejoinStep::Prepare, "rewound"},
        {"rewound to a line that ended", at(RejoinStage::Rewound, false), RejoinStep::Copy,
         "line that ended"},
        {"broken", at(RejoinStage::Broken, true), RejoinStep::Copy, "no slave"},
        {"copied", at(RejoinStage::Copied, true), RejoinStep::PutCopyInPlace, "complete copy"},
        {"copied from a line that ended", at(RejoinStage::Copied, false), RejoinStep::Copy,
         "line that ended"},
        {"between the two renames",
         with(at(RejoinStage::Copied, true),
              [](F f) {
                  f.files_reachable = false;
                  f.directory_missing = true;
              }),
         RejoinStep::PutCopyInPlace, "complete copy"},
        {"prepared", with(at(RejoinStage::Prepared, true), [](F f) { f.standby_signal = true; }),
         RejoinStep::Start, "slave's"},
        {"prepared, its signal file gone", at(RejoinStage::Prepared, true), RejoinStep::Prepare, "beginning"},
        {"prepared for another master",
         with(at(RejoinStage::Prepared, false), [](F f) { f.standby_signal = true; }), RejoinStep::Prepare,
         "beginning"},
    };
}

TEST(RejoinPlan, DecidesEachCaseWithItsReason) {
    for (const Case& one : cases()) {
        const RejoinDecision decision = plan_rejoin(one.facts);
        EXPECT_EQ(decision.step, one.step) << one.name << ": " << decision.reason;
        EXPECT_NE(decision.reason.find(one.reason), std::string::npos) << one.name << ": " << decision.reason;
    }
}

TEST(RejoinPlan, NothingIsDoneToFilesThatItMustNotTouch) {
    // Whatever else is true.
    for (const Case& one : cases()) {
        for (int rule = 0; rule < 6; ++rule) {
            RejoinFacts facts = one.facts;
            if (rule == 0) facts.enabled = false;
            if (rule == 1) facts.keep_because = "kept";
            if (rule == 2) facts.counted = true;
            if (rule == 3) facts.is_the_masters = true;
            if (rule == 4) facts.of_this_system = false;
            if (rule == 5) facts.managed_by = "systemd";
            // Where there is no directory nothing of it can be known.
            if (rule >= 3 && !facts.files_reachable) continue;
            const RejoinStep step = plan_rejoin(facts).step;
            EXPECT_TRUE(step == RejoinStep::Wait || step == RejoinStep::ByHand)
                << one.name << ", rule " << rule;
        }
    }
}

TEST(RejoinPlan, TheLibraryIsNotAskedForWhatMustNotBeDone) {
    RejoinFacts facts;
    facts.library_answers = true;
    facts.library_is_known = true;
    ASSERT_EQ(plan_rejoin(facts).step, RejoinStep::AskLibrary);
    facts.enabled = false;
    EXPECT_EQ(plan_rejoin(facts).step, RejoinStep::ByHand);
    facts.enabled = true;
    facts.keep_because = "kept";
    EXPECT_EQ(plan_rejoin(facts).step, RejoinStep::ByHand);
    facts.keep_because.clear();
    facts.counted = true;
    EXPECT_EQ(plan_rejoin(facts).step, RejoinStep::Wait);
}

TEST(RejoinPlan, NamesTheCommand) {
    RejoinByHand by_hand{"/data/pg", {"10.0.0.2", 5433}, "postgres", "app", false};
    EXPECT_EQ(
        rejoin_command(by_hand),
        "pg_ctl stop -D /data/pg -m fast; psql 'host=10.0.0.2 port=5433 user=postgres dbname=app' -c "
        "CHECKPOINT "
        "&& pg_rewind -D /data/pg -R --source-server='host=10.0.0.2 port=5433 user=postgres dbname=app' && "
        "pg_ctl start -D /data/pg");
    by_hand.copy = true;
    EXPECT_NE(rejoin_command(by_hand).find("pg_basebackup -D /data/pg -R"), std::string::npos);
    by_hand.data_directory.clear();
    EXPECT_NE(rejoin_command(by_hand).find("DATA_DIRECTORY"), std::string::npos);
}

}  // namespace
}  // namespace pgxc::replication
