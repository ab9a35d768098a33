#include "pooler/pooler.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include "base/log.h"
#include "net/listener.h"
#include "pooler/cancel_relay.h"
#include "pooler/context.h"
#include "pooler/node_pool.h"
#include "pooler/session.h"

namespace pgxc::pooler {
namespace {

/// How often deadlines are looked at and rows published: nothing is timed per query.
constexpr Millis tick_interval{250};
/// Connections that are not logged in yet; more are closed as they come.
constexpr std::size_t max_logging_in = 2000;
/// Pause before a socket is tried again that could not be listened on: whoever held it may be ending only
/// now.
constexpr Millis listen_retry{1000};

const Error shutdown_error{sqlstate::admin_shutdown, "terminating connection due to administrator command"};

ClientAddress client_address(const net::Accepted& accepted) {
    ClientAddress address;
    address.address = accepted.peer.ip_bytes();
    address.is_unix = address.address.empty();
    ucred peer{};
    socklen_t size = sizeof peer;
    if (address.is_unix && ::getsockopt(accepted.fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0)
        address.peer_uid = peer.uid;
    address.port = accepted.peer.port();
    return address;
}

/// Does who listens there get what comes to `other` as well?
bool covers(const net::SocketAddress& address, const net::SocketAddress& other) {
    if (address.family() != other.family() || address.port() != other.port()) return false;
    const auto bytes = address.ip_bytes();
    const bool any = std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; });
    return any || (address.length == other.length &&
                   std::memcmp(&address.storage, &other.storage, address.length) == 0);
}

/// A socket that the settings name.
struct WantedSocket {
    std::string name;                           // as the log has it
    std::optional<net::SocketAddress> address;  // of TCP
    std::function<Result<std::unique_ptr<net::Listener>>()> listen;
};

}  // namespace

struct Pooler::Impl final : SessionOwner {
    Impl(net::Loop& event_loop, Environment& server) : context(event_loop, server) {}
    ~Impl() {
        stop_listening();
        // Sessions let go of their server connections while the pools are still there.
        while (!sessions.empty()) sessions.back()->end(shutdown_error);
    }

    Status listen();
    [[nodiscard]] std::vector<WantedSocket> wanted_sockets(Error& failure);
    void want_addresses(const std::string& name, const std::vector<net::SocketAddress>& addresses,
                        std::vector<WantedSocket>& wanted);
    Status listen_on(const WantedSocket& socket);
    Status listen_on_or_miss(WantedSocket socket);
    void listen_on_missing_later();
    void look_up_again(const std::string& name);
    void stop_listening();
    void accept(net::Accepted accepted);
    void tick();
    void schedule_tick();
    void publish();
    void refresh();
    void restart_statistics_if_asked();
    void check_drained();

    void session_ended(Session& session) override;
    void cancel_requested(CancelKey key) override;
    std::size_t clients_of(const std::string& user) const override;
    void role_logs_in(const std::string& user, std::uint32_t oid) override;
    void cancel_here(CancelKey key);

    Context context;
    std::vector<std::unique_ptr<net::Listener>> listeners;
    std::vector<net::SocketAddress> wanted_addresses;
    std::vector<WantedSocket> missing;                 // could not be listened on so far
    std::map<std::string, net::Handle> missing_names;  // could not be looked up so far; that they are again
    net::Resolver listen_names{context.loop};          // may hang, which is to hold up nobody else's
    net::Handle missing_timer;
    std::unique_ptr<CancelRelay> relay;
    std::vector<std::unique_ptr<Session>> sessions;
    std::uint64_t next_id = 1;
    std::map<std::string, std::uint32_t> roles;  // OIDs of those that have pools, and some more
    std::size_t next_sweep = 64;                 // of `roles`
    std::uint64_t statistics_resets = context.environment.statistics_resets();
    net::Handle timer;
    bool publish_now = false;      // at every second tick
    std::size_t turned_away = 0;   // since the last tick: before their first byte
    std::string last_turned_away;  // where from
    std::function<void()> on_drained;
    bool drain_told = false;
};

Status Pooler::Impl::listen() {
    const Settings& settings = context.settings();
    Error last{sqlstate::config_file_error, "the pooler has no address to listen on",
               "Set pgxc.pooler_listen_addresses or pgxc.pooler_socket_directories."};
    for (auto& socket : wanted_sockets(last)) {
        if (auto status = listen_on_or_miss(std::move(socket)); !status) last = status.error();
    }
    // The others share in the cancel requests and pauses of all workers, clients or not.
    if (listeners.empty() && context.environment.worker_index() == 0) return last;
    listen_on_missing_later();
    if (settings.workers > 1) {
        auto made = CancelRelay::listen(context.loop, settings.relay_directory, settings.port,
                                        context.environment.worker_index(),
                                        [this](CancelKey key) { cancel_here(key); });
        if (made) {
            relay = std::move(*made);
        } else {
            log_warning("pooler: cancel requests don't come to other workers: " + made.error().message);
        }
    }
    return {};
}

/// `failure` becomes why a name was not found, if one was not.
std::vector<WantedSocket> Pooler::Impl::wanted_sockets(Error& failure) {
    const Settings& settings = context.settings();
    std::vector<WantedSocket> wanted;
    for (const std::string& name : settings.listen_addresses) {
        // At start there is nobody to be kept waiting by a look-up.
        const auto addresses = net::listen_addresses(name, static_cast<std::uint16_t>(settings.port));
        if (!addresses) {
            failure = addresses.error();
            log_warning("pooler: could not listen on \"" + name + "\": " + failure.message +
                        "; trying again");
            missing_names[name];
            continue;
        }
        want_addresses(name, *addresses, wanted);
    }
    if (context.environment.worker_index() != 0) return wanted;
    for (const std::string& directory : settings.socket_directories) {
        wanted.push_back({"directory \"" + directory + "\"", std::nullopt, [this, directory] {
                              const Settings& now = context.settings();
                              return net::Listener::unix_socket(
                                  context.loop, directory, now.port, now.unix_socket_group,
                                  now.unix_socket_permissions,
                                  [this](net::Accepted accepted) { accept(std::move(accepted)); });
                          }});
    }
    return wanted;
}

/// But those that are wanted already: our own socket would be in their way for ever.
void Pooler::Impl::want_addresses(const std::string& name, const std::vector<net::SocketAddress>& addresses,
                                  std::vector<WantedSocket>& wanted) {
    for (const auto& address : addresses) {
        const bool there = std::any_of(wanted_addresses.begin(), wanted_addresses.end(),
                                       [&](const auto& other) { return covers(other, address); });
        if (there) continue;
        std::erase_if(wanted, [&](const WantedSocket& other) {
            return other.address && covers(address, *other.address);
        });
        wanted_addresses.push_back(address);
        wanted.push_back({"address \"" + name + "\"", address, [this, address] {
                              return net::Listener::tcp(
                                  context.loop, address, context.settings().workers > 1,
                                  [this](net::Accepted accepted) { accept(std::move(accepted)); });
                          }});
    }
}

Status Pooler::Impl::listen_on(const WantedSocket& socket) {
    auto listener = socket.listen();
    if (!listener) return listener.error();
    listeners.push_back(std::move(*listener));
    log_info("pooler: listening on " + socket.name + ", port " + std::to_string(context.settings().port));
    return {};
}

Status Pooler::Impl::listen_on_or_miss(WantedSocket socket) {
    auto status = listen_on(socket);
    if (status) return status;
    const Error& error = status.error();
    log_warning("pooler: could not listen on " + socket.name + ": " + error.message +
                (error.hint.empty() ? "" : " (" + error.hint + ")") + "; trying again");
    missing.push_back(std::move(socket));
    return status;
}

/// Until all are listened on. The first failure of each was told.
void Pooler::Impl::listen_on_missing_later() {
    if (missing.empty() && missing_names.empty()) return;
    missing_timer = context.loop.call_after(listen_retry, [this] {
        std::erase_if(missing, [this](const WantedSocket& socket) { return listen_on(socket).ok(); });
        for (const auto& [name, look_up] : missing_names) look_up_again(name);
        listen_on_missing_later();
    });
}

void Pooler::Impl::look_up_again(const std::string& name) {
    const auto answered = [this, name](const net::Resolver::Answer& addresses) {
        if (!addresses) return;
        std::vector<WantedSocket> wanted;
        want_addresses(name, *addresses, wanted);
        for (auto& socket : wanted) (void)listen_on_or_miss(std::move(socket));
        missing_names.erase(name);
    };
    // Who waits for a slow answer already goes on doing so: both ask the same look-up.
    missing_names[name] =
        listen_names.resolve(name, static_cast<std::uint16_t>(context.settings().port), answered);
}

void Pooler::Impl::stop_listening() {
    missing_timer.reset();
    missing_names.clear();
    missing.clear();
    listeners.clear();
}

void Pooler::Impl::accept(net::Accepted accepted) {
    if (context.shutting_down) return;
    const ClientAddress from = client_address(accepted);
    // Who guesses passwords gets no more chances by connecting more often.
    if (sessions.size() - context.logged_in >= max_logging_in ||
        context.throttle.crowded(from.throttle_key())) {
        ++turned_away;
        last_turned_away = from.to_string();
        return;
    }
    auto session = std::make_unique<Session>(context, *this, ClientId{next_id++}, from);
    if (auto status = session->start(std::move(accepted)); !status) {
        log_warning("pooler: client " + from.to_string() + ": " + status.error().message);
        return;
    }
    session->owner_index = sessions.size();
    sessions.push_back(std::move(session));
    context.stats_changed = true;
}

void Pooler::Impl::session_ended(Session& session) {
    const std::size_t index = session.owner_index;
    auto owned = std::move(sessions[index]);
    if (index + 1 != sessions.size()) {
        sessions[index] = std::move(sessions.back());
        sessions[index]->owner_index = index;
    }
    sessions.pop_back();
    context.stats_changed = true;
    context.bury(std::move(owned));
    check_drained();
}

std::size_t Pooler::Impl::clients_of(const std::string& user) const {
    return static_cast<std::size_t>(std::count_if(
        sessions.begin(), sessions.end(), [&](const auto& session) { return session->user() == user; }));
}

void Pooler::Impl::role_logs_in(const std::string& user, std::uint32_t oid) {
    if (roles.size() >= next_sweep) {
        std::erase_if(roles, [users = context.pools->users()](const auto& role) {
            return !users.contains(role.first);
        });
        next_sweep = 2 * roles.size() + 64;
    }
    const auto [role, added] = roles.try_emplace(user, oid);
    if (std::exchange(role->second, oid) == oid) return;
    log_info("pooler: role \"" + user +
             "\" is another one than before: the clients and server connections of the old one end");
    const Error replaced{sqlstate::admin_shutdown,
                         "terminating connection: role \"" + user + "\" was renamed or made anew",
                         "Connect again."};
    for (std::size_t i = sessions.size(); i-- > 0;) {
        // Ending one may end others.
        if (i < sessions.size() && sessions[i]->user() == user) sessions[i]->role_replaced(replaced);
    }
    context.pools->role_made_anew(user);
}

void Pooler::Impl::cancel_requested(CancelKey key) {
    const int worker = CancelMap::worker_of(key);
    if (worker == context.environment.worker_index()) {
        cancel_here(key);
    } else if (relay && worker < context.settings().workers) {
        relay->send(worker, key);
    }
}

void Pooler::Impl::cancel_here(CancelKey key) {
    if (Session* session = context.cancels.find(key)) session->cancel();
}

void Pooler::Impl::schedule_tick() {
    timer = context.loop.call_after(tick_interval, [this] { tick(); });
}

void Pooler::Impl::tick() {
    context.begin_event();
    const TimePoint now = context.now();
    context.coarse_now = now;
    // A view whose announcement was lost.
    if (context.environment.current()->generation != context.view->generation) refresh();
    for (std::size_t i = sessions.size(); i-- > 0;) {
        if (i < sessions.size()) (void)sessions[i]->tick(now);
    }
    context.pools->tick(now);
    if (turned_away > 0) {
        log_warning("pooler: " + std::to_string(std::exchange(turned_away, 0)) +
                    " connections were closed at once, the last one of " + last_turned_away +
                    ": too many others have not logged in yet");
    }
    publish_now = !publish_now;
    if (publish_now && context.stats_changed) publish();
    schedule_tick();
}

void Pooler::Impl::refresh() {
    context.begin_event();
    restart_statistics_if_asked();
    const bool none_yet = context.view->generation == Generation{};
    context.take_view();
    context.pools->refresh();
    // Logins may have waited for the first one.
    const bool first = none_yet && context.view->generation != Generation{};
    for (std::size_t i = first ? sessions.size() : 0; i-- > 0;) {
        if (i < sessions.size()) sessions[i]->view_came();
    }
    // From here on nothing begins that this view forbids.
    context.environment.view_taken(context.view->generation);
}

void Pooler::Impl::publish() {
    // Waiting times grow without any event.
    context.stats_changed = false;
    std::vector<ClientRow> clients;
    clients.reserve(sessions.size());
    for (const auto& session : sessions) clients.push_back(session->row());
    const auto pools = context.pools->rows(Clock::now());
    for (const auto& pool : pools) context.stats_changed = context.stats_changed || pool.clients_waiting > 0;
    context.environment.publish(pools, clients);
    context.environment.publish_statistics(context.pools->server_rows(Clock::now()),
                                           context.pools->statistics());
}

void Pooler::Impl::restart_statistics_if_asked() {
    const std::uint64_t asked = context.environment.statistics_resets();
    if (asked == statistics_resets) return;
    statistics_resets = asked;
    context.pools->restart_statistics();
    context.stats_changed = true;
}

void Pooler::Impl::check_drained() {
    if (!context.shutting_down || !sessions.empty() || drain_told) return;
    drain_told = true;
    context.pools->close_all_idle();
    if (on_drained) context.loop.post(on_drained);
}

Pooler::Pooler(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Pooler::~Pooler() = default;

Result<std::unique_ptr<Pooler>> Pooler::start(net::Loop& loop, Environment& environment) {
    auto impl = std::make_unique<Impl>(loop, environment);
    if (auto status = impl->listen(); !status) return status.error();
    impl->schedule_tick();
    return std::unique_ptr<Pooler>{new Pooler{std::move(impl)}};
}

void Pooler::reload() {
    impl_->refresh();
}

void Pooler::view_changed() {
    impl_->refresh();
}

void Pooler::close_database(const std::string& database) {
    close_database(impl_->context.own_node(), database);
}

void Pooler::close_database(NodeKey node, const std::string& database) {
    impl_->context.pools->close_idle(node, database);
}

void Pooler::begin_shutdown(ShutdownMode mode, std::function<void()> on_drained) {
    Impl& impl = *impl_;
    impl.context.shutting_down = true;
    if (on_drained) impl.on_drained = std::move(on_drained);
    impl.stop_listening();
    for (std::size_t i = impl.sessions.size(); i-- > 0;) {
        // Ending one may end others.
        if (i >= impl.sessions.size()) continue;
        Session& session = *impl.sessions[i];
        switch (mode) {
            case ShutdownMode::Smart:
                session.end_when_idle(shutdown_error);
                break;
            case ShutdownMode::Fast:
                session.end(shutdown_error);
                break;
        }
    }
    impl.context.pools->close_all_idle();
    impl.check_drained();
}

bool Pooler::drained() const {
    return impl_->context.shutting_down && impl_->sessions.empty();
}

int Pooler::port() const {
    for (const auto& listener : impl_->listeners) {
        if (const int port = listener->port(); port != 0) return port;
    }
    return 0;
}

void Pooler::publish_stats() {
    impl_->publish();
}

}  // namespace pgxc::pooler
