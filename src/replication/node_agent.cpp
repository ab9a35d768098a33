#include "replication/node_agent.h"

#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <asio/io_context.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <cstring>
#include <filesystem>
#include <memory>

#include "base/log.h"
#include "base/text.h"
#include "net/spawn.h"
#include "replication/durable_file.h"
#include "replication/process_wait.h"
#include "replication/rejoin.h"
#include "replication/server_files.h"
#include "replication/server_restart.h"

namespace pgxc {
namespace {

using namespace replication;

constexpr Millis coordinator_timeout{1'500};
/// So often, before a promotion that is recorded is given up for want of an answer.
constexpr int times_asked = 3;
constexpr Millis stop_timeout{60'000};
/// Between two looks at a former master that waits for something.
constexpr Millis first_patience{250};
constexpr Millis longest_patience{5'000};
/// A server that has waited for its return for so long is left: whoever starts it, or the coordinator, begins
/// again.
constexpr Millis rejoin_patience{3'600'000};

/// What a coordinator tells of a group.
struct CoordinatorSays {
    Record record;
    bool rejoin = true;  // pgxc.rejoin there
};

/// Sessions to the coordinators: the first one that is a master and has the record is asked.
class Coordinators {
  public:
    explicit Coordinators(const NodeTask& task) : task_(task) {}

    asio::awaitable<Result<Rows>> ask(std::string sql) {
        Error last{sqlstate::unable_to_connect, "pgxc.coordinators names no coordinator",
                   "Set it on this server, as on the coordinators."};
        if (session_ && !session_->broken()) {
            auto told = co_await session_->query(sql, coordinator_timeout);
            if (told.ok()) co_return std::move(*told);
            last = told.error().error;
        }
        session_.reset();
        for (const HostPort& address : task_.coordinators) {
            ConnectTarget target{address, task_.coordinator_login, "pgxc_ha datanode"};
            auto opened = co_await NodeConnection::open(target, coordinator_timeout);
            if (!opened.ok()) {
                last = opened.error().error;
                continue;
            }
            auto told =
                co_await (*opened)->query("SELECT pg_catalog.pg_is_in_recovery()", coordinator_timeout);
            if (!told.ok()) {
                last = told.error().error;
                continue;
            }
            if (told->text() != "f") {
                // What it has may be old.
                last = Error{sqlstate::object_not_in_prerequisite_state,
                             "the coordinator at " + address.to_string() + " is a slave"};
                continue;
            }
            auto rows = co_await (*opened)->query(sql, coordinator_timeout);
            if (!rows.ok()) {
                last = rows.error().error;
                continue;
            }
            session_ = std::move(*opened);
            co_return std::move(*rows);
        }
        last.message = "no coordinator answers: " + last.message;
        co_return last;
    }

    asio::awaitable<Result<CoordinatorSays>> group(NodeKey key) {
        auto told = co_await ask(
            "SELECT record, current_setting('pgxc.rejoin') FROM pgxc.node_record WHERE node_type = '" +
            std::string(1, static_cast<char>(key.type)) +
            "' AND node_id = " + std::to_string(key.id.value()));
        if (!told.ok()) co_return told.error();
        if (told->rows.empty())
            co_return Error{sqlstate::undefined_object,
                            "the coordinator has no record of " + key.to_string()};
        auto record = record_from_json(told->text(0));
        if (!record.ok()) co_return record.error();
        CoordinatorSays says;
        says.record = std::move(*record);
        says.rejoin = told->text(1) == "on";
        co_return says;
    }

    /// As group(), and asked again where nobody answers: whoever sent a request lives, and may be busy for a
    /// moment.
    asio::awaitable<Result<CoordinatorSays>> group_of_request() {
        auto says = co_await group(task_.request.group);
        for (int asked = 1; asked < times_asked && !says.ok(); ++asked) {
            co_await wait_for_event_on(-1, Clock::now() + first_patience);
            says = co_await group(task_.request.group);
        }
        co_return says;
    }

  private:
    const NodeTask& task_;
    std::unique_ptr<NodeConnection> session_;
};

/// Does that host lead to this machine? Asks the resolver, and blocks: nothing else runs here.
bool is_local_host(const std::string& host) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return false;
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
    ifaddrs* own = nullptr;
    if (::getifaddrs(&own) != 0) return false;
    const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> interfaces(own, &::freeifaddrs);
    for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
        const sockaddr* wanted = address->ai_addr;
        // All of 127.0.0.0/8 is here, and no interface lists it.
        if (wanted->sa_family == AF_INET &&
            (ntohl(reinterpret_cast<const sockaddr_in*>(wanted)->sin_addr.s_addr) >> 24U) == 127)
            return true;
        for (const ifaddrs* at = interfaces.get(); at != nullptr; at = at->ifa_next) {
            if (at->ifa_addr == nullptr || at->ifa_addr->sa_family != wanted->sa_family) continue;
            if (wanted->sa_family == AF_INET &&
                std::memcmp(&reinterpret_cast<const sockaddr_in*>(at->ifa_addr)->sin_addr,
                            &reinterpret_cast<const sockaddr_in*>(wanted)->sin_addr, sizeof(in_addr)) == 0)
                return true;
            if (wanted->sa_family == AF_INET6 &&
                std::memcmp(&reinterpret_cast<const sockaddr_in6*>(at->ifa_addr)->sin6_addr,
                            &reinterpret_cast<const sockaddr_in6*>(wanted)->sin6_addr, sizeof(in6_addr)) == 0)
                return true;
        }
    }
    return false;
}

std::string real_path_of(const std::string& path) {
    std::error_code error;
    const auto real = std::filesystem::canonical(path, error);
    return error ? path : real.string();
}

/// Paths that lead here are compared as they really are. Those of servers on other hosts stay as they are.
void resolve_own_paths(Record& record, const OwnServer& own) {
    const auto resolve = [&own](std::string& path) {
        if (!path.empty() && real_path_of(path) == own.data_directory) path = own.data_directory;
    };
    resolve(record.place.data_directory);
    if (record.pending) resolve(record.pending->data_directory);
    for (FormerMaster& former : record.formers) resolve(former.place.data_directory);
}

/// What the task does not say: what the files tell.
Status complete(OwnServer& own) {
    auto files = inspect_server(own.data_directory, own.config_file);
    if (!files.ok()) return files.error();
    own.data_directory = files->data_directory;
    own.config_file = files->config_file;
    own.system_identifier = files->system_identifier;
    if (files->bin_directory.empty()) return {};
    auto told = run(controldata_command(*files), start_check_timeout);
    if (!told.ok()) return told.error();
    auto control = parse_control_data(told->output);
    if (!control.ok()) return control.error();
    own.timeline = control->timeline;
    return {};
}

asio::awaitable<Result<StartVerdict>> check_start(NodeTask task) {
    OwnServer& own = task.server;
    if (Status known = complete(own); !known.ok()) co_return known.error();
    StartVerdict verdict;
    // Whoever works on these files holds this lock; a server that they have made a slave has a signal file.
    auto lock = FileLock::try_acquire(own.data_directory);
    if (!lock.ok() && lock.error().sqlstate == sqlstate::lock_not_available) {
        verdict.replaced = true;
        verdict.returns = true;
        verdict.because = "A slave is being made of it.";
        co_return verdict;
    }
    auto journal = RejoinFiles(own.data_directory).read();
    const bool half_rewound = journal.ok() && journal->stage == RejoinStage::Rewinding;
    Coordinators coordinators(task);
    auto told = co_await coordinators.ask(
        "SELECT node_type, node_id, record, current_setting('pgxc.rejoin') FROM pgxc.node_record "
        "WHERE record <> '{}'");
    if (!told.ok() && !half_rewound) co_return told.error();
    std::vector<std::pair<NodeKey, Record>> records;
    bool rejoin_allowed = true;
    for (std::size_t row = 0; told.ok() && row < told->rows.size(); ++row) {
        auto record = record_from_json(told->text(2, row));
        const auto id = to_number<std::int32_t>(told->text(1, row));
        if (!record.ok() || !id || told->text(0, row).empty()) continue;
        resolve_own_paths(*record, own);
        records.emplace_back(NodeKey{static_cast<NodeType>(told->text(0, row)[0]), NodeId{*id}},
                             std::move(*record));
        rejoin_allowed = told->text(3, row) == "on";
    }
    verdict = judge_start(own, records, is_local_host);
    if (half_rewound && !verdict.replaced) {
        verdict.replaced = true;
        verdict.because = "pg_rewind was begun on its files and has not come to its end.";
    }
    if (!rejoin_allowed || !own.managed_by.empty()) verdict.returns = false;
    if (verdict.replaced && !verdict.master.host.empty()) {
        RejoinByHand by_hand;
        by_hand.data_directory = own.data_directory;
        by_hand.master = verdict.master;
        by_hand.user = task.node_login.user;
        by_hand.database = task.node_login.database;
        verdict.command = rejoin_command(by_hand);
    }
    co_return verdict;
}

asio::awaitable<Status> restart(const NodeTask& task, Coordinators& coordinators) {
    const TimePoint deadline = Clock::now() + task.request.time_limit;
    bool begun = false;
    std::function<asio::awaitable<Status>()> stands = [&]() -> asio::awaitable<Status> {
        auto says = co_await coordinators.group_of_request();
        if (!says.ok()) co_return says.error();
        if (!begun && Clock::now() >= deadline)
            co_return Error{sqlstate::query_canceled, "the time for this restart is over"};
        co_return request_stands(task.request, task.server, says->record);
    };
    Status first = co_await stands();
    if (!first.ok()) co_return first;
    ServerSays says;
    says.place.data_directory = task.server.data_directory;
    says.place.config_file = task.server.config_file;
    says.system_identifier = std::to_string(task.server.system_identifier);
    says.address.host = "this host";
    says.address.port = task.server.port;
    says.listens_on_port = task.server.port;
    says.has_restore_command = task.has_restore_command;
    says.has_recovery_target = task.has_recovery_target;
    says.managed_by = task.server.managed_by;
    std::function<void()> before_stop = [&begun] { begun = true; };
    co_return co_await restart_server_here(std::move(says), true, task.request.port, task.request.time_limit,
                                           std::move(stands), std::move(before_stop));
}

asio::awaitable<Status> stop(const NodeTask& task, Coordinators& coordinators) {
    auto says = co_await coordinators.group_of_request();
    if (!says.ok()) co_return says.error();
    Status stands = request_stands(task.request, task.server, says->record);
    if (!stands.ok()) co_return stands;
    ServerPlace place;
    place.data_directory = task.server.data_directory;
    place.config_file = task.server.config_file;
    co_return co_await stop_server_here(std::move(place), stop_timeout, false);
}

/// Finds the group that this server was replaced in.
asio::awaitable<Result<NodeKey>> own_group(const NodeTask& task, Coordinators& coordinators) {
    auto told = co_await coordinators.ask(
        "SELECT node_type, node_id, record FROM pgxc.node_record WHERE record <> '{}'");
    if (!told.ok()) co_return told.error();
    for (std::size_t row = 0; row < told->rows.size(); ++row) {
        auto record = record_from_json(told->text(2, row));
        const auto id = to_number<std::int32_t>(told->text(1, row));
        if (!record.ok() || !id || told->text(0, row).empty()) continue;
        resolve_own_paths(*record, task.server);
        if (own_entry(task.server, *record, is_local_host))
            co_return NodeKey{static_cast<NodeType>(told->text(0, row)[0]), NodeId{*id}};
    }
    co_return Error{sqlstate::undefined_object, "no coordinator waits for this server"};
}

/// How this server logged in to its masters when it was registered.
asio::awaitable<std::string> stored_conninfo(const NodeTask& task, Coordinators& coordinators,
                                             std::vector<HostPort> addresses) {
    std::string conninfo = "user=" + task.node_login.user;
    for (const HostPort& address : addresses) {
        auto told = co_await coordinators.ask(
            "SELECT conninfo FROM pgxc.replication_conninfo WHERE node_host = " + sql_literal(address.host) +
            " AND node_port = " + std::to_string(address.port));
        if (told.ok() && !told->text().empty()) conninfo = told->text();
    }
    co_return conninfo;
}

asio::awaitable<void> wait_until_changed(std::shared_ptr<asio::steady_timer> timer, Millis limit) {
    timer->expires_after(limit);
    std::error_code ignored;
    co_await timer->async_wait(asio::redirect_error(asio::use_awaitable, ignored));
}

/// Makes a slave of this server, whatever it takes and as long as the record waits for it.
asio::awaitable<Status> rejoin(const NodeTask& task, Coordinators& coordinators) {
    const auto executor = co_await asio::this_coro::executor;
    const TimePoint deadline = Clock::now() + rejoin_patience;
    // Of several that were sent for the same work, one is enough.
    auto only = FileLock::try_acquire(node_agent_log(task.server.data_directory));
    if (!only.ok())
        co_return Error{sqlstate::lock_not_available, "another process makes a slave of this server already"};
    const bool asked = task.kind == NodeTask::Kind::Request;
    bool stream_failed = asked && task.request.stream_failed;
    NodeKey group = task.request.group;
    if (!asked) {
        auto own = co_await own_group(task, coordinators);
        if (!own.ok()) co_return own.error();
        group = *own;
    }
    Millis patience = first_patience;
    Coordinators onlooker(task);  // asks while the other one's session is the work's
    auto timer = std::make_shared<asio::steady_timer>(executor);
    std::string last = "nothing was done";
    for (bool first = true; Clock::now() < deadline; first = false) {
        // Removed, and so nobody's to return; a copy half way to its place is what is looked at below.
        const RejoinFiles files(task.server.data_directory);
        if (::access(task.server.data_directory.c_str(), F_OK) != 0 && !files.copy_is_complete())
            co_return Error{sqlstate::undefined_file, "the data directory is gone"};
        auto says = co_await coordinators.group(group);
        if (!says.ok()) {
            // Who asked asks again; who was started has nobody but us.
            if (asked && first) co_return says.error();
            last = says.error().message;
            co_await wait_until_changed(timer, patience);
            patience = std::min(longest_patience, patience * 2);
            continue;
        }
        Record record = says->record;
        resolve_own_paths(record, task.server);
        if (asked && first) {
            // What was begun under one claim goes on under the next: it serves whoever has it, as long as the
            // record waits for this server.
            Status stands = request_stands(task.request, task.server, record);
            if (!stands.ok()) co_return stands;
        }
        const auto entry = own_entry(task.server, record, is_local_host);
        if (!entry)
            co_return Error{sqlstate::object_not_in_prerequisite_state,
                            group.to_string() + " does not wait for this server as a former master"};
        if (record.pending || record.timeline == 0) {
            last = "a promotion is under way";
            co_await wait_until_changed(timer, patience);
            continue;
        }
        FormerMaster former = *entry;
        former.place.data_directory = task.server.data_directory;
        former.place.config_file = task.server.config_file;
        // The same path on another host is another server's.
        if (!is_local_host(record.master.host)) record.place = {};
        Rejoin::Order order = rejoin_order(group, record, former, task.node_login);
        std::vector<HostPort> addresses;
        addresses.push_back(record.master);
        addresses.push_back(former.address);
        order.conninfo = co_await stored_conninfo(task, coordinators, std::move(addresses));
        order.enabled = says->rejoin;
        order.stream_failed = stream_failed;
        order.may_ask_library = false;
        std::function<asio::awaitable<Status>()> stands =
            [&coordinators, group, claim = record.claim, owner = record.claim_owner,
             address = former.address]() -> asio::awaitable<Status> {
            auto now = co_await coordinators.group(group);
            if (!now.ok()) co_return now.error();
            if (now->record.claim != claim || now->record.claim_owner != owner)
                co_return Error{sqlstate::object_not_in_prerequisite_state,
                                group.to_string() + ": the group has been claimed anew"};
            const auto& formers = now->record.formers;
            if (now->record.pending || std::none_of(formers.begin(), formers.end(), [&](const auto& listed) {
                    return listed.address == address;
                }))
                co_return Error{sqlstate::object_not_in_prerequisite_state,
                                group.to_string() + " does not wait for this server now"};
            co_return Status{};
        };
        std::function<void()> changed = [timer] { timer->cancel(); };
        auto work =
            std::make_shared<Rejoin>(executor, std::move(order), std::move(stands), std::move(changed));
        work->start();
        TimePoint next_look = Clock::now() + longest_patience;
        while (!work->finished()) {
            co_await wait_until_changed(timer, Millis(1'000));
            if (Clock::now() < next_look) continue;
            // What a master that has been replaced is asked for may hang for hours.
            auto now = co_await onlooker.group(group);
            if (now.ok() && now->record.epoch > record.epoch) work->stop();
            next_look = Clock::now() + longest_patience;
        }
        if (work->doing() != last) {
            last = work->doing();
            log_info(last);
            patience = first_patience;
        }
        if (work->succeeded()) co_return Status{};
        if (work->left_to_somebody()) co_return Error{sqlstate::object_not_in_prerequisite_state, last};
        stream_failed = false;
        co_await wait_until_changed(timer, patience);
        patience = std::min(longest_patience, patience * 2);
    }
    co_return Error{sqlstate::query_canceled, "given up: " + last};
}

asio::awaitable<Status> carry_out(NodeTask task) {
    if (Status known = complete(task.server); !known.ok()) co_return known;
    Coordinators coordinators(task);
    if (task.kind == NodeTask::Kind::Rejoin) co_return co_await rejoin(task, coordinators);
    switch (task.request.kind) {
        case NodeRequestKind::Restart:
            co_return co_await restart(task, coordinators);
        case NodeRequestKind::Stop:
            co_return co_await stop(task, coordinators);
        case NodeRequestKind::Rejoin:
            co_return co_await rejoin(task, coordinators);
        case NodeRequestKind::CanRestart:
        case NodeRequestKind::Forget:
            break;
    }
    co_return Error{sqlstate::internal_error, "the library itself answers that"};
}

/// Runs the loop until the coroutine has come to its end. What it throws is an error: nothing that was broken
/// off is reported as done.
Status run_to_end(asio::io_context& loop, std::function<asio::awaitable<void>()> work) {
    net::spawn(loop.get_executor(), [&loop, work = std::move(work)]() -> asio::awaitable<void> {
        co_await work();
        loop.stop();
    });
    try {
        loop.run();
    } catch (const std::exception& problem) {
        return Error{sqlstate::internal_error, problem.what()};
    }
    return {};
}

}  // namespace

Command node_agent_command(const std::string& program, const NodeTask& task) {
    Command command;
    command.arguments.push_back(program);
    command.environment = clean_environment();
    command.input = to_json(task);
    return command;
}

std::string node_agent_log(const std::string& data_directory) {
    return data_directory + ".pgxc_ha.log";
}

NodeAgentResult run_node_task(const NodeTask& task) {
    asio::io_context loop;
    NodeAgentResult result;
    if (task.kind == NodeTask::Kind::CheckStart) {
        Result<StartVerdict> verdict = Error{};
        const Status ran =
            run_to_end(loop, [&]() -> asio::awaitable<void> { verdict = co_await check_start(task); });
        if (!ran.ok()) verdict = ran.error();
        if (!verdict.ok()) return {1, verdict.error().message};
        return {0, to_json(*verdict)};
    }
    Status done;
    const Status ran = run_to_end(loop, [&]() -> asio::awaitable<void> { done = co_await carry_out(task); });
    if (!ran.ok()) done = ran;
    if (!done.ok()) log_warning(done.error().message + " " + done.error().detail);
    NodeAnswer answer;
    answer.ticket = task.request.ticket;
    answer.done = done.ok();
    if (!done.ok()) answer.error = done.error();
    Status kept = replace_file_durably(task.server.data_directory + node_answer_file, to_json(answer));
    if (!kept.ok()) log_warning(kept.error().message);
    return {done.ok() ? 0 : 1, {}};
}

}  // namespace pgxc
