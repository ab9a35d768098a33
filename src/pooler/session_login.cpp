#include <cstring>

#include "base/log.h"
#include "pooler/router.h"
#include "pooler/session.h"
#include "wire/messages.h"

namespace pgxc::pooler {

void Session::login_input(wire::Bytes input) {
    if (login_paused_) {
        keep(input);
        client_.stream().want_readable(false);
        return;
    }
    if (login_->wants_tls_info() && client_.stream().secured())
        login_->secured(client_.stream().tls()->info());
    const auto step = login_->take(input, client_.out());
    keep(input);
    login_step(step);
}

void Session::login_step(ClientLogin::Step step) {
    switch (step) {
        case ClientLogin::Step::NeedMore:
            (void)send();
            return;
        case ClientLogin::Step::StartTls:
            start_client_tls();
            return;
        case ClientLogin::Step::Work:
            if (send()) begin_login_work();
            return;
        case ClientLogin::Step::NameHost:
            if (send()) look_up_host();
            return;
        case ClientLogin::Step::Proven:
            authorized();
            return;
        case ClientLogin::Step::Refuse:
            if (login_->guessed()) {
                refuse_login_later();
            } else {
                refuse_login(login_->error());
            }
            return;
        case ClientLogin::Step::CloseSilently:
            close();
            return;
        case ClientLogin::Step::Cancel:
            owner_.cancel_requested({login_->cancel_request().pid, login_->cancel_request().secret});
            close();
            return;
    }
}

void Session::start_client_tls() {
    // The answer to the request is the last plain byte.
    if (!send()) return;
    auto context = context_.environment.tls();
    if (client_.backlog() > 0 || context == nullptr) {
        close();
        return;
    }
    if (auto status = client_.stream().start_tls(std::move(context)); !status) {
        log_warning("pooler: client " + from_.to_string() + ": " + status.error().message);
        close();
    }
}

void Session::pause_login(bool paused) {
    login_paused_ = paused;
    client_.stream().want_readable(!paused);
}

void Session::begin_login_work() {
    pause_login(true);
    net::Resolver& thread = login_->job_may_hang() ? context_.system_users : context_.login_work;
    login_wait_ = thread.run(login_->take_job(), [this] { login_goes_on(login_->job_done()); });
}

void Session::look_up_host() {
    pause_login(true);
    login_wait_ = context_.client_names.ask(from_.address, [this](const net::ConfirmedNames::Answer& answer) {
        std::optional<ClientHostName> name;
        if (answer) name = ClientHostName{answer->name, answer->confirmed};
        login_goes_on(login_->host_named(std::move(name), client_.out()));
    });
}

void Session::login_goes_on(ClientLogin::Step step) {
    // Also where it waits for a server now: else nobody would notice that it hangs up.
    pause_login(false);
    login_step(step);
    if (state_ != State::Login || login_paused_) return;
    const std::string input = std::exchange(kept_, {});
    if (!input.empty()) login_input(input);
}

bool Session::role_has_room() {
    const RoleInfo& role = login_->role();
    const std::string& user = login_->startup().user;
    owner_.role_logs_in(user, role.oid);
    if (role.superuser || role.connection_limit < 0 ||
        owner_.clients_of(user) < static_cast<std::size_t>(role.connection_limit))
        return true;
    refuse_login({sqlstate::too_many_connections, "too many connections for role \"" + user + "\"",
                  "The role's CONNECTION LIMIT allows " + std::to_string(role.connection_limit) + "."});
    return false;
}

void Session::authorized() {
    if (!role_has_room()) return;
    const std::string& user = login_->startup().user;
    if (context_.settings().log_connections) {
        const auto application = login_->startup().setting("application_name");
        log_info("pooler: connection authorized: client=" + from_.to_string() + " user=" + user +
                 " database=" + login_->startup().database +
                 (application ? " application_name=" + std::string{*application} : "") + " " + login_->how());
    }
    if (const auto& keys = login_->pass_through()) pass_key_ = context_.pass_keys.remember(user, *keys);
    if (context_.view->generation == Generation{} && !chooses_own_coordinator(login_->startup().node())) {
        // The server has only just started. The time for a login bounds this, too.
        login_wants_view_ = true;
        pause_login(true);
        return;
    }
    proven();
}

void Session::view_came() {
    if (!std::exchange(login_wants_view_, false)) return;
    pause_login(false);
    // Its role may have been changed meanwhile, and others of it may have got here first.
    if (const auto step = login_->check_role(); step != ClientLogin::Step::Proven) {
        login_step(step);
    } else if (role_has_room()) {
        proven();
    }
}

void Session::refuse_login_later() {
    const std::string address = from_.throttle_key();
    log_refusal(login_->error());
    const Millis delay = context_.throttle.failed(address, login_->startup().user, Clock::now());
    context_.throttle.waits(address);
    login_delayed_ = true;
    pause_login(true);
    login_wait_ = context_.loop.call_after(delay, [this] { end(login_->error()); });
}

void Session::log_refusal(const Error& error) const {
    std::string text = "pooler: login of client " + from_.to_string();
    if (login_ && login_->has_startup())
        text +=
            " as user \"" + login_->startup().user + "\" to database \"" + login_->startup().database + "\"";
    text += " refused: " + error.message;
    const std::string detail = login_ ? login_->log_detail() : error.detail;
    log_info(detail.empty() ? text : text + ": " + detail);
}

void Session::refuse_login(const Error& error) {
    log_refusal(error);
    end(error);
}

void Session::leave_login() {
    login_wait_.reset();
    if (std::exchange(login_delayed_, false)) context_.throttle.waits_no_more(from_.throttle_key());
}

void Session::note_read_failure(int error_number) {
    if (state_ != State::Login && error_number != EPROTO) return;
    const net::TlsSession* tls = client_.stream().tls();
    const std::string reason =
        error_number == EPROTO && tls != nullptr ? tls->error() : std::strerror(error_number);
    const bool handshake = tls != nullptr && !tls->established();
    log_info("pooler: client " + from_.to_string() + ": " +
             (handshake ? "could not accept SSL connection: " : "lost: ") + reason);
}

}  // namespace pgxc::pooler
