#include <algorithm>
#include <asio/use_awaitable.hpp>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "replication/library_call.h"
#include "replication/node_group.h"
#include "replication/sync_standbys.h"

// A group's replaced masters on their way back (DESIGN 6.4). The work on their files is a coroutine of its
// own (rejoin.h); what is decided about them, and what is done through SQL, is done here by the group's.

namespace pgxc {
namespace {

/// After a look that changed nothing the next one waits this long, twice as long each time.
constexpr Millis first_patience{250};
constexpr Millis longest_patience{5'000};
/// A slave that was started has this long to find its stream.
constexpr Millis stream_patience{15'000};
/// And this long to replay what makes it consistent, while nothing tells that it can't.
constexpr Millis starting_patience{600'000};

asio::awaitable<Status> claim_stands(Arbiter* arbiter, NodeKey group, std::uint64_t claim,
                                     std::string owner) {
    auto record = co_await arbiter->read(group);
    if (!record.ok()) co_return record.error();
    if (record->claim != claim || record->claim_owner != owner)
        co_return Error{sqlstate::object_not_in_prerequisite_state,
                        group.to_string() + ": the group has been claimed anew"};
    co_return Status{};
}

bool streams_from(const ServerFacts& facts, const Record& record) {
    return facts.streaming() && facts.timeline.value() == record.timeline &&
           facts.sender_port == record.master.port;
}

}  // namespace

void NodeGroup::note_former(Record& next, const PendingPromotion& pending) const {
    FormerMaster former;
    former.id = pending.promoted_id;
    former.address = pending.old_master;
    // Its port is taken over: the promoted slave's is free then.
    if (former.address == next.master) former.address.port = pending.listens_at.port;
    const Node* promoted = surroundings_.topology().find(NodeKey{key_.type, pending.promoted_id});
    if (promoted != nullptr && promoted->replication != Replication::None)
        former.replication = promoted->replication;
    former.place = record_->place;
    former.timeline = record_->timeline;
    if (pending.lost_wal_bytes != 0)
        former.keep_because =
            "it may have commits that the slave which replaced it lacks: look at them before it is rewound";
    std::erase_if(next.formers, [&](const FormerMaster& other) {
        return other.address == former.address || other.address == next.master ||
               other.address == pending.listens_at || other.id == former.id;
    });
    if (next.formers.size() >= limits::max_former_masters) next.formers.erase(next.formers.begin());
    next.lines.try_emplace(former.address.to_string(), record_->epoch.value());
    next.formers.push_back(std::move(former));
    next.place = {};
}

std::string NodeGroup::why_not_back(const FormerMaster& former) const {
    const auto at = returning_.find(former.address);
    return at != returning_.end() ? at->second.why : std::string{};
}

asio::awaitable<void> NodeGroup::note_place() {
    auto master = co_await session(record_->master);
    if (!master.ok()) co_return;
    auto told = co_await (*master)->run(
        "SELECT current_setting('data_directory'), current_setting('config_file'), "
        "current_setting('pgxc.node_answer', true) IS NOT NULL",
        effect_timeout);
    // A login that may not see them: then nobody but its administrator can bring this one back.
    if (!told.ok()) co_return;
    ServerPlace place;
    place.data_directory = told->text(0);
    place.config_file = told->text(1);
    place.library = told->text(2) == "t";
    if (record_->place == place) co_return;
    Record next = *record_;
    ++next.generation;
    next.place = std::move(place);
    if (Status kept = co_await replace_record(std::move(next)); !kept.ok())
        log_warning(key_.to_string() + ": " + kept.error().message);
}

asio::awaitable<Status> NodeGroup::forget_former(HostPort address) {
    Record next = *record_;
    ++next.generation;
    std::erase_if(next.formers, [&](const FormerMaster& former) { return former.address == address; });
    const auto back = returning_.find(address);
    if (back != returning_.end()) {
        if (back->second.work) back->second.work->stop();
        returning_.erase(back);
    }
    co_return co_await replace_record(std::move(next));
}

asio::awaitable<Status> NodeGroup::register_former(FormerMaster former) {
    auto server = co_await session(former.address);
    if (!server.ok()) co_return server.error();
    // Of the slaves that it had as the master: nobody reads from them, and they hold back its WAL.
    std::vector<std::string> none;
    if (Status dropped = co_await drop_stale_slots(**server, std::move(none)); !dropped.ok())
        co_return dropped;
    NewSlave slave;
    slave.key = {key_.type, former.id};
    slave.address = former.address;
    slave.master = key_.id;
    slave.replication = former.replication;
    if (Status published = environment_.publish_rejoin(slave); !published.ok()) co_return published;
    environment_.crash_point("former registered");
    surroundings_.reload_topology();
    log_info(key_.to_string() + ": the former master at " + former.address.to_string() + " is its slave " +
             std::to_string(former.id.value()) + " now");
    if (!former.place.data_directory.empty()) replication::RejoinFiles(former.place.data_directory).forget();
    if (former.place.library) {
        server = co_await session(former.address);
        if (server.ok()) {
            Status forgotten =
                co_await send_to_library(**server, node_request(NodeRequestKind::Forget, key_, *record_));
            if (!forgotten.ok()) log_info(key_.to_string() + ": " + forgotten.error().message);
        }
    }
    co_return co_await forget_former(former.address);
}

void NodeGroup::send_for(const FormerMaster& former, bool stream_failed) {
    Rejoin::Order order = rejoin_order(key_, *record_, former, environment_.settings().login);
    // How the one that took its place logged in is the next best to how it did itself.
    for (const HostPort& address : {record_->master, former.address}) {
        auto stored = environment_.stored_conninfo(address);
        if (stored.ok() && stored->has_value()) order.conninfo = **stored;
    }
    order.enabled = policy().rejoin;
    order.stream_failed = stream_failed;
    order.probe_timeout = policy().probe_timeout;
    std::function<asio::awaitable<Status>()> newest = [arbiter = &environment_.arbiter(), key = key_,
                                                       claim = record_->claim, owner = claim_token_] {
        return claim_stands(arbiter, key, claim, owner);
    };
    std::function<void()> changed = [weak = weak_from_this()] {
        if (const auto self = weak.lock()) self->wake();
    };
    Returning& back = returning_[former.address];
    back.epoch = record_->epoch;
    back.work = std::make_shared<Rejoin>(executor_, std::move(order), std::move(newest), std::move(changed));
    back.work->start();
}

asio::awaitable<void> NodeGroup::take_back() {
    if (gate_ != Gate::Open || record_->pending || record_->timeline == 0) co_return;
    const std::vector<FormerMaster> formers = record_->formers;
    for (auto back = returning_.begin(); back != returning_.end();) {
        const HostPort& address = back->first;
        const Returning& entry = back->second;
        const bool listed = std::any_of(formers.begin(), formers.end(), [&](const FormerMaster& former) {
            return former.address == address;
        });
        // Work for a master that was replaced meanwhile leads nowhere.
        if (entry.work && (!listed || entry.work->order().epoch != record_->epoch)) entry.work->stop();
        const bool stale = !listed || (entry.work && entry.work->order().epoch != record_->epoch);
        back = stale ? returning_.erase(back) : std::next(back);
    }
    for (const FormerMaster& former : formers) {
        Status settled = co_await take_back_one(former);
        if (!settled.ok()) {
            Returning& back = returning_[former.address];
            back.why = settled.error().message;
            log_warning(key_.to_string() + ": the former master at " + former.address.to_string() + ": " +
                        back.why);
        }
        if (!claimed_) co_return;
    }
}

asio::awaitable<Status> NodeGroup::take_back_one(FormerMaster former) {
    const Topology topology = surroundings_.topology();
    if (topology.find(former.address) != nullptr || topology.find(NodeKey{key_.type, former.id}) != nullptr) {
        // By us before the record could say so, or by somebody who has arranged otherwise.
        log_info(key_.to_string() + ": the former master at " + former.address.to_string() +
                 " is no longer waited for: its address or id is registered");
        co_return co_await forget_former(former.address);
    }
    const auto now = Clock::now();
    const auto seen = surroundings_.observations(key_);
    const auto found = seen.find(former.address);
    const Observation* server = found != seen.end() ? &found->second : nullptr;
    Returning& back = returning_[former.address];
    if (back.work && !back.work->finished()) {
        back.why = back.work->doing();
        surroundings_.view_changed();
        co_return Status{};
    }
    if (back.work) {
        back.why = back.work->doing();
        back.patience =
            back.work->succeeded() ? longest_patience : std::min(longest_patience, back.patience * 2);
        back.next_look = now + back.patience;
        // Its slot stays as long as it may still want it.
        back.keeps_slot = back.work->succeeded() || back.work->asked_library();
        back.work.reset();
        surroundings_.view_changed();
    }
    const bool answers = server != nullptr && server->silence == Silence::None && server->facts &&
                         !server->starting && !server->refuses_us;
    const bool ours = answers && server->facts->system_identifier == record_->system_identifier;
    if (ours && server->facts->in_recovery) {
        if (streams_from(*server->facts, *record_)) co_return co_await register_former(former);
        if (!back.no_stream_since) back.no_stream_since = now;
        back.why = "it runs as a slave, and doesn't stream from the new master yet";
        if (now - *back.no_stream_since < stream_patience || now < back.next_look) co_return Status{};
        back.no_stream_since.reset();
        if (!another_works(former.address)) send_for(former, true);
        co_return Status{};
    }
    if (server != nullptr && server->starting && back.keeps_slot) {
        back.why = "it starts as a slave: " + server->error;
        if (!back.no_stream_since) back.no_stream_since = now;
        // One that was pointed at a master which has been replaced since can't be told so before it is
        // consistent, and may never be.
        const Millis patience = back.epoch == record_->epoch ? starting_patience : stream_patience;
        if (now - *back.no_stream_since < patience || now < back.next_look) co_return Status{};
        back.no_stream_since.reset();
        if (!another_works(former.address)) send_for(former, true);
        co_return Status{};
    }
    back.no_stream_since.reset();
    // One that runs as a master is not left waiting.
    const bool appeared = ours && !std::exchange(back.was_there, true);
    if (!ours) back.was_there = false;
    if ((now < back.next_look && !appeared) || another_works(former.address)) co_return Status{};
    send_for(former, false);
    co_return Status{};
}

bool NodeGroup::another_works(const HostPort& address) const {
    return std::any_of(returning_.begin(), returning_.end(), [&](const auto& entry) {
        return entry.first != address && entry.second.work && !entry.second.work->finished();
    });
}

std::vector<std::string> NodeGroup::slots_of_formers() const {
    std::vector<std::string> names;
    for (const FormerMaster& former : record_->formers) {
        const auto back = returning_.find(former.address);
        // The library on its host makes the slot when it needs it, without telling.
        if (former.place.library ||
            (back != returning_.end() && (back->second.work || back->second.keeps_slot)))
            names.push_back(standby_name({key_.type, former.id}, record_->epoch));
    }
    return names;
}

void NodeGroup::end_rejoins() {
    for (auto& [address, back] : returning_)
        if (back.work) back.work->stop();
    returning_.clear();
}

}  // namespace pgxc
