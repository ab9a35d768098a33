#include "replication/pg_ctl.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <vector>

namespace pgxc::replication {
namespace {

std::string shell_quoted(std::string_view text) {
    std::string quoted = "'";
    for (const char c : text) {
        if (c == '\'') {
            quoted += "'\\''";
        } else {
            quoted += c;
        }
    }
    return quoted + "'";
}

// What pg_ctl is to hand to the server: the arguments it had, with an absolute -D. pg_ctl passes them to a
// shell, where single quotes keep every byte.
std::string server_options(const ServerFiles& server) {
    std::string options;
    const auto add = [&options](std::string_view argument) {
        if (!options.empty()) options += ' ';
        options += shell_quoted(argument);
    };
    bool has_directory = false;
    for (std::size_t i = 1; i < server.arguments.size(); ++i) {
        const std::string& argument = server.arguments[i];
        std::string directory;
        if (argument == "-D" && i + 1 < server.arguments.size()) {
            directory = server.arguments[++i];
        } else if (argument.size() > 2 && argument.starts_with("-D")) {
            directory = argument.substr(2);
        } else {
            add(argument);
            continue;
        }
        if (!directory.starts_with('/')) continue;
        has_directory = true;
        add("-D");
        add(directory);
    }
    if (!has_directory) {
        add("-D");
        add(server.data_directory);
        if (server.config_file != server.data_directory + "/postgresql.conf") {
            add("-c");
            add("config_file=" + server.config_file);
        }
    }
    return options;
}

Command pg_ctl(const ServerFiles& server, const std::string& action) {
    Command command;
    command.arguments = {server.bin_directory + "/pg_ctl", action, "-D", server.data_directory};
    command.environment = clean_environment();
    if (!server.environment.empty()) {
        command.environment = server.environment;
        // pg_ctl and the server get these anew, and the ones of the last start would be wrong.
        std::erase_if(command.environment, [](const std::string& variable) {
            static constexpr std::array dropped{
                "PGDATA=", "PGCTLTIMEOUT=", "PG_GRANDPARENT_PID=", "NOTIFY_SOCKET="};
            return std::any_of(dropped.begin(), dropped.end(),
                               [&](std::string_view name) { return variable.starts_with(name); });
        });
    }
    return command;
}

}  // namespace

Command stop_command(const ServerFiles& server, bool immediate) {
    Command command = pg_ctl(server, "stop");
    command.arguments.insert(command.arguments.end(), {"-m", immediate ? "immediate" : "fast", "-W"});
    return command;
}

Command start_command(const ServerFiles& server, const std::string& log_file, Millis timeout) {
    // "restart" of a server that is down is a start that takes all server arguments from -o, -D too. With -p
    // pg_ctl need not run "postgres -V" first to find its server.
    Command command = pg_ctl(server, "restart");
    const auto seconds = std::max<long long>(1, std::chrono::ceil<std::chrono::seconds>(timeout).count());
    command.arguments.insert(command.arguments.end(),
                             {"-m", "fast", "-w", "-t", std::to_string(seconds), "-l", log_file, "-p",
                              server.bin_directory + "/postgres", "-o", server_options(server)});
    return command;
}

Command promote_command(const ServerFiles& server) {
    Command command = pg_ctl(server, "promote");
    command.arguments.emplace_back("-W");
    return command;
}

bool is_safe_in_double_quotes(std::string_view text) {
    return text.find_first_of("\"$`\\\n") == std::string_view::npos;
}

}  // namespace pgxc::replication
