#include "pooler/failed_block.h"

#include <utility>

namespace pgxc::pooler {

Error FailedBlock::refusal() {
    if (untold_) return *std::exchange(untold_, std::nullopt);
    return {sqlstate::in_failed_sql_transaction,
            "current transaction is aborted, commands ignored until end of transaction block"};
}

bool FailedBlock::ends_block(std::string_view sql) const {
    switch (wire::read_statement_head(sql).control) {
        case wire::TransactionControl::Rollback:
            return true;
        case wire::TransactionControl::Commit:
        case wire::TransactionControl::Prepare:
            // Success would be heard as a commit by who doesn't look at the tag: first comes the error.
            return !untold_.has_value();
        case wire::TransactionControl::None:
        case wire::TransactionControl::Begin:
        case wire::TransactionControl::Savepoint:
        case wire::TransactionControl::Other:
        case wire::TransactionControl::Unknown:
            return false;
    }
    return false;
}

void FailedBlock::query(std::string_view sql, wire::Buffer& out) {
    if (ends_block(sql)) {
        in_block_ = false;
        untold_.reset();
        wire::put_command_complete(out, "ROLLBACK");
    } else {
        const auto control = wire::read_statement_head(sql).control;
        wire::put_error_response(out, wire::Severity::Error, refusal());
        // COMMIT ends the block either way.
        if (control == wire::TransactionControl::Commit || control == wire::TransactionControl::Prepare) {
            in_block_ = false;
        }
    }
    wire::put_ready_for_query(out, status());
}

void FailedBlock::take(wire::FrontendMessage type, wire::Bytes body, bool whole, wire::Buffer& out) {
    if (type == wire::FrontendMessage::Sync) {
        skipping_ = false;
        wire::put_ready_for_query(out, status());
        return;
    }
    if (skipping_) return;
    const auto refuse = [&] {
        wire::put_error_response(out, wire::Severity::Error, refusal());
        skipping_ = true;
    };
    switch (type) {
        case wire::FrontendMessage::Query: {
            const auto sql = whole ? wire::parse_query(body) : Result<std::string_view>{std::string_view{}};
            query(sql ? *sql : std::string_view{}, out);
            return;
        }
        case wire::FrontendMessage::FunctionCall:
            wire::put_error_response(out, wire::Severity::Error, refusal());
            wire::put_ready_for_query(out, status());
            return;
        case wire::FrontendMessage::Parse: {
            const auto parse =
                whole ? wire::parse_parse(body) : Result<wire::ParseMessage>{wire::ParseMessage{}};
            parsed_end_ = parse.ok() && ends_block(parse->sql);
            parsed_end_ ? wire::put_parse_complete(out) : refuse();
            return;
        }
        case wire::FrontendMessage::Bind:
            parsed_end_ ? wire::put_bind_complete(out) : refuse();
            return;
        case wire::FrontendMessage::Describe:
            if (!parsed_end_) {
                refuse();
                return;
            }
            if (!body.empty() && body[0] == static_cast<char>(wire::ObjectKind::Statement)) {
                out.append("t\0\0\0\6\0\0", 7);  // ParameterDescription: none
            }
            wire::put_no_data(out);
            return;
        case wire::FrontendMessage::Execute:
            if (!parsed_end_) {
                refuse();
                return;
            }
            in_block_ = false;
            untold_.reset();
            wire::put_command_complete(out, "ROLLBACK");
            return;
        case wire::FrontendMessage::Close:
            wire::put_close_complete(out);
            return;
        case wire::FrontendMessage::Sync:
        case wire::FrontendMessage::Flush:
        case wire::FrontendMessage::CopyData:
        case wire::FrontendMessage::CopyDone:
        case wire::FrontendMessage::CopyFail:
        case wire::FrontendMessage::Password:
        case wire::FrontendMessage::Terminate:
            return;
    }
}

}  // namespace pgxc::pooler
