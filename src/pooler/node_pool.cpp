#include "pooler/node_pool.h"

#include <algorithm>

#include "base/log.h"
#include "pooler/session.h"

namespace pgxc::pooler {
namespace {

constexpr Millis first_backoff{10};
constexpr Millis longest_backoff{500};
/// Different startup settings of clients that one pool remembers; beyond it a login asks a server.
constexpr std::size_t max_known_logins = 64;
/// Databases that are left at a tick; of one more the server says that it is in use.
constexpr std::size_t max_left_at_once = 8;

}  // namespace

NodePool::NodePool(Context& context, PoolKey key, std::shared_ptr<PoolCounters> counters)
    : context_(context),
      key_(std::move(key)),
      counters_(std::move(counters)),
      position_(context.position_of(key_.node)),
      replayed_(context.slaves[key_.node]) {
    act_on(take_over());
}

NodePool::~NodePool() = default;

Backend* NodePool::request(Session& session) {
    return lent_or_awaited(core_.borrow(session, context_.now()));
}

Backend* NodePool::request_again(Session& session) {
    return lent_or_awaited(core_.borrow_again(session));
}

Backend* NodePool::lent_or_awaited(Member* member) {
    context_.stats_changed = true;
    if (member != nullptr) {
        counters_->waited(Clock::duration{0});
        return static_cast<Backend*>(member);
    }
    open_more();
    return nullptr;
}

void NodePool::stop_waiting(Session& session) {
    core_.stop_waiting(session);
    counters_->waited(context_.now() - session.waiting_since());
}

void NodePool::give_back(Backend& backend) {
    context_.stats_changed = true;
    backend.lend_to(nullptr);
    if (target_.paused) {
        // It is still on the list of those that are lent.
        core_.retire(backend);
        context_.pools->report_in_use(target_.group);
    }
    if (!usable(backend) || nobody_comes() || backend.cancel_may_come() ||
        core_.outlived(backend, context_.coarse_now)) {
        discard(backend);
        return;
    }
    core_.transaction_ended(backend, context_.now());
    // The next client must not be hit by the cancel request of this one: it becomes idle when that is
    // through.
    if (backend.cancels_running()) {
        core_.retire(backend);
        serve_soon();
        return;
    }
    if (!ask_on(backend)) core_.became_idle(backend, context_.coarse_now);
    serve();
}

void NodePool::discard(Backend& backend) {
    context_.stats_changed = true;
    core_.transaction_ended(backend, context_.now());
    if (asking_ == &backend) question_lost();
    if (!target_.is_master) replayed_.forget();
    backend.unlink();
    backend.lend_to(nullptr);
    backend.meter.bytes_sent(backend.connection().bytes_sent());
    // Its burial is posted: a deadline or an answer that is seen before must not find it alive.
    backend.give_up();
    const std::size_t index = backend.pool_index;
    auto owned = std::move(backends_[index]);
    if (index + 1 != backends_.size()) {
        backends_[index] = std::move(backends_.back());
        backends_[index]->pool_index = index;
    }
    backends_.pop_back();
    context_.bury(std::move(owned));
    if (target_.paused) context_.pools->report_in_use(target_.group);
    open_more();
    serve_soon();
}

void NodePool::backend_ready(Backend& backend) {
    context_.stats_changed = true;
    backoff_ = Millis{0};
    last_failure_.clear();
    if (!usable(backend) || nobody_comes()) {
        discard(backend);
        return;
    }
    // It may be another server than the older connections led to.
    if (!target_.is_master) replayed_.forget();
    core_.connected(backend, context_.coarse_now);
    if (ask_on(backend)) {
        open_more();  // for who waits
        return;
    }
    core_.became_idle(backend, context_.coarse_now);
    serve();
}

void NodePool::cancels_done(Backend& backend) {
    context_.begin_event();
    if (backend.session() == nullptr && backend.list() != nullptr) give_back(backend);
}

void NodePool::backend_failed(Backend& backend, const BackendFailure& failure) {
    const bool current = usable(backend);
    last_failure_ = failure.error.message;
    if (failure.traffic && current) report(*failure.traffic);
    backend.unlink();  // it isn't a connection any more
    if (current) {
        // A server that refuses for good is not asked again for those who wait now, unless others show that
        // it serves. Who waits for a slave is served by the master instead.
        if (!target_.is_master || (!failure.temporary && core_.usable_members() == 0))
            fail_waiters(failure.error);
        if (failure.temporary || !core_.waiters().empty()) {
            retry_later();
        } else {
            core_.rest();
        }
    }
    discard(backend);
}

void NodePool::idle_backend_lost(Backend& backend, const std::string& cause) {
    log_debug("pooler: idle server connection to " + node_text() + " is gone: " + cause);
    discard(backend);
}

void NodePool::report(TrafficFailure failure) {
    context_.environment.report(key_.node, target_.epoch, failure);
}

void NodePool::serve() {
    while (auto match = core_.match()) {
        auto& session = static_cast<Session&>(*match->waiter);
        counters_->waited(context_.now() - session.waiting_since());
        auto& backend = static_cast<Backend&>(*match->member);
        session.lend(backend);
    }
    open_more();
}

void NodePool::serve_soon() {
    if (!core_.may_match()) return;
    context_.loop.post([pool = weak_from_this()] {
        if (const auto alive = pool.lock()) {
            alive->context_.begin_event();
            alive->serve();
        }
    });
}

void NodePool::open_more() {
    if (nobody_comes() || retry_pending_) return;
    // A server that doesn't answer is asked for somebody, not to keep connections in store.
    if (backoff_ > Millis{0} && core_.waiters().empty() && !try_again_) return;
    const bool one = std::exchange(try_again_, false) && core_.members() == 0 && !core_.paused();
    const int wanted = std::max(core_.members_wanted(), one ? 1 : 0);
    // After a failure one connection at a time finds out whether the server is back.
    const int now = backoff_ > Millis{0} ? std::min(wanted, core_.connecting().empty() ? 1 : 0) : wanted;
    for (int i = 0; i < now; ++i) {
        auto backend = std::make_unique<Backend>(context_, *this, target_version_);
        Backend& made = *backend;
        made.pool_index = backends_.size();
        backends_.push_back(std::move(backend));
        core_.add_connecting(made);
        made.start(target_.address);
    }
}

void NodePool::retry_later() {
    backoff_ = backoff_ == Millis{0} ? first_backoff : std::min(backoff_ * 2, longest_backoff);
    if (retry_pending_) return;
    retry_pending_ = true;
    retry_ = context_.loop.call_after(backoff_, [this] {
        retry_pending_ = false;
        open_more();
    });
}

Switch NodePool::take_over() {
    const Settings& settings = context_.settings();
    core_.set_limits({settings.max_pool_size, settings.min_pool_size, settings.server_idle_timeout,
                      settings.server_lifetime, settings.adaptive_concurrency});
    Target now = find_target(*context_.view, key_.node, context_.own_node(), settings.own_server);
    const Switch change = compare(target_, now);
    const Target before = std::exchange(target_, std::move(now));
    context_.stats_changed = true;
    if (!target_.is_master && before.epoch != target_.epoch) {
        replayed_.forget();
        replayed_.wanted = {};
    }
    if (!lending()) core_.pause();
    switch (change) {
        case Switch::Nothing:
        case Switch::Hold:
        case Switch::Release:
            break;
        case Switch::Move:
            if (before.exists)
                log_info("pooler: " + key_.node.to_string() + " has moved from " +
                         before.address.to_string() + " to " + target_.address.to_string() + ", epoch " +
                         std::to_string(target_.epoch.value()));
            core_.pause();  // what is idle leads to the old server, until it is closed
            forget_server();
            break;
        case Switch::Retire:
            ++target_version_;
            break;
    }
    return change;
}

void NodePool::act_on(Switch change) {
    switch (change) {
        case Switch::Nothing:
        case Switch::Hold:
            break;
        case Switch::Release:
            each_session([](Session& session) { session.released(); });
            break;
        case Switch::Move:
            // Of a node that was gone, too: what was lent when it went still is.
            close_all(key_.node.to_string() + " has a new master");
            break;
        case Switch::Retire:
            close_idle();
            each_session([](Session& session) { session.released(); });
            fail_waiters(
                {sqlstate::connection_failure, key_.node.to_string() + " is not in pgxc_nodes any more"});
            break;
    }
    if (lending()) core_.resume();
    // A new view may mean that the server is back: ask at once.
    if (retry_pending_ && lending() && !core_.waiters().empty()) {
        retry_.reset();
        retry_pending_ = false;
    }
    if (lending()) serve();
    const NodeView* seen = context_.view->find(key_.node);
    if (!target_.is_master && seen != nullptr && seen->state == NodeState::Down)
        leave_silent(key_.node.to_string() + " doesn't answer");
}

void NodePool::each_session(const std::function<void(Session&)>& act) {
    for (Backend* backend : all_of(core_.lent())) {
        // One session's end may have taken another's connection along.
        if (backend->list() == &core_.lent() && backend->session() != nullptr) act(*backend->session());
    }
}

void NodePool::leave_silent(const std::string& cause) {
    each_session([&cause](Session& session) { session.leave_silent_slave(cause); });
    fail_waiters({sqlstate::connection_failure, cause});
}

void NodePool::close_idle() {
    core_.rest();  // else the minimum would be opened anew at once
    while (!core_.idle().empty()) discard(static_cast<Backend&>(*core_.idle().front()));
}

void NodePool::forget_server() {
    ++target_version_;
    logins_.clear();
    defaults_ = Defaults{};
}

void NodePool::role_made_anew() {
    forget_server();
    close_idle();
}

void NodePool::close_all(const std::string& cause) {
    // Each one that is closed makes room for another, for those who wait: opened in here it would be closed
    // in here, without end. act_on() opens what is wanted behind this.
    core_.pause();
    close_idle();
    while (!core_.connecting().empty()) discard(static_cast<Backend&>(*core_.connecting().front()));
    // A server that stands still would never answer what it was asked. Cancels have a time of their own.
    for (Backend* backend : all_of(core_.retiring()))
        if (!backend->cancels_running()) discard(*backend);
    each_session([&cause](Session& session) { session.server_lost(cause); });
}

std::vector<Backend*> NodePool::all_of(List<Member>& members) {
    std::vector<Backend*> all;
    for (Member* member = members.front(); member != nullptr; member = members.after(*member))
        all.push_back(static_cast<Backend*>(member));
    return all;
}

std::uint32_t NodePool::in_use() {
    std::uint32_t count = 0;
    for (Backend* backend : all_of(core_.lent())) count += backend->tracker().clean_and_idle() ? 0 : 1;
    return count;
}

void NodePool::fail_waiters(const Error& error) {
    // Those who come while this runs wait for the next attempt.
    std::size_t count = core_.waiters().size();
    while (count-- > 0 && !core_.waiters().empty())
        fail_waiter(static_cast<Session&>(*core_.waiters().front()), error);
}

void NodePool::fail_waiter(Session& session, const Error& error) {
    stop_waiting(session);
    session.lend_failed(error);
}

std::string NodePool::trouble() const {
    if (!target_.exists) return "it is not in pgxc_nodes";
    if (target_.held) return target_.why.empty() ? "it has no master that may be used" : target_.why;
    if (backoff_ > Millis{0} && core_.usable_members() == 0) return last_failure_;
    return {};
}

bool NodePool::in_trouble() const {
    return !target_.exists || target_.held || (backoff_ > Millis{0} && core_.usable_members() == 0);
}

void NodePool::tick(TimePoint now) {
    core_.tick(now);
    if (!core_.waiters().empty()) serve();
    while (Member* surplus = core_.surplus(now)) discard(static_cast<Backend&>(*surplus));
    // A pause lasts as long as who asked for it wants; who waited in it waits for its turn from then on.
    if (target_.paused) {
        in_order_since_ = pause_ended_ = now;
        return;
    }
    const std::string why = trouble();
    if (why.empty()) {
        end_long_waits(now);
        return;
    }
    in_order_since_ = now;
    const Millis hold = context_.settings().failover_hold;
    while (!core_.waiters().empty()) {
        auto& session = static_cast<Session&>(*core_.waiters().front());
        if (now - std::max(session.waiting_since(), pause_ended_) < hold) return;
        fail_waiter(session,
                    {sqlstate::connection_failure,
                     node_text() + " could not be used for " + std::to_string(hold.count()) + " ms: " + why,
                     "See pgxc_node_status. The time that transactions wait is pgxc.failover_hold."});
    }
}

void NodePool::end_long_waits(TimePoint now) {
    const Settings& settings = context_.settings();
    const Millis longest = settings.query_wait_timeout;
    if (longest == Millis{0}) return;
    while (!core_.waiters().empty()) {
        auto& session = static_cast<Session&>(*core_.waiters().front());
        // Who has waited for a new master waits for its turn from then on.
        if (now - std::max(session.waiting_since(), in_order_since_) < longest) return;
        // Nobody fails because of a limit that nobody has set.
        if (core_.concurrency_limit() != ConcurrencyLimit::none) {
            core_.lift_concurrency_limit();
            serve();
            if (!core_.connecting().empty()) return;
            continue;
        }
        fail_waiter(
            session,
            {sqlstate::too_many_connections,
             "no server connection to " + node_text() + " for user \"" + key_.user + "\" in database \"" +
                 key_.database + "\" became free within " + std::to_string(longest.count()) +
                 " ms (pgxc.query_wait_timeout)",
             "The pool has " + std::to_string(core_.members()) +
                 " server connections, and pgxc.max_pool_size is " + std::to_string(settings.max_pool_size) +
                 ": raise it, or shorten transactions. pgxc_pooler_servers shows who has them."});
    }
}

std::string NodePool::node_text() const {
    return key_.node.to_string() + (target_.exists ? " (" + target_.address.to_string() + ")" : "");
}

PoolRow NodePool::row(TimePoint now) const {
    PoolRow row;
    row.node = key_.node;
    row.database = key_.database;
    row.user = key_.user;
    row.clients_active = static_cast<std::uint32_t>(core_.lent().size());
    row.clients_waiting = static_cast<std::uint32_t>(core_.waiters().size());
    row.servers_active = static_cast<std::uint32_t>(core_.lent().size());
    row.servers_idle = static_cast<std::uint32_t>(core_.idle().size());
    row.servers_connecting = static_cast<std::uint32_t>(core_.connecting().size());
    if (core_.concurrency_limit() != ConcurrencyLimit::none)
        row.concurrency_limit = static_cast<std::uint32_t>(core_.concurrency_limit());
    if (const Waiter* first = core_.waiters().front()) {
        const auto waited = now - first->waiting_since();
        row.longest_wait_us =
            static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(waited).count());
    }
    return row;
}

const Backend::Reported* NodePool::known_login(const SettingSet& settings) const {
    const auto found = logins_.find(settings.entries());
    return found == logins_.end() ? nullptr : &found->second;
}

void NodePool::remember_login(const SettingSet& settings, const Backend::Reported& reported) {
    if (logins_.size() >= max_known_logins) logins_.clear();
    logins_[settings.entries()] = reported;
}

std::shared_ptr<NodePool> PoolSet::get(const PoolKey& key) {
    auto& pool = pools_[key];
    if (!pool) pool = std::make_shared<NodePool>(context_, key, counters_of(key));
    return pool;
}

void PoolSet::refresh() {
    // A session that is told may ask for another pool: which must not lend by then what the view forbids, and
    // may be a new one.
    std::vector<std::pair<std::shared_ptr<NodePool>, Switch>> pools;
    for (const auto& [key, pool] : pools_) pools.emplace_back(pool, pool->take_over());
    for (const auto& [pool, change] : pools) pool->act_on(change);
    for (const NodeView& node : context_.view->nodes)
        if (node.paused) report_in_use(node.node.key);
}

void PoolSet::report_in_use(NodeKey group) {
    std::uint32_t count = 0;
    for (const auto& [key, pool] : pools_)
        if (pool->target().group == group) count += pool->in_use();
    context_.environment.report_in_use(group, count);
}

void PoolSet::close_idle(NodeKey node, const std::string& database) {
    for (const auto& [key, pool] : pools_) {
        if (key.node == node && (database.empty() || key.database == database)) pool->close_idle();
    }
}

void PoolSet::leave_soon(NodeKey node, const std::string& database) {
    // This server's own library knows when it is asked for that, and by whom.
    if (node == context_.own_node() || leave_soon_.size() >= max_left_at_once) return;
    leave_soon_.emplace(node, database);
}

void PoolSet::close_all_idle() {
    for (const auto& [key, pool] : pools_) pool->close_idle();
}

void PoolSet::role_made_anew(const std::string& user) {
    for (const auto& [key, pool] : pools_)
        if (key.user == user) pool->role_made_anew();
}

std::set<std::string> PoolSet::users() const {
    std::set<std::string> users;
    for (const auto& [key, pool] : pools_) users.insert(key.user);
    return users;
}

void PoolSet::tick(TimePoint now) {
    for (const auto& [node, database] : std::exchange(leave_soon_, {})) {
        close_idle(node, database);
        context_.environment.leave_database(node, database);
    }
    std::vector<std::shared_ptr<NodePool>> pools;
    for (const auto& [key, pool] : pools_) pools.push_back(pool);
    for (const auto& pool : pools) pool->tick(now);
    pools.clear();
    std::erase_if(
        pools_, [](const auto& entry) { return entry.second.use_count() == 1 && entry.second->deserted(); });
}

std::vector<PoolRow> PoolSet::rows(TimePoint now) const {
    std::vector<PoolRow> rows;
    for (const auto& [key, pool] : pools_) rows.push_back(pool->row(now));
    return rows;
}

}  // namespace pgxc::pooler
