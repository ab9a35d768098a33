#include "replication/monitor.h"

#include <algorithm>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "catalog/topology_rules.h"
#include "replication/node_group.h"

namespace pgxc {
namespace {

/// Lag and positions change all the time; views follow them this often without any other event.
constexpr Millis view_interval{200};
/// How often the catalog is looked for where there is none yet, and read again in case a wake-up was missed.
constexpr Millis catalog_interval{1'000};
/// What only moves a position in calm times is told this much later, together.
constexpr Millis moved_interval{20};

}  // namespace

class Monitor::Impl : public NodeGroup::Surroundings {
  public:
    Impl(asio::io_context& context, MonitorEnvironment& environment, std::string claim_token)
        : context_(context),
          environment_(environment),
          claim_token_(std::move(claim_token)),
          view_timer_(context),
          catalog_timer_(context),
          moved_timer_(context) {}

    ~Impl() override { stop_all(); }

    void start() {
        reload_topology();
        tick_view();
        tick_catalog();
    }

    void reload_topology() override {
        auto read = environment_.topology();
        if (!read.ok()) {
            if (trouble_ != read.error().message) log_info("the monitor waits: " + read.error().message);
            trouble_ = read.error().message;
            // Anything but "there is no extension" passes (a lock on the catalog): the groups go on as they
            // are.
            if (read.error().sqlstate != sqlstate::undefined_object) return;
            stop_all();
            topology_ = Topology{};
            publish();
            return;
        }
        trouble_.clear();
        topology_ = std::move(*read);
        align_watches();
        align_groups();
        for (auto& [key, group] : groups_) group->wake();
        publish();
    }

    void settings_changed() {
        const MonitorSettings& settings = environment_.settings();
        const NodeWatch::Timing timing{settings.policy.probe_interval, settings.policy.probe_timeout};
        const bool same_login = login_.user == settings.login.user &&
                                login_.database == settings.login.database &&
                                login_.conninfo == settings.login.conninfo;
        if (!same_login) {
            for (auto& [address, watch] : watches_) watch->stop();
            watches_.clear();
        }
        for (auto& [address, watch] : watches_) watch->set_timing(timing);
        reload_topology();
    }

    void traffic_failed(NodeKey node) {
        const Node* known = topology_.find(node);
        if (known != nullptr) kick(known->address);
    }

    void submit(MonitorTask task) {
        // Whoever asks has just committed what it asks about.
        reload_topology();
        const Node* node = topology_.find(task.node);
        const Node* master = node != nullptr ? topology_.top_master_of(task.node) : nullptr;
        const auto group = master != nullptr ? groups_.find(master->key) : groups_.end();
        if (group != groups_.end()) {
            group->second->submit(std::move(task));
            return;
        }
        if (task.kind == MonitorTask::Kind::Settle) {
            environment_.finish_task(task.ticket, {}, {});
            return;
        }
        Error why{sqlstate::undefined_object, task.node.to_string() + " is not registered"};
        if (node != nullptr)
            why = Error{sqlstate::feature_not_supported,
                        task.node.to_string() + " can't be promoted by its own coordinator",
                        "A coordinator's slave is promoted by the other coordinators."};
        environment_.finish_task(task.ticket, why, {});
    }

    // NodeGroup::Surroundings
    const Topology& topology() const override { return topology_; }

    std::map<HostPort, Observation> observations(NodeKey key) const override {
        std::map<HostPort, Observation> seen;
        const auto add = [&](const HostPort& address) {
            const auto watch = watches_.find(address);
            if (watch != watches_.end()) seen.emplace(address, watch->second->seen());
        };
        for (const Node& node : topology_.nodes()) {
            const Node* master = topology_.top_master_of(node.key);
            if (master != nullptr && master->key == key) add(node.address);
        }
        const auto group = groups_.find(key);
        if (group == groups_.end() || !group->second->record()) return seen;
        const Record& record = *group->second->record();
        add(record.master);
        for (const Member& member : record.all_members()) add(member.address);
        for (const FormerMaster& former : record.formers) add(former.address);
        return seen;
    }

    void kick(const HostPort& address) override {
        const auto watch = watches_.find(address);
        if (watch != watches_.end()) watch->second->kick();
    }

    void view_changed() override {
        // A record may name servers that nobody has looked at yet.
        align_watches();
        publish();
    }

  private:
    bool is_own(const Node& node) const {
        return node.key.type == NodeType::Coordinator && node.key.id == environment_.settings().own_id;
    }

    /// Watches every node but this coordinator itself, and a recorded master that the catalog doesn't have
    /// yet.
    void align_watches() {
        const MonitorSettings& settings = environment_.settings();
        login_ = settings.login;
        std::set<HostPort> wanted;
        for (const Node& node : topology_.nodes())
            if (!is_own(node)) wanted.insert(node.address);
        for (const auto& [key, group] : groups_)
            if (group->record()) {
                wanted.insert(group->record()->master);
                for (const FormerMaster& former : group->record()->formers) wanted.insert(former.address);
            }
        for (auto watch = watches_.begin(); watch != watches_.end();) {
            if (wanted.contains(watch->first)) {
                ++watch;
            } else {
                told_.erase(watch->first);
                watch->second->stop();
                watch = watches_.erase(watch);
            }
        }
        const NodeWatch::Timing timing{settings.policy.probe_interval, settings.policy.probe_timeout};
        for (const HostPort& address : wanted) {
            if (watches_.contains(address)) continue;
            auto watch = std::make_shared<NodeWatch>(
                context_.get_executor(), ConnectTarget{address, settings.login, "pgxc_ha monitor"}, timing,
                [this, address] { node_changed(address); });
            watches_[address] = watch;
            watch->start();
        }
    }

    void align_groups() {
        std::set<NodeKey> wanted;
        for (const Node* master : topology_.masters(NodeType::Datanode)) wanted.insert(master->key);
        for (auto group = groups_.begin(); group != groups_.end();) {
            if (wanted.contains(group->first)) {
                ++group;
            } else {
                group->second->stop();
                group = groups_.erase(group);
            }
        }
        for (const NodeKey key : wanted) {
            if (groups_.contains(key)) continue;
            // A token per object: one that still ends a step must not be taken for its successor.
            const std::string token = claim_token_ + "-" + std::to_string(++groups_made_);
            auto group =
                std::make_shared<NodeGroup>(context_.get_executor(), key, token, environment_, *this);
            groups_[key] = group;
            group->start();
        }
    }

    void stop_all() {
        for (auto& [address, watch] : watches_) watch->stop();
        for (auto& [key, group] : groups_) group->stop();
        watches_.clear();
        groups_.clear();
    }

    void node_changed(const HostPort& address) {
        const auto watch = watches_.find(address);
        if (watch == watches_.end()) return;
        const Observation& seen = watch->second->seen();
        Observation& told = told_[address];
        bool only_positions = told.answered_at && same_but_for_positions(told, seen);
        told = seen;
        const Node* node = topology_.find(address);
        const Node* master = node != nullptr ? topology_.top_master_of(node->key) : nullptr;
        for (auto& [key, group] : groups_) {
            bool concerned = master != nullptr && master->key == key;
            if (const auto& record = group->record()) {
                concerned = concerned || record->master == address;
                for (const FormerMaster& former : record->formers)
                    concerned = concerned || former.address == address;
            }
            if (!concerned) continue;
            only_positions = only_positions && group->calm();
            if (only_positions)
                moved_.insert(key);
            else
                group->wake();
        }
        // With many nodes the answers of calm times come one by one, and each would be looked at by
        // everybody.
        if (only_positions)
            tell_soon();
        else
            publish();
    }

    void tell_soon() {
        if (std::exchange(telling_, true)) return;
        moved_timer_.expires_after(moved_interval);
        moved_timer_.async_wait([this](const std::error_code& error) {
            if (error) return;
            telling_ = false;
            for (const NodeKey key : std::exchange(moved_, {})) {
                const auto group = groups_.find(key);
                if (group != groups_.end()) group->second->wake();
            }
            publish();
        });
    }

    /// What poolers and views are told. The recorded master is shown even before the catalog has it.
    Topology effective_topology() const {
        Topology effective = topology_;
        for (const auto& [key, group] : groups_) {
            if (!group->promoting() || group->gate() != Gate::Open) continue;
            const Node* master = effective.find(key);
            if (master == nullptr || master->epoch >= group->record()->epoch) continue;
            effective = with_promotion(effective, key, group->record()->pending->listens_at,
                                       group->record()->master, group->record()->epoch);
        }
        return effective;
    }

    void publish() {
        const auto now = Clock::now();
        looked_at_ = now;
        const PolicySettings& policy = environment_.settings().policy;
        const Topology effective = effective_topology();
        ClusterView view;
        for (const Node& node : effective.nodes()) {
            NodeView shown;
            shown.node = node;
            if (is_own(node)) {
                shown.state = NodeState::Up;
                shown.role_seen = RoleSeen::Master;
                shown.gate = Gate::Open;
                shown.last_seen =
                    std::chrono::time_point_cast<WallTime::duration>(std::chrono::system_clock::now());
                view.nodes.push_back(std::move(shown));
                continue;
            }
            const auto watch = watches_.find(node.address);
            if (watch != watches_.end()) describe(shown, watch->second->seen(), policy, now);
            const auto group = groups_.find(node.key);
            if (group != groups_.end() && node.is_master()) {
                const auto& record = group->second->record();
                const bool recorded = record && record->master == node.address && record->epoch == node.epoch;
                shown.gate = recorded ? group->second->gate() : Gate::Held;
                // A record that doesn't fit may be that of a group of this name which was dropped meanwhile.
                if (record && (recorded || group->second->promoting()))
                    shown.registration = record->registration();
                if (group->second->promoting() && shown.gate == Gate::Held)
                    shown.state = NodeState::Promoting;
                if (!group->second->why().empty()) shown.why = group->second->why();
            } else if (node.is_master()) {
                shown.gate = shown.state == NodeState::Up ? Gate::Open : Gate::Held;
            }
            view.nodes.push_back(std::move(shown));
        }
        relate_to_masters(view, effective);
        for (const auto& [key, group] : groups_) add_formers(view, key, *group, now);
        view.generation = Generation{0};
        if (view.nodes == published_) return;
        environment_.publish_view(view);
        published_ = view.nodes;
    }

    /// Masters that were replaced and are not registered again yet.
    void add_formers(ClusterView& view, NodeKey key, const NodeGroup& group, TimePoint now) const {
        if (!group.record()) return;
        for (const FormerMaster& former : group.record()->formers) {
            NodeView shown;
            shown.node.key = {key.type, former.id};
            shown.node.address = former.address;
            shown.node.master_id = key.id;
            shown.node.replication = former.replication;
            const auto place = std::lower_bound(
                view.nodes.begin(), view.nodes.end(), shown.node.key,
                [](const NodeView& other, NodeKey wanted) { return other.node.key < wanted; });
            const bool registered = place != view.nodes.end() && place->node.key == shown.node.key;
            if (registered || view.nodes.size() >= limits::max_nodes) continue;
            const auto watch = watches_.find(former.address);
            if (watch != watches_.end())
                describe(shown, watch->second->seen(), environment_.settings().policy, now);
            shown.state = NodeState::Rejoining;
            const std::string why = group.why_not_back(former);
            if (!why.empty()) shown.why = why;
            view.nodes.insert(place, std::move(shown));
        }
    }

    static void describe(NodeView& shown, const Observation& seen, const PolicySettings& policy,
                         TimePoint now) {
        const StateAndReason state = classify(shown.node, seen, policy, now);
        shown.state = state.state;
        shown.why = state.why;
        shown.last_seen = seen.last_seen;
        if (!seen.facts) return;
        shown.role_seen = seen.facts->in_recovery ? RoleSeen::Slave : RoleSeen::Master;
        shown.timeline = seen.facts->timeline;
        shown.position = seen.facts->in_recovery ? seen.facts->replayed : seen.facts->flushed;
    }

    /// A slave's lag and fitness to serve reads come from comparing it with its group's master.
    void relate_to_masters(ClusterView& view, const Topology& effective) const {
        for (NodeView& shown : view.nodes) {
            if (shown.node.is_master()) continue;
            const Node* top = effective.top_master_of(shown.node.key);
            const NodeView* master = top != nullptr ? view.find(top->key) : nullptr;
            if (master == nullptr) continue;
            if (master->position.known() && shown.position.known())
                shown.lag_bytes =
                    master->position > shown.position ? master->position.bytes() - shown.position.bytes() : 0;
            const auto watch = watches_.find(shown.node.address);
            const bool streams = watch != watches_.end() && watch->second->seen().facts &&
                                 watch->second->seen().facts->streaming();
            // rule 13: the current line only, and a position from the present connection.
            shown.may_read = shown.state == NodeState::Up && shown.role_seen == RoleSeen::Slave && streams &&
                             shown.timeline == master->timeline && master->state == NodeState::Up;
        }
    }

    void tick_view() {
        view_timer_.expires_after(view_interval);
        view_timer_.async_wait([this](const std::error_code& error) {
            if (error) return;
            if (Clock::now() - looked_at_ >= view_interval) publish();
            tick_view();
        });
    }

    void tick_catalog() {
        catalog_timer_.expires_after(catalog_interval);
        catalog_timer_.async_wait([this](const std::error_code& error) {
            if (error) return;
            auto read = environment_.topology();
            const bool differs = read.ok() ? (!trouble_.empty() || *read != topology_) : trouble_.empty();
            if (differs) reload_topology();
            tick_catalog();
        });
    }

    asio::io_context& context_;
    MonitorEnvironment& environment_;
    std::string claim_token_;
    unsigned groups_made_ = 0;
    asio::steady_timer view_timer_;
    asio::steady_timer catalog_timer_;
    asio::steady_timer moved_timer_;
    bool telling_ = false;
    std::set<NodeKey> moved_;               // groups in which only positions have moved
    std::map<HostPort, Observation> told_;  // what was last acted upon
    NodeLogin login_;
    Topology topology_;
    std::string trouble_;  // why there is no topology
    std::map<HostPort, std::shared_ptr<NodeWatch>> watches_;
    std::map<NodeKey, std::shared_ptr<NodeGroup>> groups_;
    std::optional<std::vector<NodeView>> published_;  // nothing yet: an empty view is news, too
    TimePoint looked_at_;  // when there was last looked for something new to publish
};

Monitor::Monitor(asio::io_context& context, MonitorEnvironment& environment, std::string claim_token)
    : impl_(std::make_unique<Impl>(context, environment, std::move(claim_token))) {}
Monitor::~Monitor() = default;

void Monitor::start() {
    impl_->start();
}
void Monitor::catalog_changed() {
    impl_->reload_topology();
}
void Monitor::reload() {
    impl_->settings_changed();
}
void Monitor::traffic_failed(NodeKey node) {
    impl_->traffic_failed(node);
}
void Monitor::submit(MonitorTask task) {
    impl_->submit(std::move(task));
}

}  // namespace pgxc
