#include "pooler/session.h"

#include <array>
#include <cstring>

#include "base/limits.h"
#include "base/log.h"
#include "pooler/router.h"
#include "wire/messages.h"
#include "wire/startup.h"

namespace pgxc::pooler {
namespace {

/// Input that is read ahead of a client that waits, only to notice when it hangs up.
constexpr std::size_t max_read_ahead = 64 * 1024;
constexpr std::size_t kept_capacity = 16 * 1024;
/// A pinned client that has been idle for so long is looked at: does it still need its connection?
constexpr Millis ask_after{1000};

/// A session that asked for silence would not be told that a commit is on no synchronous slave (F19).
bool silences_warnings(std::string_view name, std::string_view value) {
    return name == "client_min_messages" && is_quiet_level(value);
}

/// Are new tables made in pg_temp? "$user" may stand for no schema.
bool begins_with_temporary(std::string_view search_path) {
    const auto at = search_path.find("pg_temp");
    if (at == std::string_view::npos) return false;
    const std::string_view before = search_path.substr(0, at);
    return before.find(',') == std::string_view::npos || before.find("$user") != std::string_view::npos;
}

bool is_true(const std::string* value) {
    if (value == nullptr) return false;
    const std::string text = to_lower(*value);
    return text == "on" || text == "true" || text == "yes" || text == "1" || text == "t" || text == "y";
}

}  // namespace

Session::Session(Context& context, SessionOwner& owner, ClientId id, ClientAddress from)
    : context_(context),
      owner_(owner),
      id_(id),
      from_(std::move(from)),
      connected_at_(
          std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now())),
      login_deadline_(context.settings().login_timeout == Millis{0}
                          ? TimePoint::max()
                          : Clock::now() + context.settings().login_timeout),
      login_(std::make_unique<ClientLogin>(context.environment, from_)) {}

Session::~Session() = default;

Status Session::start(net::Accepted accepted) {
    net::tune_tcp(accepted.fd.get(), net::KeepAlive{});
    auto stream = net::Stream::adopt(context_.loop, std::move(accepted.fd), *this);
    if (!stream) return stream.error();
    client_ = Connection{std::move(*stream)};
    client_.stream().want_readable(true);
    return {};
}

void Session::set_state(State state) {
    if (state_ == State::Ended) return;
    state_ = state;
    if (state == State::Idle) quiet_since_ = context_.coarse_now;
    context_.stats_changed = true;
}

void Session::on_readable() {
    static const std::string nothing;
    const bool wait = state_ != State::Login && !takes_commands();
    if (wait && kept_.size() >= max_read_ahead) {
        client_.stream().want_readable(false);
        return;
    }
    wire::Bytes input;
    const auto result = context_.read(client_, wait ? nothing : kept_, input);
    switch (result.outcome) {
        case net::IoResult::Outcome::WouldBlock:
            return;
        case net::IoResult::Outcome::Ended:
            leave();
            return;
        case net::IoResult::Outcome::Failed:
            note_read_failure(result.error);
            close();
            return;
        case net::IoResult::Outcome::Done:
            break;
    }
    if (wait) {
        kept_.append(input);
    } else if (state_ == State::Login) {
        login_input(input);
    } else {
        take_commands(input);
    }
}

void Session::on_writable() {
    context_.begin_event();
    if (!send()) return;
    if (client_.backlog() > 0) return;
    if (leaving_ && !owes_answers()) {
        close();
        return;
    }
    if (backend_ != nullptr) backend_->read_on(true);
    if (!leaving_) resume();
}

bool Session::send(wire::Bytes run) {
    if (state_ == State::Ended) return false;
    if (!client_.flush(run)) {
        close();
        return false;
    }
    if (client_.backlog() > 0) {
        // Who doesn't read is not read from either, as a server does.
        if (backend_ != nullptr) backend_->read_on(false);
        client_.stream().want_readable(false);
    }
    return true;
}

void Session::keep(wire::Bytes rest) {
    if (state_ == State::Ended) return;
    if (!rest.empty()) {
        kept_.assign(rest);
        return;
    }
    kept_.clear();
    if (kept_.capacity() > kept_capacity) std::string{}.swap(kept_);
}

void Session::leave() {
    const bool waits = state_ == State::Settling || (state_ == State::Linked && paused_ && owes_answers());
    if (state_ == State::Applying || (waits && !kept_.empty())) {
        // What it sent is about to be passed on; resume() reads on, and meets the end of its input again.
        client_.stream().want_readable(false);
        return;
    }
    // A server does what it was sent before it looks for more, and then sees that the client has gone.
    if (!owes_answers()) {
        close();
        return;
    }
    leaving_ = true;
    paused_ = true;
    client_.stream().want_readable(false);
}

bool Session::owes_answers() const {
    if (state_ != State::Linked) return false;
    const auto& tracker = backend_->tracker();
    // In doubt: what is owed was perhaps skipped, and will never be answered.
    if (tracker.copy_mode() == wire::TransactionTracker::CopyMode::In || tracker.in_doubt()) return false;
    // A message that was cut off is never answered, nor is a pipeline without its Sync.
    const std::size_t cut_off = client_pass_ > 0 && client_pass_owes_ ? 1 : 0;
    return tracker.ready_for_query_owed() > backend_->expected.own_units() + cut_off;
}

void Session::close() {
    if (state_ == State::Ended) return;
    set_state(State::Ended);
    state_ = State::Ended;
    leave_login();
    if (waits_for_) waits_for_->stop_waiting(*this);
    waits_for_.reset();
    if (backend_ != nullptr) let_go(false);
    if (cancel_key_) context_.cancels.remove(*cancel_key_);
    if (counted_) --context_.logged_in;
    client_.close();
    owner_.session_ended(*this);
}

void Session::end(const Error& error) {
    if (state_ == State::Ended) return;
    // In the middle of a large message an error would be taken for a part of it.
    const bool boundary = server_pass_ == 0 || server_pass_dropped_;
    // Before its startup message a client is told nothing, as by the server.
    if (boundary && (state_ != State::Login || login_->has_startup())) {
        wire::put_error_response(client_.out(), wire::Severity::Fatal, error);
        (void)client_.flush();
    }
    close();
}

void Session::end_when_idle(const Error& error) {
    if (in_transaction()) {
        end_when_idle_ = error;
    } else {
        end(error);
    }
}

void Session::role_replaced(const Error& error) {
    if (state_ != State::Linked || !in_transaction()) {
        end(error);
        return;
    }
    end_when_idle_ = error;
    no_other_server_ = true;
}

bool Session::in_transaction() const {
    switch (state_) {
        case State::Idle:
            return failed_block_.active() || !deferred_begin_.empty();
        case State::Waiting:
            // In a pause nothing begins before somebody ends that, who may not be able to any more.
            return !waits_for_ || !waits_for_->target().paused;
        case State::Applying:
            return true;
        case State::Linked:
            return !backend_->tracker().clean_and_idle();
        case State::Login:
        case State::LoginWaiting:
        case State::LoginApplying:
        case State::Settling:  // what it was in is over, and answered
        case State::Ended:
            return false;
    }
    return false;
}

bool Session::ends_now() {
    if (!end_when_idle_ || in_transaction()) return false;
    const Error error = *end_when_idle_;
    end(error);
    return true;
}

void Session::protocol_error(const Error& error) {
    log_info("pooler: client " + from_.to_string() + ": " + error.message);
    end(error);
}

bool Session::tick(TimePoint now) {
    // No server tells of the ROLLBACK of a lost block, nor of a pause in which one is waited for.
    if (ends_now()) return true;
    // Something may have ended that no statement told of (a function dropped the temporary table).
    if (state_ == State::Linked && !asked_while_quiet_ &&
        pins_.has(PinReasons::probed | PinReasons::NamedInSql) && now - quiet_since_ >= ask_after &&
        admitted_ && kept_.empty() && client_pass_ == 0 && backend_->tracker().clean_and_idle()) {
        asked_while_quiet_ = true;
        settle();
        return false;
    }
    const Millis idle_limit = context_.settings().client_idle_timeout;
    if (idle_limit > Millis{0} && now - quiet_since_ >= idle_limit && in_no_transaction()) {
        end({sqlstate::idle_session_timeout,
             "terminating connection: the client has been idle for longer than pgxc.client_idle_timeout (" +
                 std::to_string(idle_limit.count()) + " ms)",
             "Connect again, or let the application's own pool close connections sooner."});
        return true;
    }
    // A refusal that is held back comes by itself, and soon.
    if (state_ != State::Login || login_delayed_ || now < login_deadline_) return false;
    log_info("pooler: client " + from_.to_string() + " did not log in in time");
    end({sqlstate::query_canceled, "canceling authentication due to timeout",
         "The time for a login is pgxc.client_login_timeout, or else authentication_timeout."});
    return true;
}

bool Session::in_no_transaction() const {
    if (state_ == State::Idle) return !failed_block_.active() && deferred_begin_.empty();
    return state_ == State::Linked && pinned() && !paused_ && backend_->tracker().clean_and_idle();
}

void Session::proven() {
    if (context_.logged_in >= static_cast<std::size_t>(context_.settings().max_client_connections)) {
        refuse_login({sqlstate::too_many_connections, "sorry, too many clients already",
                      "The pooler's limit is pgxc.max_client_connections."});
        return;
    }
    wire::StartupMessage& startup = login_->startup();
    if (startup.options_have_switches) {
        refuse_login({sqlstate::feature_not_supported,
                      "options \"" + startup.options + "\" are not possible through the pooler",
                      "Only settings (-c name=value) are."});
        return;
    }
    for (const auto& [name, value] : startup.own_settings) {
        if (name == "pgxc.node" || name == "pgxc.read_routing") continue;
        // Passed over, a misspelt one would lead somewhere else than was meant.
        refuse_login({sqlstate::undefined_object, "unrecognized configuration parameter \"" + name + "\"",
                      "Of pgxc_ha's settings a connection through the pooler can begin with pgxc.node and "
                      "pgxc.read_routing."});
        return;
    }
    auto group = choose_group(startup.node(), *context_.view, context_.settings().own_node_id);
    if (!group) {
        refuse_login(group.error());
        return;
    }
    group_ = *group;
    routing_ = context_.settings().read_routing;
    if (const auto text = startup.read_routing()) {
        const auto routing = parse_read_routing(*text);
        if (!routing) {
            refuse_login(routing.error());
            return;
        }
        routing_ = *routing;
    }
    SettingSet settings;
    for (const auto* list : {&startup.options_settings, &startup.parameters}) {
        for (const auto& [name, value] : *list) {
            const std::string lower = to_lower(name);
            if (silences_warnings(lower, value)) {
                quiet_.logged_in(true);
            } else {
                settings.set(lower, value);
            }
        }
    }
    wanted_ = context_.setting_sets.intern(std::move(settings));
    login_wanted_ = wanted_;
    read_defaults();
    database_ = startup.database;
    user_ = startup.user;
    counted_ = true;
    ++context_.logged_in;
    set_state(State::LoginWaiting);
    group_pool_ = context_.pools->get({group_, database_, user_});
    if (const auto* known = group_pool_->known_login(*wanted_)) {
        finish_login(*known);
        return;
    }
    wait_for(group_pool_);
}

void Session::read_defaults() {
    const std::string* path = wanted_->find("search_path");
    makes_all_temporary_ = path != nullptr && begins_with_temporary(*path);
    default_read_only_ = is_true(wanted_->find("default_transaction_read_only"));
    const std::string* isolation = wanted_->find("default_transaction_isolation");
    default_serializable_ = isolation != nullptr && to_lower(*isolation) == "serializable";
    const std::string* name = wanted_->find("application_name");
    application_name_ = name == nullptr ? "" : *name;
    maybe_async_ = maybe_async_ || wanted_->find("synchronous_commit") != nullptr;
    strict_default_ =
        strict_default_ || isolation != nullptr || wanted_->find("transaction_isolation") != nullptr;
}

void Session::learn_login(Backend& backend) {
    const Backend::Reported reported = backend.reported();
    backend.pool().remember_login(*wanted_, reported);
    let_go(true);
    finish_login(reported);
}

void Session::finish_login(const Backend::Reported& reported) {
    for (int attempt = 0; attempt < 8 && !cancel_key_; ++attempt) {
        std::array<std::uint32_t, 2> random{};
        if (!context_.environment.strong_random(reinterpret_cast<std::uint8_t*>(random.data()),
                                                sizeof random))
            break;
        cancel_key_ = context_.cancels.add(random[0], random[1], *this);
    }
    if (!cancel_key_) {
        refuse_login({sqlstate::internal_error, "could not generate random cancel key"});
        return;
    }
    auto& out = client_.out();
    wire::put_authentication_ok(out);
    for (const auto& [name, value] : reported) wire::put_parameter_status(out, name, value);
    wire::put_backend_key_data(out, cancel_key_->pid, cancel_key_->secret);
    wire::put_ready_for_query(out, wire::TransactionStatus::Idle);
    note_reported(reported);
    login_.reset();
    set_state(State::Idle);
    if (send()) resume();
}

void Session::cancel() {
    switch (state_) {
        case State::Waiting: {
            const auto pool = std::exchange(waits_for_, nullptr);
            pool->stop_waiting(*this);
            refuse_canceled(*pool);
            return;
        }
        case State::Applying:
            // The server does something of the pooler's; the statement is refused when that is over.
            cancel_waits_ = true;
            return;
        case State::Settling:
            // Meant is what has come since; what was before is over, and answered.
            cancel_waits_ = !kept_.empty();
            return;
        case State::Linked: {
            auto& tracker = backend_->tracker();
            const auto& expected = backend_->expected;
            if (tracker.quiet() || (expected.any_own_unit() && expects_only_own())) return;
            // What runs now is the pooler's, and not what the client wants cancelled.
            cancel_waits_ = expected.in_own_unit();
            if (cancel_waits_) {
                // But a PREPARE waits for locks as what needs it does.
                const std::string* const brought = statement_being_brought();
                if (brought != nullptr && !brought->empty()) backend_->cancel();
                return;
            }
            // A cancelled COMMIT would be one whose durability nobody knows (FAILOVER_PROTOCOL, rule 12).
            const bool committing = told_ != wire::TransactionStatus::Idle && tracker.commit_may_be_running();
            if (!committing) backend_->cancel();
            return;
        }
        case State::Login:
        case State::LoginWaiting:
        case State::LoginApplying:
        case State::Idle:
        case State::Ended:
            return;
    }
}

void Session::refuse_canceled(const NodePool& pool) {
    refuse_pending({sqlstate::query_canceled, "canceling statement due to user request"}, pool);
}

ClientRow Session::row() const {
    ClientRow row;
    row.id = id_;
    row.address = from_.to_string();
    row.database = database_;
    row.user = user_;
    row.application_name = application_name_;
    row.node = group_;
    row.connected_at = connected_at_;
    row.transactions = transactions_;
    switch (state_) {
        case State::Login:
        case State::LoginApplying:
            row.state = "login";
            break;
        case State::LoginWaiting:
        case State::Waiting:
            row.why = waits_for_ ? waits_for_->trouble() : std::string{};
            row.state = row.why.empty() ? "waiting" : "held";
            if (row.why.empty()) row.why = "all server connections that may be are in use or being opened";
            break;
        case State::Idle:
            row.state = in_no_transaction() ? "idle" : "active";
            if (!deferred_begin_.empty()) row.why = "its transaction has no server yet";
            if (failed_block_.active()) row.why = "its transaction failed, and it has not ended it";
            break;
        case State::Ended:
            row.state = "idle";
            break;
        case State::Applying:
        case State::Linked:
        case State::Settling:
            row.state = pinned() ? "pinned" : "active";
            row.why = pin_text_;
            break;
    }
    return row;
}

}  // namespace pgxc::pooler
