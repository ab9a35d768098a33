#include "replication/rejoin_plan.h"

#include <utility>

namespace pgxc::replication {
namespace {

/// pg_rewind recovers a crashed server by itself from 13 on, and primary_conninfo is reloadable.
constexpr int oldest_major_version = 13;

RejoinDecision copy(const RejoinFacts& facts, std::string why) {
    if (facts.copy_impossible_because.empty()) return {RejoinStep::Copy, std::move(why), false};
    return {RejoinStep::ByHand,
            std::move(why) + "; it can't be copied from here: " + facts.copy_impossible_because, true};
}

/// What forbids any work on its files.
std::optional<RejoinDecision> obstacle(const RejoinFacts& facts) {
    const auto by_hand = [](std::string why) {
        return RejoinDecision{RejoinStep::ByHand, std::move(why), false};
    };
    if (!facts.enabled) return by_hand("pgxc.rejoin is off");
    if (!facts.keep_because.empty()) return by_hand(facts.keep_because);
    if (facts.counted)
        return RejoinDecision{RejoinStep::Wait, "it is listed as a synchronous slave: its WAL is evidence",
                              false};
    // Between the two renames of a copy that is put in its place.
    if (facts.directory_missing && facts.stage == RejoinStage::Copied && facts.stage_of_this_epoch)
        return RejoinDecision{RejoinStep::PutCopyInPlace, "a complete copy is to be put in its place", false};
    if (!facts.files_reachable) {
        if (facts.library_answers)
            return RejoinDecision{RejoinStep::AskLibrary,
                                  "its files are out of reach: the library on its host makes a slave of it",
                                  false};
        if (facts.library_is_known)
            return RejoinDecision{RejoinStep::Wait,
                                  facts.files_unreachable_because +
                                      "; the library on its host makes a slave of it: start it there, unless "
                                      "that is being done",
                                  false};
        return by_hand(facts.files_unreachable_because);
    }
    if (facts.is_the_masters)
        return RejoinDecision{RejoinStep::Wait, "its recorded data directory is the present master's", false};
    if (!facts.of_this_system) return by_hand("its data directory belongs to another cluster now");
    if (facts.major_version < oldest_major_version)
        return by_hand("PostgreSQL " + std::to_string(facts.major_version) + " is older than " +
                       std::to_string(oldest_major_version));
    if (!facts.managed_by.empty()) return by_hand("it is run by " + facts.managed_by);
    if (!facts.port_fixed_by.empty())
        return by_hand("its port is the new master's now and is set by " + facts.port_fixed_by);
    return std::nullopt;
}

RejoinDecision plan_running(const RejoinFacts& facts) {
    if (facts.standby_signal) {
        if (!facts.stream_failed) return {RejoinStep::Done, "it runs as a slave", false};
        // Ours, or one that was being promoted and left behind: of a line that ended.
        if (facts.stage == RejoinStage::None && facts.recorded_timeline != 0)
            return {RejoinStep::Wait, "it was made a slave by somebody else, and doesn't stream", false};
        return {RejoinStep::Stop, "it runs as a slave that can't stream from the new master", false};
    }
    if (!facts.answers) return {RejoinStep::Wait, "it runs, but doesn't answer", false};
    if (facts.within_line)
        return {RejoinStep::StopNow, "it runs as a master, with no WAL that the new one lacks", false};
    return {RejoinStep::Stop, "it runs as a master", false};
}

RejoinDecision plan_by_line(const RejoinFacts& facts) {
    if (facts.recorded_timeline == 0) return copy(facts, "it is not known which line of WAL it belongs to");
    // Two promotions from one line can have the same number: what it wrote there is compared with nothing.
    if (facts.timeline > facts.recorded_timeline)
        return copy(facts, "it was promoted by somebody to timeline " + std::to_string(facts.timeline));
    if (facts.timeline != 0 && !facts.fork)
        return copy(facts,
                    "its timeline " + std::to_string(facts.timeline) + " is no ancestor of the new master's");
    if (facts.last_record && facts.fork && *facts.last_record < *facts.fork) {
        if (facts.wal_there)
            return {RejoinStep::Prepare, "its WAL is a beginning of the new master's", false};
        return copy(facts,
                    "the new master has no WAL any more from " + facts.last_record->to_string() + " on");
    }
    const std::string why = facts.last_record && facts.fork
                                ? "it has WAL at " + facts.last_record->to_string() +
                                      ", behind the new master's line, which left at " +
                                      facts.fork->to_string()
                                : "the end of its WAL can't be told";
    // pg_rewind doesn't miss it, the slave that comes of it would wait for it for ever: a master that is
    // itself a recent copy has none.
    if (facts.fork && !facts.wal_there)
        return copy(facts,
                    why + "; the new master has no WAL any more from " + facts.fork->to_string() + " on");
    if (facts.can_rewind) return {RejoinStep::Rewind, why, false};
    return copy(facts, why + "; pg_rewind needs wal_log_hints or data checksums, and its program");
}

}  // namespace

RejoinDecision plan_rejoin(const RejoinFacts& facts) {
    if (auto stops = obstacle(facts)) return *stops;
    if (facts.runs) return plan_running(facts);
    if (facts.processes_left) return {RejoinStep::Wait, "processes of it are still ending", false};
    if (!facts.master_answers) return {RejoinStep::Wait, "the new master doesn't answer", false};
    switch (facts.stage) {
        case RejoinStage::Rewinding:
            return copy(facts, "pg_rewind did not come to its end");
        case RejoinStage::Broken:
            return copy(facts, "no slave could be made of its files");
        case RejoinStage::Rewound:
            if (facts.stage_of_this_epoch) return {RejoinStep::Prepare, "it is rewound", false};
            return copy(facts, "it was rewound to a line that ended");
        case RejoinStage::Copied:
            if (facts.stage_of_this_epoch)
                return {RejoinStep::PutCopyInPlace, "a complete copy is to be put in its place", false};
            return copy(facts, "it was copied from a line that ended");
        case RejoinStage::Prepared:
            if (facts.standby_signal && facts.stage_of_this_epoch)
                return {RejoinStep::Start, "its files are a slave's", false};
            break;
        case RejoinStage::None:
            if (facts.standby_signal && facts.recorded_timeline != 0)
                return {RejoinStep::Wait, "it was made a slave by somebody else, and doesn't run", false};
            break;
    }
    return plan_by_line(facts);
}

std::string rejoin_command(const RejoinByHand& by_hand) {
    const std::string directory = by_hand.data_directory.empty() ? "DATA_DIRECTORY" : by_hand.data_directory;
    const std::string port = std::to_string(by_hand.master.port);
    const std::string source = "'host=" + by_hand.master.host + " port=" + port + " user=" + by_hand.user +
                               " dbname=" + by_hand.database + "'";
    if (by_hand.copy)
        return "pg_ctl stop -D " + directory + " -m fast; mv " + directory + " " + directory +
               ".old && pg_basebackup -D " + directory + " -R -c fast -d " + source;
    return "pg_ctl stop -D " + directory + " -m fast; psql " + source + " -c CHECKPOINT && pg_rewind -D " +
           directory + " -R --source-server=" + source + " && pg_ctl start -D " + directory;
}

}  // namespace pgxc::replication
