#pragma once

#include <map>
#include <string>
#include <utility>

#include "fakes/fake_peers.h"

namespace pgxc::fakes {

/// Binds the unnamed portal to that statement, and executes it.
inline void put_run(wire::Buffer& out, const std::string& name) {
    wire::put_bind(out, "", name);
    wire::put_execute(out, "");
}

/// A server of which each connection has prepared statements as PostgreSQL has. Executing one gives a row
/// with its text; a text that begins with "bad" can't be prepared, one that begins with "div" fails when it
/// runs. Behind an error in a pipeline all up to its Sync is skipped, simple queries too.
class StatementServer {
  public:
    explicit StatementServer(net::Loop& loop) : server(loop) {
        server.on_message = [this](Backend& backend, const Message& message) { take(backend, message); };
        server.on_query = [this](Backend& backend, const std::string& sql) {
            return take_query(backend, sql);
        };
        server.on_question = [this](Backend& backend) { state_of(backend).statements.erase(""); };
    }

    struct State {
        std::map<std::string, std::string> statements;
        std::string bound;
        bool skipping = false;
        wire::Buffer out;  // until it is flushed
        std::size_t parses = 0;
    };
    State& state_of(const Backend& backend) { return states[&backend]; }
    State& only() { return state_of(*server.backends.front()); }

    Server server;
    std::map<const Backend*, State> states;
    bool silent = false;  // says nothing from now on

  private:
    void flush(Backend& backend) { backend.send(std::exchange(state_of(backend).out, {})); }
    void fail(Backend& backend, const char* sqlstate, const std::string& message) {
        State& state = state_of(backend);
        if (backend.status == 'T') backend.status = 'E';
        wire::put_error_response(state.out, wire::Severity::Error, {sqlstate, message});
        state.skipping = true;
        flush(backend);
    }

    bool take_query(Backend& backend, const std::string& sql) {
        State& state = state_of(backend);
        if (state.skipping || silent) return true;
        state.statements.erase("");
        flush(backend);
        if (!sql.starts_with("div")) return false;
        backend.fail("22012");
        return true;
    }

    void take(Backend& backend, const Message& message) {
        State& state = state_of(backend);
        wire::Buffer& out = state.out;
        if (silent) return;
        if (message.type == 'S') {
            state.skipping = false;
            wire::put_ready_for_query(out, static_cast<wire::TransactionStatus>(backend.status));
            flush(backend);
            return;
        }
        if (state.skipping) return;
        const auto known = [&](const std::string& name) {
            if (state.statements.contains(name)) return true;
            fail(backend, "26000", "prepared statement \"" + name + "\" does not exist");
            return false;
        };
        switch (message.type) {
            case 'P': {
                const auto parse = wire::parse_parse(message.body);
                const std::string name{parse->statement};
                ++state.parses;
                if (name.empty()) state.statements.erase(name);
                if (state.statements.contains(name))
                    return fail(backend, "42P05", "prepared statement \"" + name + "\" already exists");
                if (backend.status == 'E' && parse->sql.find("ROLLBACK") != 0 &&
                    parse->sql.find("rollback") != 0)
                    return fail(backend, "25P02", "current transaction is aborted");
                if (parse->sql.starts_with("bad")) return fail(backend, "42601", "syntax error");
                state.statements[name] = parse->sql;
                wire::put_parse_complete(out);
                break;
            }
            case 'B': {
                const std::string name{wire::parse_bind_names(message.body)->statement};
                if (!known(name)) return;
                state.bound = state.statements[name];
                wire::put_bind_complete(out);
                break;
            }
            case 'D': {
                const auto described = wire::parse_describe_or_close(message.body);
                if (described->kind == wire::ObjectKind::Statement) {
                    if (!known(std::string{described->name})) return;
                    out.append("t\0\0\0\6\0\0", 7);  // ParameterDescription: none
                }
                wire::put_no_data(out);
                break;
            }
            case 'E':
                if (state.bound.starts_with("div")) return fail(backend, "22012", "division by zero");
                if (state.bound == "deallocate all") {
                    state.statements.clear();
                    wire::put_command_complete(out, "DEALLOCATE ALL");
                    break;
                }
                wire::put_u8(out, 'D');
                wire::put_u32(out, static_cast<std::uint32_t>(4 + 2 + 4 + state.bound.size()));
                wire::put_u16(out, 1);
                wire::put_u32(out, static_cast<std::uint32_t>(state.bound.size()));
                out += state.bound;
                wire::put_command_complete(out, "SELECT 1");
                break;
            case 'C':
                state.statements.erase(std::string{wire::parse_describe_or_close(message.body)->name});
                wire::put_close_complete(out);
                break;
            case 'H':
                flush(backend);
                break;
            default:
                break;
        }
    }
};

}  // namespace pgxc::fakes
