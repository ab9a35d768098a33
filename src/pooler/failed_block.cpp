#include "pooler/failed_block.h"

#include <utility>

namespace pgxc::pooler {

Error FailedBlock::refusal() {
    if (untold_) return *std::exchange(untold_, std::nullopt);
    return {sqlstate::in_failed_sql_transaction,
            "current transaction is aborted, commands ignored until end of transaction block"};
}

bool FailedBlock::ends_block(std::string_view sql) const {
    const wire::StatementHead head = wire::read_statement_head(sql);
    // What is to follow would be run outside of the block that the client believes to have begun.
    if (head.chains) return false;
    switch (head.control) {
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
        const wire::StatementHead head = wire::read_statement_head(sql);
        wire::put_error_response(out, wire::Severity::Error, refusal());
        // COMMIT ends the block either way.
        if (!head.chains && (head.control == wire::TransactionControl::Commit ||
                             head.control == wire::TransactionControl::Prepare)) {
            in_block_ = false;
        }
    }
    wire::put_ready_for_query(out, status());
}

bool FailedBlock::take(wire::FrontendMessage type, wire::Bytes body, bool whole, wire::Buffer& out,
                       std::optional<std::string_view> text) {
    if (type == wire::FrontendMessage::Sync) {
        skipping_ = false;
        wire::put_ready_for_query(out, status());
        return true;
    }
    if (skipping_) return false;
    const auto refuse = [&] {
        wire::put_error_response(out, wire::Severity::Error, refusal());
        skipping_ = true;
        return false;
    };
    wire::BodyReader reader{body};
    switch (type) {
        case wire::FrontendMessage::Query: {
            const auto sql = whole ? wire::parse_query(body) : Result<std::string_view>{std::string_view{}};
            query(sql ? *sql : std::string_view{}, out);
            return true;
        }
        case wire::FrontendMessage::FunctionCall:
            wire::put_error_response(out, wire::Severity::Error, refusal());
            wire::put_ready_for_query(out, status());
            return true;
        case wire::FrontendMessage::Parse: {
            const auto parse =
                whole ? wire::parse_parse(body) : Result<wire::ParseMessage>{wire::ParseMessage{}};
            const bool ends = parse.ok() && ends_block(parse->sql);
            if (parse.ok() && parse->statement.empty()) {
                parsed_here_ = true;
                parsed_end_ = ends;
            }
            if (!ends) return refuse();
            wire::put_parse_complete(out);
            return true;
        }
        case wire::FrontendMessage::Bind: {
            (void)reader.cstring();
            const bool here = reader.cstring().empty() && parsed_here_;
            bound_end_ = reader.ok() && (here ? parsed_end_ : text && ends_block(*text));
            if (!bound_end_) return refuse();
            wire::put_bind_complete(out);
            return true;
        }
        case wire::FrontendMessage::Describe: {
            const bool statement = reader.u8() == static_cast<std::uint8_t>(wire::ObjectKind::Statement);
            const bool here = reader.cstring().empty() && parsed_here_;
            const bool ends = !statement ? bound_end_ : here ? parsed_end_ : text && ends_block(*text);
            if (!ends) return refuse();
            if (statement) out.append("t\0\0\0\6\0\0", 7);  // ParameterDescription: none
            wire::put_no_data(out);
            return true;
        }
        case wire::FrontendMessage::Execute:
            if (!bound_end_) return refuse();
            in_block_ = bound_end_ = false;
            untold_.reset();
            wire::put_command_complete(out, "ROLLBACK");
            return true;
        case wire::FrontendMessage::Close:
            wire::put_close_complete(out);
            return true;
        case wire::FrontendMessage::Sync:
        case wire::FrontendMessage::Flush:
        case wire::FrontendMessage::CopyData:
        case wire::FrontendMessage::CopyDone:
        case wire::FrontendMessage::CopyFail:
        case wire::FrontendMessage::Password:
        case wire::FrontendMessage::Terminate:
            return true;
    }
    return true;
}

}  // namespace pgxc::pooler
