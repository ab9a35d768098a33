#pragma once

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fakes/run_until.h"
#include "net/listener.h"
#include "net/loop.h"
#include "net/stream.h"
#include "wire/messages.h"
#include "wire/startup.h"

/// Clients and servers that speak as much of the protocol as a test tells them, on the loop of what they
/// test.
namespace pgxc::fakes {

struct Message {
    char type = 0;
    std::string body;
};

/// Takes whole messages off the front of a buffer.
inline std::vector<Message> take_messages(std::string& buffer) {
    std::vector<Message> messages;
    while (buffer.size() >= wire::header_bytes) {
        const std::size_t total = 1 + wire::get_u32(buffer.data() + 1);
        if (buffer.size() < total) break;
        messages.push_back({buffer[0], buffer.substr(wire::header_bytes, total - wire::header_bytes)});
        buffer.erase(0, total);
    }
    return messages;
}

/// One end of a connection that a test drives.
class Peer : public net::StreamEvents {
  public:
    Peer(net::Loop& loop, UniqueFd fd) {
        // What it says in pieces comes at once.
        net::tune_tcp(fd.get(), net::KeepAlive{});
        auto adopted = net::Stream::adopt(loop, std::move(fd), *this);
        stream_ = std::move(adopted).value();
        stream_.want_readable(true);
    }
    virtual ~Peer() = default;
    void send(const std::string& bytes) {
        out_ += bytes;
        on_writable();
    }
    /// Closes at once; with `reset`, so that the other side gets ECONNRESET.
    void hang_up(bool reset = false) {
        if (!stream_.open()) return;
        if (reset) {
            const linger now{1, 0};
            (void)::setsockopt(stream_.fd(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
        }
        stream_.close();
    }
    void read_on(bool wanted) { stream_.want_readable(wanted); }
    [[nodiscard]] bool ended() const { return ended_ || !stream_.open(); }

  protected:
    virtual void received() = 0;
    std::string in_;

  private:
    void on_readable() override {
        char buffer[65536];
        const auto result = stream_.read(buffer);
        if (result.outcome == net::IoResult::Outcome::Done) {
            in_.append(buffer, result.bytes);
            received();
        } else if (result.outcome != net::IoResult::Outcome::WouldBlock) {
            ended_ = true;
            stream_.close();
        }
    }
    void on_writable() override {
        if (!stream_.open()) return;
        const auto result = stream_.write(std::string_view{out_});
        if (result.outcome == net::IoResult::Outcome::Failed) {
            ended_ = true;
            stream_.close();
            return;
        }
        out_.erase(0, result.bytes);
        if (!out_.empty()) stream_.want_writable();
    }

    net::Stream stream_;
    std::string out_;
    bool ended_ = false;
};

/// A client: collects what it is told.
class Client : public Peer {
  public:
    Client(net::Loop& loop, int port)
        : Client(loop, *net::SocketAddress::from_literal("127.0.0.1", static_cast<std::uint16_t>(port))) {}
    Client(net::Loop& loop, const net::SocketAddress& address) : Peer(loop, net::start_connect(address).fd) {}

    void start(std::vector<wire::Setting> settings = {}, const std::string& user = "u",
               const std::string& db = "d") {
        wire::Buffer out;
        wire::put_startup_message(out, user, db, settings);
        send(out);
    }
    void query(const std::string& sql) {
        wire::Buffer out;
        wire::put_query(out, sql);
        send(out);
    }
    /// How many messages of that type have come.
    [[nodiscard]] std::size_t count(char type) const {
        std::size_t number = 0;
        for (const auto& message : messages) number += message.type == type ? 1 : 0;
        return number;
    }
    [[nodiscard]] std::string types() const {
        std::string all;
        for (const auto& message : messages) all += message.type;
        return all;
    }
    /// SQLSTATE of the last ErrorResponse; empty if there was none.
    [[nodiscard]] std::string sqlstate() const { return error().sqlstate; }
    [[nodiscard]] Error error() const {
        Error last;
        last.sqlstate.clear();
        for (const auto& message : messages) {
            if (message.type != 'E') continue;
            if (const auto fields = wire::parse_error_fields(message.body)) last = fields->to_error();
        }
        return last;
    }
    /// Status of the last ReadyForQuery.
    [[nodiscard]] char status() const {
        char last = 0;
        for (const auto& message : messages) {
            if (message.type == 'Z' && !message.body.empty()) last = message.body[0];
        }
        return last;
    }

    std::vector<Message> messages;
    std::string raw;  // while raw_only
    bool raw_only = false;

  private:
    void received() override {
        if (raw_only) {
            raw += std::exchange(in_, {});
            return;
        }
        for (auto& message : take_messages(in_)) messages.push_back(std::move(message));
    }
};

class Server;

/// One connection at a fake server.
class Backend : public Peer {
  public:
    Backend(net::Loop& loop, UniqueFd fd, Server& owner) : Peer(loop, std::move(fd)), server(owner) {}
    Server& server;
    char status = 'I';
    bool started = false;
    bool was_cancel = false;
    std::vector<std::string> queries;
    std::string types;      // of all messages after the startup
    std::string prepared;   // its unnamed statement
    bool skipping = false;  // up to Sync

    void complete(const std::string& tag, char then) {
        wire::Buffer out;
        wire::put_command_complete(out, tag);
        status = then;
        wire::put_ready_for_query(out, static_cast<wire::TransactionStatus>(then));
        send(out);
    }
    /// Answers what the pooler asks of a session that may keep something: rows of (kind, name, value).
    void tell_what_is_left(const std::vector<std::vector<std::string>>& rows) {
        wire::Buffer out;
        for (const auto& row : rows) {
            wire::Buffer body;
            wire::put_u16(body, static_cast<std::uint16_t>(row.size()));
            for (const auto& value : row) {
                wire::put_u32(body, static_cast<std::uint32_t>(value.size()));
                body += value;
            }
            wire::put_u8(out, 'D');
            wire::put_u32(out, static_cast<std::uint32_t>(body.size() + 4));
            out += body;
        }
        wire::put_command_complete(out, "SELECT " + std::to_string(rows.size()));
        wire::put_ready_for_query(out, static_cast<wire::TransactionStatus>(status));
        send(out);
    }
    void fail(const std::string& state, bool fatal = false) {
        wire::Buffer out;
        wire::put_error_response(out, fatal ? wire::Severity::Fatal : wire::Severity::Error,
                                 {state, "scripted error"});
        if (!fatal) {
            if (status == 'T') status = 'E';
            wire::put_ready_for_query(out, static_cast<wire::TransactionStatus>(status));
        }
        send(out);
    }

  private:
    void received() override;
};

/// A server on a loopback port of its own, or in a directory. Without a script it accepts everybody and
/// answers statements by their first word.
class Server {
  public:
    explicit Server(net::Loop& loop, const std::string& directory = {}) : loop_(loop) {
        const auto take = [this](net::Accepted accepted) {
            backends.push_back(std::make_unique<Backend>(loop_, std::move(accepted.fd), *this));
        };
        constexpr int number_of_socket = 5999;
        auto made =
            directory.empty()
                ? net::Listener::tcp(loop, *net::SocketAddress::from_literal("127.0.0.1", 0), false, take)
                : net::Listener::unix_socket(loop, directory, number_of_socket, "", 0777, take);
        listener_ = std::move(made).value();
        port = directory.empty() ? listener_->port() : number_of_socket;
    }
    int port = 0;
    std::vector<std::unique_ptr<Backend>> backends;
    /// Called for each simple query; true = answered.
    std::function<bool(Backend&, const std::string&)> on_query;
    /// Called for each other message; without it, it knows the unnamed statement.
    std::function<void(Backend&, const Message&)> on_message;
    /// What it refuses, there, and skips all up to Sync.
    std::string refused;
    /// Called instead of the usual welcome.
    std::function<void(Backend&)> on_startup;
    std::vector<wire::Setting> parameters{{"server_version", "15.0"}, {"TimeZone", "UTC"}};
    std::vector<wire::CancelRequest> cancels;
    bool closes_cancels = true;  // else who asks to cancel isn't answered
    /// What it says to the pooler's own question.
    bool in_recovery = false;
    std::string position = "0/3E8";  // 1000
    std::string inserted = "0/3E8";
    std::string synchronous_commit = "on";
    std::string isolation = "read committed";
    std::string xmax = "700";
    bool answers_questions = true;
    std::size_t questions = 0;
    std::function<void(Backend&)> on_question;
    void answer_question(Backend& backend) {
        ++questions;
        if (on_question) on_question(backend);
        if (!answers_questions) return;
        wire::Buffer body;
        const std::vector<std::string> cells{in_recovery ? "t" : "f", position,  inserted,
                                             synchronous_commit,      isolation, xmax};
        wire::put_u16(body, static_cast<std::uint16_t>(cells.size()));
        for (const auto& cell : cells) {
            wire::put_u32(body, static_cast<std::uint32_t>(cell.size()));
            body += cell;
        }
        wire::Buffer out = "D";
        wire::put_u32(out, static_cast<std::uint32_t>(body.size() + 4));
        out += body;
        wire::put_command_complete(out, "SELECT 1");
        wire::put_ready_for_query(out, wire::TransactionStatus::Idle);
        backend.send(out);
    }

    [[nodiscard]] std::vector<std::string> queries() const {
        std::vector<std::string> all;
        for (const auto& backend : backends)
            all.insert(all.end(), backend->queries.begin(), backend->queries.end());
        return all;
    }
    [[nodiscard]] std::size_t open_backends() const {
        std::size_t count = 0;
        for (const auto& backend : backends) count += backend->ended() || backend->was_cancel ? 0 : 1;
        return count;
    }
    /// As kill -9 of the postmaster and its children: nothing listens, every connection is reset.
    void die() {
        listener_.reset();
        for (auto& backend : backends) backend->hang_up(true);
    }
    void welcome(Backend& backend) {
        wire::Buffer out;
        wire::put_authentication_ok(out);
        for (const auto& [name, value] : parameters) wire::put_parameter_status(out, name, value);
        wire::put_backend_key_data(out, static_cast<std::uint32_t>(backends.size()), 4711);
        wire::put_ready_for_query(out, wire::TransactionStatus::Idle);
        backend.send(out);
    }
    static void answer(Backend& backend, const std::string& sql) {
        if (sql.starts_with("begin")) {
            backend.complete("BEGIN", 'T');
        } else if (sql.starts_with("commit")) {
            backend.complete(backend.status == 'E' ? "ROLLBACK" : "COMMIT", 'I');
        } else if (sql.starts_with("rollback")) {
            backend.complete("ROLLBACK", 'I');
        } else {
            backend.complete(sql.starts_with("insert") ? "INSERT 0 1"
                             : sql.starts_with("set ") ? "SET"
                                                       : "SELECT 1",
                             backend.status);
        }
    }
    void answer_extended(Backend& backend, const Message& message) const {
        wire::Buffer out;
        if (message.type == 'S') {
            backend.skipping = false;
            wire::put_ready_for_query(out, static_cast<wire::TransactionStatus>(backend.status));
        } else if (backend.skipping) {
            return;
        } else if (message.type == 'P') {
            backend.prepared = wire::parse_parse(message.body)->sql;
            wire::put_parse_complete(out);
        } else if (message.type == 'B') {
            wire::put_bind_complete(out);
        } else if (message.type == 'E') {
            backend.queries.push_back(backend.prepared);
            if (backend.prepared == refused) {
                backend.skipping = true;
                wire::put_error_response(out, wire::Severity::Error, {"57014", "scripted error"});
            } else {
                const bool begins = backend.prepared.starts_with("begin");
                if (begins) backend.status = 'T';
                wire::put_command_complete(out, begins ? "BEGIN" : "SELECT 1");
            }
        }
        if (!out.empty()) backend.send(out);
    }

  private:
    net::Loop& loop_;
    std::unique_ptr<net::Listener> listener_;
};

inline void Backend::received() {
    if (!started) {
        const auto bytes = wire::startup_packet_bytes(in_);
        if (!bytes || !*bytes || in_.size() < **bytes) return;
        const auto packet = wire::parse_startup_packet(wire::Bytes{in_}.substr(0, **bytes));
        started = true;
        if (packet && std::holds_alternative<wire::CancelRequest>(*packet)) {
            server.cancels.push_back(std::get<wire::CancelRequest>(*packet));
            was_cancel = true;
            if (server.closes_cancels) hang_up();
            return;
        }
        in_.erase(0, **bytes);
        server.on_startup ? server.on_startup(*this) : server.welcome(*this);
    }
    for (const auto& message : take_messages(in_)) {
        types += message.type;
        if (message.type == 'Q') {
            const std::string sql = message.body.substr(0, message.body.size() - 1);
            if (skipping) continue;
            if (sql.starts_with("SELECT pg_catalog.pg_is_in_recovery()")) {
                server.answer_question(*this);
                continue;
            }
            queries.push_back(sql);
            if (!server.on_query || !server.on_query(*this, sql)) Server::answer(*this, sql);
        } else if (server.on_message) {
            server.on_message(*this, message);
        } else {
            server.answer_extended(*this, message);
        }
    }
}

}  // namespace pgxc::fakes
