#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace pgxc {

/// SQLSTATE: five characters, as PostgreSQL's errcodes.txt (Appendix A of its manual) spells them.
using SqlState = std::string_view;

/// The SQLSTATEs this project raises, under PostgreSQL's own condition names. Values must be string literals.
namespace sqlstate {
inline constexpr SqlState connection_exception = "08000";
inline constexpr SqlState unable_to_connect = "08001";
inline constexpr SqlState rejected_connection = "08004";  // sqlserver_rejected_establishment_of_sqlconnection
inline constexpr SqlState connection_failure = "08006";
inline constexpr SqlState transaction_resolution_unknown = "08007";
inline constexpr SqlState protocol_violation = "08P01";
inline constexpr SqlState feature_not_supported = "0A000";
inline constexpr SqlState numeric_value_out_of_range = "22003";
inline constexpr SqlState null_value_not_allowed = "22004";
inline constexpr SqlState character_not_in_repertoire = "22021";
inline constexpr SqlState invalid_parameter_value = "22023";
inline constexpr SqlState invalid_escape_sequence = "22025";
inline constexpr SqlState nonstandard_use_of_escape_character = "22P06";
inline constexpr SqlState foreign_key_violation = "23503";
inline constexpr SqlState unique_violation = "23505";
inline constexpr SqlState check_violation = "23514";
inline constexpr SqlState active_sql_transaction = "25001";
inline constexpr SqlState in_failed_sql_transaction = "25P02";
inline constexpr SqlState invalid_authorization = "28000";
inline constexpr SqlState invalid_password = "28P01";
inline constexpr SqlState dependent_objects_still_exist = "2BP01";
inline constexpr SqlState insufficient_privilege = "42501";
inline constexpr SqlState syntax_error = "42601";
inline constexpr SqlState duplicate_object = "42710";
inline constexpr SqlState undefined_object = "42704";
inline constexpr SqlState undefined_file = "58P01";
inline constexpr SqlState io_error = "58030";
inline constexpr SqlState duplicate_file = "58P02";
inline constexpr SqlState wrong_object_type = "42809";
inline constexpr SqlState insufficient_resources = "53000";
inline constexpr SqlState disk_full = "53100";
inline constexpr SqlState too_many_connections = "53300";
inline constexpr SqlState configuration_limit_exceeded = "53400";
inline constexpr SqlState program_limit_exceeded = "54000";
inline constexpr SqlState object_not_in_prerequisite_state = "55000";
inline constexpr SqlState object_in_use = "55006";
inline constexpr SqlState lock_not_available = "55P03";
inline constexpr SqlState query_canceled = "57014";
inline constexpr SqlState admin_shutdown = "57P01";
inline constexpr SqlState cannot_connect_now = "57P03";
inline constexpr SqlState idle_session_timeout = "57P05";
inline constexpr SqlState config_file_error = "F0000";
inline constexpr SqlState internal_error = "XX000";
}  // namespace sqlstate

/// What went wrong, as a user of PostgreSQL is used to see it. `message` names the thing; `hint` says what
/// can be done and is empty only where nothing can.
struct Error {
    std::string sqlstate{sqlstate::internal_error};
    std::string message;
    std::string detail;
    std::string hint;

    Error() = default;
    Error(SqlState state, std::string message_text, std::string hint_text = {}, std::string detail_text = {})
        : sqlstate(state),
          message(std::move(message_text)),
          detail(std::move(detail_text)),
          hint(std::move(hint_text)) {}

    friend bool operator==(const Error&, const Error&) = default;
};

}  // namespace pgxc
