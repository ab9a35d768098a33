#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <exception>
#include <string>

#include "base/limits.h"
#include "base/log.h"
#include "replication/node_agent.h"

// pgxc_ha_node: what our library on a datanode does with the server's files while the server is down
// (src/replication/node_agent.h). Started by the library, with a task on standard input; of no use by hand.

namespace {

void log_to_standard_error(pgxc::LogLevel level, std::string_view line) {
    if (level == pgxc::LogLevel::Debug) return;
    std::array<char, 64> when{};
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    ::localtime_r(&now, &local);
    std::strftime(when.data(), when.size(), "%Y-%m-%d %H:%M:%S %Z", &local);
    std::fprintf(stderr, "%s [%d] %s:  %.*s\n", when.data(), static_cast<int>(::getpid()),
                 level == pgxc::LogLevel::Warning ? "WARNING" : "LOG", static_cast<int>(line.size()),
                 line.data());
}

std::string read_standard_input() {
    std::string text;
    std::array<char, 4096> buffer;
    for (;;) {
        const ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0 || text.size() > pgxc::limits::max_settings_file_bytes) return text;
        text.append(buffer.data(), static_cast<std::size_t>(got));
    }
}

}  // namespace

int main() {
    pgxc::set_log_sink(log_to_standard_error);
    try {
        auto task = pgxc::node_task_from_json(read_standard_input());
        if (!task.ok()) {
            pgxc::log_warning(task.error().message + "; this program is for pgxc_ha itself");
            return 2;
        }
        const pgxc::NodeAgentResult result = pgxc::run_node_task(*task);
        std::fputs(result.output.c_str(), stdout);
        return result.exit_status;
    } catch (const std::exception& problem) {
        pgxc::log_warning(problem.what());
        return 2;
    }
}
