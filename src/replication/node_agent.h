#pragma once

#include <string>

#include "replication/node_request.h"
#include "replication/process_runner.h"

/// Our library's hands on a datanode: the program pgxc_ha_node, which works on files and runs pg_ctl while
/// the server is down (DESIGN 6.5). The server starts it and doesn't wait for it. It reuses what a
/// coordinator does to the files of its own host: server_restart and rejoin.
namespace pgxc {

/// How to run the program at that path with a task.
[[nodiscard]] replication::Command node_agent_command(const std::string& program, const NodeTask& task);

/// Its output, beside the data directory: in it the next pg_rewind would remove it.
[[nodiscard]] std::string node_agent_log(const std::string& data_directory);

/// How long the question may take that a server asks before it starts as a master.
inline constexpr Millis start_check_timeout{5'000};

/// Does the task, and blocks meanwhile. The text is for standard output; the exit status is 0 where the task
/// was done, or came to a verdict.
struct NodeAgentResult {
    int exit_status = 0;
    std::string output;
};
[[nodiscard]] NodeAgentResult run_node_task(const NodeTask& task);

}  // namespace pgxc
