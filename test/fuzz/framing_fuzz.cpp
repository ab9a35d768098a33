#include <cstdint>
#include <cstdlib>

#include "wire/framing.h"
#include "wire/messages.h"
#include "wire/statement_head.h"
#include "wire/transaction_tracker.h"

/// Reads the input as a stream of messages, once from a client and once from a server, with every parser and
/// the tracker behind; the first byte chooses the phase and which message comes from whom.
namespace {

using namespace pgxc::wire;

void require(bool holds) {
    if (!holds) std::abort();
}

bool inside(Bytes whole, Bytes part) {
    return part.empty() ||
           (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void read_client_body(FrontendMessage type, Bytes body) {
    switch (type) {
        case FrontendMessage::Query:
            if (const auto sql = parse_query(body); sql.ok()) {
                require(inside(body, *sql));
                (void)read_statement_head(*sql);
                (void)may_commit_block(*sql);
            }
            break;
        case FrontendMessage::Parse:
            if (const auto message = parse_parse(body); message.ok()) {
                require(inside(body, message->sql) && inside(body, message->parameter_types));
                (void)read_statement_head(message->sql);
            }
            break;
        case FrontendMessage::Bind:
            if (const auto names = parse_bind_names(body); names.ok())
                require(inside(body, names->statement));
            break;
        case FrontendMessage::Describe:
        case FrontendMessage::Close:
            (void)parse_describe_or_close(body);
            break;
        case FrontendMessage::Execute:
            (void)parse_execute(body);
            break;
        case FrontendMessage::Password:
            (void)parse_password(body);
            if (const auto initial = parse_sasl_initial_response(body); initial.ok() && initial->data)
                require(inside(body, *initial->data));
            break;
        case FrontendMessage::CopyData:
        case FrontendMessage::CopyDone:
        case FrontendMessage::CopyFail:
        case FrontendMessage::Flush:
        case FrontendMessage::FunctionCall:
        case FrontendMessage::Sync:
        case FrontendMessage::Terminate:
            break;
    }
}

void read_server_body(Bytes body) {
    if (const auto fields = parse_error_fields(body); fields.ok()) {
        require(inside(body, fields->message));
        // What was read can be written and is read back the same.
        Buffer out;
        put_error_response(out, Severity::Error, fields->to_error());
        const auto again = parse_error_fields(Bytes(out).substr(header_bytes));
        require(again.ok() && again->message == fields->message && again->hint == fields->hint);
    }
    if (const auto request = parse_authentication(body); request.ok()) (void)request->offers("SCRAM-SHA-256");
    (void)parse_parameter_status(body);
    (void)parse_backend_key_data(body);
    (void)parse_ready_for_query(body);
    (void)parse_command_complete(body);
    (void)parse_notification(body);
    (void)parse_negotiate_protocol_version(body);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const auto phase = static_cast<FrontendPhase>(data[0] & 3U);
    unsigned turns = data[0];
    Bytes rest(reinterpret_cast<const char*>(data) + 1, size - 1);
    TransactionTracker tracker;
    while (!rest.empty()) {
        turns = turns * 5U + 3U;
        const bool from_client = (turns & 4U) != 0;
        std::size_t total = 0;
        if (from_client) {
            const auto header = read_frontend_header(rest, phase);
            if (!header.complete()) {
                if (header.violation()) (void)to_error(header);
                break;
            }
            total = header.total_bytes();
            const Bytes body = rest.substr(header_bytes, header.body_bytes);
            const bool whole = body.size() == header.body_bytes;
            if (whole) read_client_body(header.type, body);
            tracker.client_sent(header.type, body, whole);
        } else {
            const auto header = read_backend_header(rest);
            if (!header.complete()) {
                if (header.violation()) (void)to_error(header);
                break;
            }
            total = header.total_bytes();
            const Bytes body = rest.substr(header_bytes, header.body_bytes);
            if (body.size() == header.body_bytes) read_server_body(body);
            tracker.server_sent(header.type, body, body.size() == header.body_bytes);
        }
        require(total >= header_bytes);
        require(!tracker.clean_and_idle() || tracker.ready_for_query_owed() == 0);
        require(!tracker.clean_and_idle() || !tracker.commit_may_be_running());
        rest.remove_prefix(std::min(total, rest.size()));
    }
    return 0;
}
