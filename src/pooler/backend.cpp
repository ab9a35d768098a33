#include "pooler/backend.h"

#include <cstring>

#include "base/log.h"
#include "pooler/node_pool.h"
#include "pooler/session.h"
#include "wire/messages.h"

namespace pgxc::pooler {

namespace {

/// The values of a DataRow; empty where it isn't one.
Backend::Row read_row(wire::Bytes body) {
    Backend::Row row;
    wire::BodyReader reader{body};
    const std::size_t columns = reader.u16();
    for (std::size_t i = 0; i < columns && reader.ok(); ++i) {
        const std::uint32_t length = reader.u32();
        if (length == ~std::uint32_t{0}) {
            row.emplace_back();
        } else {
            row.emplace_back(std::string{reader.take(length)});
        }
    }
    return reader.ok() ? row : Backend::Row{};
}

}  // namespace

/// A cancel request on its way: connects, sends, and waits until the server closes, which it does after it
/// has signalled the backend.
class Backend::CancelConnection final : private net::StreamEvents,
                                        public std::enable_shared_from_this<Backend::CancelConnection> {
  public:
    CancelConnection(Context& context, Backend& backend)
        : context_(context),
          backend_(&backend),
          backend_alive_(backend.alive_),
          key_(backend.key_),
          node_tls_(backend.node_tls_),
          host_(backend.address_.host),
          use_tls_(backend.use_tls_) {}

    void start(const net::SocketAddress& address) {
        self_ = shared_from_this();
        deadline_ = context_.loop.call_after(context_.settings().connect_timeout, [this] {
            if (sent_ && *backend_alive_) backend_->cancel_may_come_ = true;
            finish();
        });
        auto socket = net::start_connect(address);
        if (socket.error != 0) {
            context_.loop.post([self = shared_from_this()] { self->finish(); });
            return;
        }
        auto stream = net::Stream::adopt(context_.loop, std::move(socket.fd), *this);
        if (!stream) {
            context_.loop.post([self = shared_from_this()] { self->finish(); });
            return;
        }
        connection_ = Connection{std::move(*stream)};
        connection_.stream().want_writable();
    }

  private:
    void on_writable() override {
        if (!connected_) {
            connected_ = true;
            if (net::socket_error(connection_.stream().fd()) != 0) {
                finish();
                return;
            }
            // The key that it carries is as secret as the connection that it was told over.
            if (use_tls_) {
                opening_ = std::make_unique<TlsOpening>();
                if (!opening_->begin(connection_, node_tls_, host_)) finish();
                return;
            }
            send();
            return;
        }
        if (!connection_.flush()) finish();
    }
    void send() {
        sent_ = true;
        wire::put_cancel_request(connection_.out(), key_);
        connection_.stream().want_readable(true);
        if (!connection_.flush()) finish();
    }
    void on_readable() override {
        if (opening_) {
            const auto step = opening_->readable(connection_);
            if (step == TlsOpening::Step::Wait) return;
            opening_.reset();
            step == TlsOpening::Step::Secured ? send() : finish();
            return;
        }
        char ignored[64];
        const auto result = connection_.stream().read(ignored);
        if (result.outcome != net::IoResult::Outcome::WouldBlock) finish();
    }
    void finish() {
        if (!self_) return;
        connection_.close();
        deadline_.reset();
        if (*backend_alive_ && --backend_->cancels_ == 0) backend_->pool_.cancels_done(*backend_);
        context_.loop.post([self = std::move(self_)] {});  // the stack may still be in here
        self_ = nullptr;
    }

    Context& context_;
    Backend* backend_;
    std::shared_ptr<bool> backend_alive_;
    wire::CancelRequest key_;
    Connection connection_;
    net::Handle deadline_;
    NodeTls node_tls_;
    std::string host_;
    bool use_tls_;
    bool connected_ = false;
    bool sent_ = false;
    std::unique_ptr<TlsOpening> opening_;
    std::shared_ptr<CancelConnection> self_;
};

Backend::Backend(Context& context, NodePool& pool, std::uint64_t target_version)
    : meter(pool.counters()),
      context_(context),
      pool_(pool),
      target_version_(target_version),
      alive_(std::make_shared<bool>(true)) {
    applied = context.setting_sets.intern({});
}

Backend::~Backend() {
    *alive_ = false;
}

void Backend::read_on(bool wanted) {
    if (connection_.open()) connection_.stream().want_readable(wanted);
}

void Backend::parameter_reported(std::string_view name, std::string_view value) {
    for (auto& [known, current] : reported_) {
        if (known == name) {
            current = value;
            return;
        }
    }
    reported_.emplace_back(name, value);
}

std::string_view Backend::reported_value(std::string_view name) const {
    for (const auto& [known, value] : reported_) {
        if (known == name) return value;
    }
    return {};
}

void Backend::cancel() {
    ++cancels_;
    std::make_shared<CancelConnection>(context_, *this)->start(connected_to_);
}

void Backend::run_own(Own what, std::string_view sql) {
    own_ = what;
    own_row_.clear();
    own_failed_ = false;
    unnamed = 0;  // as by every Query
    wire::put_query(connection_.out(), sql);
    // What can't be written is noticed where it is read.
    (void)connection_.flush();
    read_on(true);
}

void Backend::on_readable() {
    if (phase_ == Phase::OpeningTls) {
        open_tls();
        return;
    }
    wire::Bytes input;
    const auto result = context_.read(connection_, kept_, input);
    switch (result.outcome) {
        case net::IoResult::Outcome::WouldBlock:
            return;
        case net::IoResult::Outcome::Ended:
            lost("server closed the connection unexpectedly");
            return;
        case net::IoResult::Outcome::Failed:
            lost(result.error == EPROTO ? "SSL error: " + connection_.stream().tls()->error()
                                        : std::strerror(result.error));
            return;
        case net::IoResult::Outcome::Done:
            break;
    }
    meter.bytes_received(result.bytes);
    if (phase_ == Phase::Login) {
        login_input(input);
        if (phase_ == Phase::Connecting) return;  // once more, on a new socket
    } else if (session_ != nullptr) {
        session_->server_input(input);
        // What is left when the session has let go of the connection is for nobody.
        if (phase_ == Phase::Ready && connection_.open() && session_ == nullptr) idle_input(input);
    } else {
        idle_input(input);
    }
    if (connection_.open() && !(input.empty() && kept_.empty())) kept_.assign(input);
}

void Backend::on_writable() {
    context_.begin_event();
    if (phase_ == Phase::Connecting) {
        const int error = net::socket_error(connection_.stream().fd());
        if (error != 0) {
            fail_connect(error);
        } else {
            connected();
        }
        return;
    }
    if (!connection_.flush()) {
        lost(std::strerror(connection_.error()));
        return;
    }
    if (connection_.backlog() > 0) return;
    if (session_ != nullptr) session_->server_writable();
}

void Backend::idle_input(wire::Bytes& input) {
    while (!input.empty()) {
        const auto header = wire::read_backend_header(input);
        if (header.violation()) {
            lost("protocol violation of the server");
            return;
        }
        if (!header.complete() || input.size() < header.total_bytes()) return;
        const wire::Bytes body = input.substr(wire::header_bytes, header.body_bytes);
        input.remove_prefix(header.total_bytes());
        if (header.type == wire::BackendMessage::ParameterStatus) {
            if (const auto status = wire::parse_parameter_status(body))
                parameter_reported(status->name, status->value);
        } else if (header.type == wire::BackendMessage::ErrorResponse) {
            // Unasked for, an error is the announcement of the end.
            const auto fields = wire::parse_error_fields(body);
            if (own_ != Own::None && fields && !fields->fatal()) {
                own_failed_ = true;
                continue;
            }
            lost(fields ? std::string{fields->message} : "error of the server");
            return;
        } else if (own_ != Own::None && header.type == wire::BackendMessage::DataRow) {
            own_row_ = read_row(body);
        } else if (own_ != Own::None && header.type == wire::BackendMessage::ReadyForQuery) {
            const Own done = std::exchange(own_, Own::None);
            if (done == Own::Rollback) tracker_.reset();
            const Row row = std::exchange(own_row_, {});
            pool_.own_statement_done(*this, done, own_failed_ ? nullptr : &row);
            return;
        }
    }
}

void Backend::lost(const std::string& cause) {
    if (phase_ == Phase::Ended) return;
    if (phase_ != Phase::Ready) {
        fail({TrafficFailure::ConnectionLost,
              true,
              {sqlstate::connection_failure,
               "connection to " + where() + " was lost during login: " + cause}});
        return;
    }
    phase_ = Phase::Ended;
    if (!tracker_.fatal()) pool_.report(TrafficFailure::ConnectionLost);
    if (session_ != nullptr) {
        session_->server_lost(cause);
    } else {
        pool_.idle_backend_lost(*this, cause);
    }
}

}  // namespace pgxc::pooler
