#include <libpq-fe.h>

#include <asio/ip/tcp.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <utility>

#include "net/bounded_wait.h"
#include "net/host_lookup.h"
#include "replication/node_connection.h"

namespace pgxc {
namespace {

using asio::posix::stream_descriptor;

std::string trimmed(const char* text) {
    std::string line = text != nullptr ? text : "";
    while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) line.pop_back();
    return line;
}

/// The SQLSTATE in libpq's verbose message "FATAL:  57P03: the database ...": severity is translated, this is
/// not.
std::string sqlstate_in(const std::string& message) {
    for (auto at = message.find(":  "); at != std::string::npos; at = message.find(":  ", at + 1)) {
        auto code = message.substr(at + 3, 5);
        const bool all = code.size() == 5 && message.size() > at + 9 && message[at + 8] == ':' &&
                         code.find_first_not_of("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == std::string::npos;
        if (all) return code;
    }
    return {};
}

/// The part of a verbose message that a person wants: without SQLSTATE and LOCATION.
std::string readable(const std::string& message) {
    std::string text = message.substr(0, message.find("\nLOCATION:"));
    const auto code = sqlstate_in(text);
    if (!code.empty()) {
        const auto at = text.find(code + ": ");
        if (at != std::string::npos) text.erase(at, code.size() + 2);
    }
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
}

/// A backend whose postmaster was killed says 57P01 too (be-secure.c, "unexpected postmaster exit"): that is
/// no shutdown in good order. The reporting function tells them apart in every language.
bool is_orphaned(const PGresult* result) {
    const char* routine = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);
    return routine != nullptr &&
           (std::string_view(routine) == "secure_read" || std::string_view(routine) == "secure_write");
}

NodeError lost(const std::string& what, Silence silence, const std::string& why) {
    return {{sqlstate::connection_failure, what + ": " + why}, silence, {}};
}

/// What a bare TCP connection says: libpq's own message is translated text and no base for a decision.
asio::awaitable<Silence> knock(std::string address, std::uint16_t port, TimePoint deadline) {
    const auto executor = co_await asio::this_coro::executor;
    asio::ip::tcp::socket socket(executor);
    const net::DeadlineGuard guard(socket, deadline);
    std::error_code failed;
    co_await socket.async_connect({asio::ip::make_address(address), port},
                                  asio::redirect_error(asio::use_awaitable, failed));
    if (guard.expired()) co_return Silence::Timeout;
    if (failed == asio::error::connection_refused) co_return Silence::Refused;
    if (failed == asio::error::timed_out) co_return Silence::Timeout;
    // Something took the connection: that was no refusal, whatever happened to libpq's.
    co_return failed ? Silence::Other : Silence::Lost;
}

}  // namespace

class NodeConnection::Impl {
  public:
    Impl(const asio::any_io_executor& executor, std::string what)
        : what_(std::move(what)), descriptor_(executor) {}
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;
    ~Impl() { close(); }

    void close() {
        std::error_code ignored;
        (void)descriptor_.close(ignored);
        if (conn_ != nullptr) PQfinish(conn_);
        conn_ = nullptr;
    }

    /// Waits for the socket. libpq may have replaced it since the last time (even under the same number), so
    /// while connecting it is registered anew for every wait.
    asio::awaitable<bool> wait(stream_descriptor::wait_type type, TimePoint deadline, bool connecting) {
        // A duplicate, closed by us: libpq closes its own at an error, and the number may soon be another
        // connection's.
        if (connecting && descriptor_.is_open()) descriptor_.close();
        std::error_code failed;
        cannot_wait_.clear();
        if (!descriptor_.is_open()) failed = net::wait_on_copy(descriptor_, PQsocket(conn_));
        if (failed) {
            // Our own trouble says nothing about the server.
            cannot_wait_ = "its socket can't be watched: " + failed.message();
            co_return false;
        }
        const net::DeadlineGuard guard(descriptor_, deadline);
        co_await descriptor_.async_wait(type, asio::redirect_error(asio::use_awaitable, failed));
        co_return !failed && !guard.expired();
    }

    /// Why a wait() came to nothing.
    NodeError not_in_time() {
        if (!cannot_wait_.empty()) return fail(Silence::Other, cannot_wait_.c_str());
        return fail(Silence::Timeout, "no answer in time");
    }

    asio::awaitable<NodeResult<Rows>> flush(TimePoint deadline) {
        for (;;) {
            const int left = PQflush(conn_);
            if (left < 0) co_return fail(Silence::Lost, PQerrorMessage(conn_));
            if (left == 0) co_return Rows{};
            if (!co_await wait(stream_descriptor::wait_write, deadline, false)) co_return not_in_time();
        }
    }

    asio::awaitable<NodeResult<Rows>> collect(TimePoint deadline) {
        auto flushed = co_await flush(deadline);
        if (!flushed.ok()) co_return flushed.error();
        Rows rows;
        std::optional<NodeError> error;
        for (;;) {
            while (PQisBusy(conn_) != 0) {
                if (!co_await wait(stream_descriptor::wait_read, deadline, false)) co_return not_in_time();
                if (PQconsumeInput(conn_) == 0) co_return fail(Silence::Lost, PQerrorMessage(conn_));
            }
            const std::unique_ptr<PGresult, decltype(&PQclear)> result(PQgetResult(conn_), PQclear);
            if (result == nullptr) break;
            const auto status = PQresultStatus(result.get());
            if (status == PGRES_TUPLES_OK) {
                for (int row = 0; row < PQntuples(result.get()); ++row) {
                    auto& cells = rows.rows.emplace_back();
                    for (int column = 0; column < PQnfields(result.get()); ++column) {
                        if (PQgetisnull(result.get(), row, column) != 0)
                            cells.emplace_back();
                        else
                            cells.emplace_back(PQgetvalue(result.get(), row, column));
                    }
                }
            } else if (status != PGRES_COMMAND_OK && status != PGRES_EMPTY_QUERY) {
                const char* state = PQresultErrorField(result.get(), PG_DIAG_SQLSTATE);
                if (is_orphaned(result.get())) state = nullptr;
                const char* message = PQresultErrorField(result.get(), PG_DIAG_MESSAGE_PRIMARY);
                const char* hint = PQresultErrorField(result.get(), PG_DIAG_MESSAGE_HINT);
                NodeError told;
                told.server_sqlstate = state != nullptr ? state : "";
                told.error =
                    Error{state != nullptr ? std::string_view(state) : sqlstate::connection_failure,
                          what_ + ": " +
                              (message != nullptr ? message : trimmed(PQresultErrorMessage(result.get()))),
                          hint != nullptr ? hint : ""};
                // A result without SQLSTATE is libpq's own: the connection is gone.
                told.silence = state != nullptr ? Silence::None : Silence::Lost;
                if (!error) error = told;
            }
        }
        rows.notices = std::exchange(notices_, {});
        if (PQstatus(conn_) != CONNECTION_OK) {
            broken_ = true;
            if (!error) error = lost(what_, Silence::Lost, "the connection was lost");
        }
        if (error) co_return *error;
        co_return rows;
    }

    NodeError fail(Silence silence, const char* why) {
        broken_ = true;
        return lost(what_, silence, trimmed(why));
    }

    static void take_notice(void* self, const PGresult* result) {
        auto* impl = static_cast<Impl*>(self);
        const auto field = [&](int code) {
            const char* value = PQresultErrorField(result, code);
            return std::string(value != nullptr ? value : "");
        };
        // A backend whose postmaster was killed says 57P01 too (be-secure.c, "unexpected postmaster exit"):
        // that is no shutdown in good order. The reporting function tells them apart in every language.
        impl->last_unasked_ = is_orphaned(result) ? "" : field(PG_DIAG_SQLSTATE);
        if (impl->notices_.size() < 32)
            impl->notices_.push_back(
                {field(PG_DIAG_SQLSTATE), field(PG_DIAG_MESSAGE_PRIMARY), field(PG_DIAG_SOURCE_FUNCTION)});
    }

    std::string what_;
    stream_descriptor descriptor_;
    PGconn* conn_ = nullptr;
    std::vector<ServerNotice> notices_;
    std::string last_unasked_;
    std::string cannot_wait_;
    bool broken_ = false;
    bool interrupted_ = false;
    bool waiting_ = false;  // inside wait_broken(): the only wait that interrupt() may end
};

NodeConnection::NodeConnection(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
NodeConnection::~NodeConnection() = default;

asio::awaitable<NodeResult<std::unique_ptr<NodeConnection>>> NodeConnection::open(ConnectTarget target,
                                                                                  Millis timeout) {
    const TimePoint deadline = Clock::now() + timeout;
    const std::string what = "node at " + target.address.to_string();
    auto address = co_await net::resolve_host(target.address.host, deadline);
    if (!address.ok()) co_return NodeError{address.error(), Silence::Other, {}};

    auto impl = std::make_unique<Impl>(co_await asio::this_coro::executor, what);
    const std::string port = std::to_string(target.address.port);
    // The unacknowledged bytes of a dead peer must not outlive the time that a probe may take.
    const std::string user_timeout = std::to_string(std::max<long long>(timeout.count(), 1000));
    // The conninfo comes first, as "dbname", so that what follows it (host, user, ...) wins over what it
    // says.
    const char* keys[] = {"dbname",
                          "hostaddr",
                          "host",
                          "port",
                          "user",
                          "dbname",
                          "application_name",
                          "tcp_user_timeout",
                          "keepalives_idle",
                          "keepalives_interval",
                          "keepalives_count",
                          "gssencmode",
                          "client_encoding",
                          nullptr};
    const char* values[] = {target.login.conninfo.c_str(),
                            address->c_str(),
                            target.address.host.c_str(),
                            port.c_str(),
                            target.login.user.c_str(),
                            target.login.database.c_str(),
                            target.application_name.c_str(),
                            user_timeout.c_str(),
                            "5",
                            "1",
                            "3",
                            "disable",
                            "UTF8",
                            nullptr};
    // libpq expands only the first dbname when it holds a '='; an empty conninfo must not become the
    // database.
    const int skip = target.login.conninfo.find('=') == std::string::npos ? 1 : 0;
    impl->conn_ = PQconnectStartParams(keys + skip, values + skip, 1);
    if (impl->conn_ == nullptr)
        co_return NodeError{{sqlstate::unable_to_connect, "out of memory"}, Silence::Other, {}};
    PQsetErrorVerbosity(impl->conn_, PQERRORS_VERBOSE);
    PQsetNoticeReceiver(impl->conn_, Impl::take_notice, impl.get());

    bool timed_out = false;
    auto polling = PQstatus(impl->conn_) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
    while (polling != PGRES_POLLING_OK && polling != PGRES_POLLING_FAILED) {
        const auto type =
            polling == PGRES_POLLING_READING ? stream_descriptor::wait_read : stream_descriptor::wait_write;
        if (!co_await impl->wait(type, deadline, true)) {
            timed_out = true;
            break;
        }
        polling = PQconnectPoll(impl->conn_);
    }
    if (timed_out) {
        NodeError silent = impl->not_in_time();
        silent.error.sqlstate = sqlstate::unable_to_connect;
        co_return silent;
    }
    if (polling == PGRES_POLLING_FAILED) {
        const std::string message = trimmed(PQerrorMessage(impl->conn_));
        const std::string state = sqlstate_in(message);
        Error error{state.empty() ? sqlstate::unable_to_connect : SqlState(state),
                    what + ": " + readable(message)};
        if (!state.empty()) co_return NodeError{error, Silence::None, state};
        // Not within the braces below: GCC 12 destroys what an aggregate around a co_await is made of twice.
        const Silence heard = co_await knock(*address, target.address.port, deadline);
        co_return NodeError{error, heard, {}};
    }
    if (impl->descriptor_.is_open()) impl->descriptor_.close();
    PQsetnonblocking(impl->conn_, 1);
    co_return std::unique_ptr<NodeConnection>(new NodeConnection(std::move(impl)));
}

asio::awaitable<NodeResult<Rows>> NodeConnection::query(std::string sql, Millis timeout) {
    if (!start(sql)) co_return impl_->fail(Silence::Lost, PQerrorMessage(impl_->conn_));
    co_return co_await finish(timeout);
}

bool NodeConnection::start(const std::string& sql) {
    if (impl_->broken_) return false;
    impl_->notices_.clear();
    if (PQsendQuery(impl_->conn_, sql.c_str()) != 0) return true;
    impl_->broken_ = true;
    return false;
}

bool NodeConnection::answered() {
    return PQconsumeInput(impl_->conn_) == 0 || PQisBusy(impl_->conn_) == 0;
}

asio::awaitable<NodeResult<Rows>> NodeConnection::finish(Millis timeout) {
    co_return co_await impl_->collect(Clock::now() + timeout);
}

asio::awaitable<bool> NodeConnection::wait_broken(TimePoint until) {
    impl_->interrupted_ = false;
    while (!impl_->broken_ && !impl_->interrupted_) {
        impl_->waiting_ = true;
        const bool readable = co_await impl_->wait(stream_descriptor::wait_read, until, false);
        impl_->waiting_ = false;
        if (!readable) break;
        if (PQconsumeInput(impl_->conn_) == 0 || PQstatus(impl_->conn_) != CONNECTION_OK) {
            impl_->broken_ = true;
            break;
        }
        // A FATAL that comes unasked (57P01) is only given to the notice receiver when a result is asked for.
        if (PQisBusy(impl_->conn_) == 0) {
            const std::unique_ptr<PGresult, decltype(&PQclear)> result(PQgetResult(impl_->conn_), PQclear);
            (void)result;
        }
    }
    co_return impl_->broken_;
}

void NodeConnection::interrupt() {
    impl_->interrupted_ = true;
    if (impl_->waiting_) impl_->descriptor_.cancel();
}

bool NodeConnection::broken() const {
    return impl_->broken_;
}
int NodeConnection::backend_pid() const {
    return PQbackendPID(impl_->conn_);
}
int NodeConnection::server_version() const {
    return PQserverVersion(impl_->conn_);
}
bool NodeConnection::is_superuser() const {
    const char* reported = PQparameterStatus(impl_->conn_, "is_superuser");
    return reported != nullptr && std::string_view(reported) == "on";
}
const std::string& NodeConnection::last_unasked() const {
    return impl_->last_unasked_;
}

}  // namespace pgxc
