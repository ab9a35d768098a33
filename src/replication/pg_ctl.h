#pragma once

#include <string>
#include <string_view>

#include "base/clock.h"
#include "replication/process_runner.h"
#include "replication/server_files.h"

/// The command lines of the server's own pg_ctl, run in the environment that the server was started in. Pure.
namespace pgxc::replication {

/// Returns at once (-W).
[[nodiscard]] Command stop_command(const ServerFiles& server, bool immediate);
/// Starts a server that is down with the arguments it had, waits for it up to `timeout`; its log goes to
/// `log_file`.
[[nodiscard]] Command start_command(const ServerFiles& server, const std::string& log_file, Millis timeout);
/// For PromotionStepKind::PromoteByPgCtl. Returns at once (-W): watch the server.
[[nodiscard]] Command promote_command(const ServerFiles& server);

/// pg_ctl puts the names of the program and the log file into double quotes for a shell: can this text go
/// there?
[[nodiscard]] bool is_safe_in_double_quotes(std::string_view text);

}  // namespace pgxc::replication
