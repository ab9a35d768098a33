#include "replication/library_call.h"

#include <algorithm>
#include <asio/use_awaitable.hpp>

#include "base/text.h"
#include "replication/node_effects.h"
#include "replication/process_wait.h"

namespace pgxc {
namespace {

/// How often a server that restarts is asked.
constexpr Millis look_interval{30};
/// One attempt to ask it.
constexpr Millis ask_timeout{1'000};

constexpr const char* library_answer = "SELECT current_setting('pgxc.node_answer', true)";

/// The answer to the request, if the server gives one; what was said instead otherwise.
asio::awaitable<NodeResult<std::optional<NodeAnswer>>> ask_for_answer(ConnectTarget target,
                                                                      std::string ticket) {
    auto session = co_await NodeConnection::open(target, ask_timeout);
    if (!session.ok()) co_return session.error();
    auto told = co_await (*session)->query(library_answer, ask_timeout);
    if (!told.ok()) co_return told.error();
    auto answer = node_answer_from_json(told->text());
    if (answer && answer->ticket != ticket) answer.reset();
    co_return answer;
}

}  // namespace

asio::awaitable<Result<bool>> has_library(LockSession& server) {
    auto told = co_await server.run(std::string(library_answer) + " IS NOT NULL", effect_timeout);
    if (!told.ok()) co_return told.error();
    co_return told->text() == "t";
}

asio::awaitable<Status> send_to_library(LockSession& server, NodeRequest request) {
    auto done =
        co_await server.run("SET pgxc.node_request = " + sql_literal(to_json(request)), effect_timeout);
    if (!done.ok()) co_return done.error();
    co_return Status{};
}

asio::awaitable<Status> await_library(ConnectTarget target, std::vector<HostPort> addresses,
                                      std::string ticket, TimePoint deadline) {
    std::string last = "no answer";
    while (Clock::now() < deadline) {
        for (const HostPort& address : addresses) {
            target.address = address;
            auto answer = co_await ask_for_answer(target, ticket);
            if (!answer.ok()) {
                last = answer.error().error.message;
            } else if (answer->has_value()) {
                if ((*answer)->done) co_return Status{};
                co_return (*answer)->error;
            }
        }
        co_await wait_for_event_on(-1, std::min(deadline, Clock::now() + look_interval));
    }
    co_return Error{sqlstate::object_not_in_prerequisite_state,
                    "the library on the host of " + addresses.front().to_string() +
                        " has not told in time what became of what it was asked for: " + last,
                    "Look at \"<data directory>.pgxc_ha.log\" there."};
}

asio::awaitable<Status> await_stopped(ConnectTarget target, std::string ticket, TimePoint deadline) {
    while (Clock::now() < deadline) {
        auto answer = co_await ask_for_answer(target, ticket);
        if (!answer.ok() && answer.error().silence == Silence::Refused) co_return Status{};
        if (answer.ok() && answer->has_value() && !(*answer)->done) co_return (*answer)->error;
        co_await wait_for_event_on(-1, std::min(deadline, Clock::now() + look_interval));
    }
    co_return Error{sqlstate::object_not_in_prerequisite_state,
                    "the server at " + target.address.to_string() + " does not stop"};
}

}  // namespace pgxc
