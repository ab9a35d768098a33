#include <algorithm>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <utility>

#include "base/log.h"
#include "net/side_by_side.h"
#include "replication/conninfo.h"
#include "replication/node_group.h"
#include "replication/sync_standbys.h"

// What is done to several slaves side by side: looking whether their streams can be cut, cutting them, and
// giving them the new master's. Where enough are done (rule 3) those that hang are left: they count for
// nothing then, and are found and taken up again in calm times. What a fence has changed is given back later.

namespace pgxc {
namespace {

/// Those that are not needed have as long again as the others took, and at least this long.
constexpr Millis grace{150};
/// Those that the gate doesn't need are pointed when it is open; no later than this, in case it waits for one
/// of the others.
constexpr Millis spares_wait{100};
/// What a slave may take for writing down whom it follows, however short the detection is: its disk may be
/// slow.
constexpr Millis least_patience{1'000};
/// Settings that could not be given back are tried again after this.
constexpr Millis give_back_retry{5'000};

Millis longer_than(TimePoint began) {
    return std::max(grace, std::chrono::floor<Millis>(Clock::now() - began));
}

}  // namespace

NodeGroup::Patience NodeGroup::patience_for(const std::optional<HostPort>& chosen) {
    return [this, chosen](const std::vector<FencedPosition>& those) -> std::optional<Millis> {
        switch (enough_to_go_on(*record_, those, chosen, surroundings_.topology(), policy())) {
            case Enough::No:
                break;
            case Enough::ButNobodyLeft:
                return policy().probe_timeout;
            case Enough::Yes:
                return Millis(0);
        }
        return std::nullopt;
    };
}

std::shared_ptr<NodeGroup::SideBySide> NodeGroup::side_by_side(const std::vector<Member>& members) const {
    auto slaves = std::make_shared<SideBySide>();
    for (const Member& member : members) slaves->all.emplace_back().member = member;
    return slaves;
}

asio::awaitable<void> NodeGroup::run_side_by_side(std::shared_ptr<SideBySide> slaves, Deed deed,
                                                  std::function<std::optional<Millis>()> patience) {
    std::vector<net::Task> tasks;
    for (std::size_t which = 0; which < slaves->all.size(); ++which)
        tasks.emplace_back(
            [self = shared_from_this(), slaves, deed, which] { return (self.get()->*deed)(slaves, which); });
    std::function<std::optional<Millis>()> at_least = [slaves, patience]() -> std::optional<Millis> {
        const auto longer = patience();
        if (!longer) return std::nullopt;
        return std::max(*longer, longer_than(slaves->began));
    };
    co_await net::side_by_side(std::move(tasks), std::move(at_least));
    for (std::size_t which = 0; which < slaves->all.size(); ++which) {
        SideBySide::Each& one = slaves->all[which];
        if (one.ended) {
            if (one.by_restart) {
                // A session that is held may go on answering while its server hangs: only a new one tells
                // before a restart's time-outs do.
                sessions_.erase(one.member.address);
                co_await (this->*deed)(slaves, which);
            }
            continue;
        }
        sessions_.erase(one.member.address);
        one.trouble = "node at " + one.member.address.to_string() +
                      " did not answer in time; the others are enough without it";
        log_warning(key_.to_string() + ": " + one.trouble);
    }
}

std::vector<FencedPosition> NodeGroup::positions_of(const std::vector<Candidate>& fenced) const {
    std::vector<FencedPosition> positions;
    positions.reserve(fenced.size());
    for (const Candidate& candidate : fenced)
        positions.push_back({candidate.member.address, record_->line_of(candidate.member.address),
                             candidate.result.end.position});
    return positions;
}

std::vector<FencedPosition> NodeGroup::positions_expected_of(const std::vector<Member>& members) const {
    std::vector<FencedPosition> expected;
    expected.reserve(members.size());
    for (const Member& member : members)
        expected.push_back({member.address, record_->line_of(member.address), Lsn{}});
    return expected;
}

asio::awaitable<void> NodeGroup::look_at_one(std::shared_ptr<SideBySide> slaves, std::size_t which) {
    SideBySide::Each& one = slaves->all[which];
    auto slave = co_await session(one.member.address);
    if (slave.ok()) {
        Status can = co_await can_cut_stream(**slave);
        one.done = can.ok();
        if (!can.ok()) {
            one.trouble = can.error().message;
            if (!can.error().detail.empty()) one.trouble += ": " + can.error().detail;
        }
    }
    one.ended = true;
}

asio::awaitable<std::vector<Member>> NodeGroup::members_within_reach(std::vector<Member> members,
                                                                     Patience patience,
                                                                     std::string* trouble) {
    const auto slaves = side_by_side(members);
    const auto within_reach = [](const SideBySide& those) {
        std::vector<Member> reachable;
        for (const SideBySide::Each& one : those.all)
            if (one.done) reachable.push_back(one.member);
        return reachable;
    };
    std::function<std::optional<Millis>()> enough = [this, slaves, patience, within_reach] {
        return patience(positions_expected_of(within_reach(*slaves)));
    };
    co_await run_side_by_side(slaves, &NodeGroup::look_at_one, std::move(enough));
    for (const SideBySide::Each& one : slaves->all)
        if (!one.trouble.empty()) *trouble += (trouble->empty() ? "" : "; ") + one.trouble;
    co_return within_reach(*slaves);
}

asio::awaitable<void> NodeGroup::fence_one(std::shared_ptr<SideBySide> slaves, std::size_t which) {
    SideBySide::Each& one = slaves->all[which];
    const Member member = one.member;
    auto slave = co_await session(member.address);
    if (!slave.ok()) {
        one.ended = true;
        one.trouble = "can't fence " + member.address.to_string() + ": " + slave.error().message;
        log_warning(key_.to_string() + ": " + one.trouble);
        co_return;
    }
    if (!one.ended && reads_stream_at_start(**slave)) {
        one.by_restart = true;
        one.ended = true;
        co_return;
    }
    // Any name that is recorded for this address, and the catalog's: ALTER ... ID TO renames before it
    // records.
    std::vector<std::string> names;
    if (!member.name.empty()) {
        for (const Configuration& configuration : record_->configurations)
            if (const Member* known = configuration.find(member.address)) names.push_back(known->name);
        if (const Node* node = surroundings_.topology().find(member.address))
            names.push_back(standby_name(node->key, record_->epoch));
    }
    std::function<void(const FenceResult&)> on_cut = [slaves, which](const FenceResult& so_far) {
        SideBySide::Each& cut = slaves->all[which];
        cut.cut = Candidate{cut.member, so_far};
    };
    auto result = co_await cut_stream(member.address, std::move(names), fence_timeout, std::move(on_cut));
    one.ended = true;
    if (!result.ok()) {
        one.trouble = "can't fence " + member.address.to_string() + ": " + result.error().message;
        log_warning(key_.to_string() + ": " + one.trouble);
        co_return;
    }
    log_info(key_.to_string() + ": fenced " + member.address.to_string() + " at " +
             result->end.position.to_string() + " of timeline " +
             std::to_string(result->end.timeline.value()));
    if (!member.name.empty() && has_forgotten(member.address, result->end.position)) co_return;
    one.cut = Candidate{member, *result};
    one.done = true;
    environment_.crash_point("one fenced");
}

asio::awaitable<NodeGroup::Fences> NodeGroup::fence_members(std::vector<Member> members, Patience patience) {
    const auto slaves = side_by_side(members);
    const auto proven = [](const SideBySide& those) {
        std::vector<Candidate> fenced;
        for (const SideBySide::Each& one : those.all)
            if (one.done) fenced.push_back(*one.cut);
        return fenced;
    };
    std::function<std::optional<Millis>()> enough = [this, slaves, patience, proven] {
        return patience(positions_of(proven(*slaves)));
    };
    co_await run_side_by_side(slaves, &NodeGroup::fence_one, std::move(enough));
    Fences fences;
    fences.proven = proven(*slaves);
    for (const SideBySide::Each& one : slaves->all) {
        if (!one.done && one.cut) fences.begun.push_back(*one.cut);
        if (!one.trouble.empty()) fences.trouble += (fences.trouble.empty() ? "" : "; ") + one.trouble;
    }
    co_return fences;
}

asio::awaitable<Status> NodeGroup::keep_before_cut(HostPort slave, FenceResult found,
                                                   std::function<void(const FenceResult&)> on_cut) {
    if (!found.conninfo.empty()) {
        Status stored = environment_.store_conninfo(slave, found.conninfo);
        environment_.crash_point("conninfo stored");
        if (!stored.ok()) co_return stored;
    }
    // Of those that are fenced side by side one changes the record at a time.
    while (const auto other = keeping_) co_await other->wait();
    Record next = *record_;
    ++next.generation;
    // What is there already was so before an earlier fence.
    if (!found.changed.empty())
        next.to_give_back[slave.to_string()].insert(found.changed.begin(), found.changed.end());
    if (next.to_give_back != record_->to_give_back) {
        keeping_ = std::make_shared<net::Event>(executor_);
        const std::shared_ptr<void> end(nullptr,
                                        [this](void*) { std::exchange(keeping_, nullptr)->happen(); });
        Status kept = co_await replace_record(std::move(next));
        if (!kept.ok()) co_return kept;
    }
    if (on_cut) on_cut(found);
    co_return Status{};
}

std::map<std::string, std::string> NodeGroup::changed_on(const HostPort& slave) const {
    std::map<std::string, std::string> settings;
    const auto changed = record_->to_give_back.find(slave.to_string());
    if (changed != record_->to_give_back.end())
        for (const auto& [name, value] : changed->second)
            if (value) settings[name] = *value;
    return settings;
}

asio::awaitable<void> NodeGroup::undo_fences(const Fences& fences, Epoch epoch) {
    // Under the same claim, and only towards the record's master (rule 10): if a decision was recorded
    // meanwhile, these fences may be what it stands on.
    if (Status mine = co_await still_claimed(); !mine.ok()) co_return;
    if (record_->pending || record_->epoch != epoch) co_return;
    std::vector<HostPort> given_back;
    std::vector<Candidate> cut = fences.proven;
    cut.insert(cut.end(), fences.begun.begin(), fences.begun.end());
    for (const Candidate& candidate : cut) {
        std::string conninfo = candidate.result.conninfo;
        if (conninfo.empty()) {
            auto stored = environment_.stored_conninfo(candidate.member.address);
            if (stored.ok() && stored->has_value()) conninfo = **stored;
        }
        // It may have pointed at an older master when it was fenced.
        auto target = conninfo_with(conninfo, conninfo_of(record_->master));
        if (!target.ok() || conninfo.empty()) continue;
        std::map<std::string, std::string> changed = changed_on(candidate.member.address);
        Status undone = co_await undo_cut(candidate.member.address, *target, std::move(changed));
        if (undone.ok())
            given_back.push_back(candidate.member.address);
        else
            log_warning(key_.to_string() + ": " + candidate.member.address.to_string() +
                        " stays fenced: " + undone.error().message);
        environment_.crash_point("one unfenced");
    }
    Record next = *record_;
    ++next.generation;
    for (const HostPort& slave : given_back) next.to_give_back.erase(slave.to_string());
    if (next.to_give_back == record_->to_give_back) co_return;
    // Else it is given back once more.
    (void)co_await replace_record(std::move(next));
}

asio::awaitable<void> NodeGroup::give_back() {
    const auto now = Clock::now();
    if (record_->to_give_back.empty() || (given_back_at_ && now - *given_back_at_ < give_back_retry))
        co_return;
    given_back_at_ = now;
    const auto seen = surroundings_.observations(key_);
    const auto begun = record_->to_give_back;
    for (const auto& [text, settings] : begun) {
        const auto address = HostPort::parse(text);
        const auto observation = address ? seen.find(*address) : seen.end();
        // One that nobody looks at is none of the group's any more.
        if (observation != seen.end()) {
            if (observation->second.silence != Silence::None) continue;
            auto server = co_await session(*address);
            if (!server.ok()) continue;
            SettingChanges changes(settings.begin(), settings.end());
            // Those went with recovery.conf.
            const int version = (*server)->server_version();
            std::erase_if(changes, [version](const auto& change) {
                return is_in_recovery_conf(version, change.first);
            });
            if (Status restored = co_await alter_system(**server, std::move(changes)); !restored.ok()) {
                log_warning(key_.to_string() + ": settings of " + text +
                            " are as a fence has left them: " + restored.error().message);
                continue;
            }
        }
        Record next = *record_;
        ++next.generation;
        next.to_give_back.erase(text);
        if (Status kept = co_await replace_record(std::move(next)); !kept.ok()) co_return;
    }
}

StreamPlan NodeGroup::plan_for(const Member& member) {
    auto stored = environment_.stored_conninfo(member.address);
    std::string conninfo = "user=" + environment_.settings().login.user;
    if (stored.ok() && stored->has_value()) conninfo = **stored;
    return {member.name, conninfo, record_->master, nobody_standby_names(record_->cluster_id)};
}

asio::awaitable<void> NodeGroup::point_one(std::shared_ptr<SideBySide> slaves, std::size_t which) {
    SideBySide::Each& one = slaves->all[which];
    Promoting& promoting = *slaves->promoting;
    if (which >= promoting.needed()) co_await promoting.spares_wanted.wait();
    const StreamPlan plan = plan_for(one.member);
    auto slave = co_await session(one.member.address);
    Status follows;
    if (!slave.ok()) {
        follows = slave.error();
    } else if (!reads_stream_at_start(**slave)) {
        // One that is silent for so long counts as dead, and the new master is not to wait longer for it.
        const Millis patience = std::clamp(policy().detection_time(), least_patience, effect_timeout);
        follows = co_await write_stream(**slave, plan, patience);
        co_await promoting.slots_made[which].wait();
        if (follows.ok()) follows = co_await reload(**slave, patience);
    } else if (!one.ended) {
        one.by_restart = true;
        one.ended = true;
        co_return;
    } else {
        // Some of what a fence has changed is read at the start only.
        std::map<std::string, std::string> settings = changed_on(one.member.address);
        follows = co_await give_stream(one.member.address, plan.master, plan, settings, Millis(0));
    }
    one.ended = true;
    one.done = follows.ok();
    if (!follows.ok()) {
        log_warning(key_.to_string() + ": " + follows.error().message);
        promoting.spares_wanted.happen();
    }
    if (slaves->done() >= promoting.needed()) promoting.enough_pointed.happen();
}

asio::awaitable<void> NodeGroup::point_followers(std::shared_ptr<Promoting> promoting) {
    const auto slaves = side_by_side(promoting->wanted.slaves);
    slaves->promoting = promoting;
    std::function<std::optional<Millis>()> enough = [slaves]() -> std::optional<Millis> {
        if (slaves->done() < slaves->promoting->needed()) return std::nullopt;
        return spares_wait + grace;
    };
    co_await run_side_by_side(slaves, &NodeGroup::point_one, std::move(enough));
}

asio::awaitable<void> NodeGroup::want_spares_later(std::shared_ptr<Promoting> promoting) {
    asio::steady_timer timer(co_await asio::this_coro::executor, spares_wait);
    std::error_code woken;
    co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, woken));
    promoting->spares_wanted.happen();
}

}  // namespace pgxc
