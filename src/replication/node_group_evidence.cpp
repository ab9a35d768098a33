#include "replication/node_group.h"

namespace pgxc {

void NodeGroup::note(const char* decision, const std::string& reason) {
    const auto same = [&](const Evidence& last) {
        return last.decision == decision && last.epoch == record_->epoch &&
               same_but_for_figures(last.reason, reason);
    };
    if (last_evidence_ && same(*last_evidence_)) return;
    Evidence evidence;
    evidence.at = std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
    evidence.group = key_;
    evidence.epoch = record_->epoch;
    evidence.decision = decision;
    evidence.reason = reason;
    evidence.facts = evidence_facts(*record_, surroundings_.observations(key_), Clock::now());
    last_evidence_ = evidence;
    evidence_.push_back(std::move(evidence));
}

bool NodeGroup::refused_before(const std::string& cause) const {
    if (!last_evidence_ || last_evidence_->decision != decision_no_failover) return false;
    const std::string& told = last_evidence_->reason;
    return told.size() > cause.size() && same_but_for_figures(told.substr(0, told.find(';')), cause);
}

void NodeGroup::note_judgement(const Judgement& judgement, const std::map<HostPort, Observation>& seen) {
    const auto master = seen.find(record_->master);
    switch (judgement.verdict) {
        case Verdict::Alive:
            // Only where it was in doubt: calm is no decision.
            if (last_evidence_ && last_evidence_->decision == decision_wait)
                note(decision_alive, "the master answers again: nothing was done");
            else if (last_evidence_ && last_evidence_->decision == decision_no_failover)
                note(decision_alive, "the master answers again");
            return;
        case Verdict::Wait:
            if (master != seen.end() && (master->second.silence != Silence::None || master->second.starting))
                note(decision_wait, judgement.reason);
            return;
        case Verdict::Dead:
            if (!policy().failover)
                note(decision_no_failover, judgement.reason + "; pgxc.failover is off");
            else if (!refused_before(judgement.reason))
                note(decision_fail_over, judgement.reason);
            return;
    }
}

void NodeGroup::keep_evidence() {
    if (evidence_.empty()) return;
    environment_.keep_evidence(std::exchange(evidence_, {}));
}

}  // namespace pgxc
