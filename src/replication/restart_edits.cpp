#include "replication/restart_edits.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/limits.h"
#include "base/unique_fd.h"
#include "replication/durable_file.h"
#include "replication/pg_ctl.h"
#include "replication/restart_promotion.h"
#include "replication/settings_file.h"

namespace pgxc::replication {
namespace {

constexpr int first_version_with_signal_files = 12;

std::string auto_conf_path(const ServerFiles& server) {
    return server.data_directory + "/postgresql.auto.conf";
}

bool exists(const std::string& path) {
    struct stat status {};
    return ::stat(path.c_str(), &status) == 0;
}

std::string parent_directory(const std::string& path) {
    return std::filesystem::path(path).parent_path().string();
}

bool is_inside(const std::string& path, const std::string& directory) {
    return path.size() > directory.size() && path.starts_with(directory) && path[directory.size()] == '/';
}

// The file in which to change a setting so that it takes effect.
Result<std::string> file_to_edit(const ServerFiles& server, const PromotionStep& step) {
    if (step.file == SettingsFileRole::RecoveryConf) return recovery_conf_path(server.data_directory);
    auto place = locate_setting(server.config_file, auto_conf_path(server), step.name);
    if (!place) return std::move(place).error();
    if (!*place) return server.config_file;
    const std::string& file = (*place)->file;
    // An included file somewhere else may be shared with other servers: a line at the end of the main file
    // beats it.
    if (file != server.config_file && !is_inside(file, server.data_directory) &&
        !is_inside(file, parent_directory(server.config_file))) {
        return server.config_file;
    }
    return file;
}

std::string by_hand(const ServerFiles& server, std::uint16_t port) {
    std::string text = "By hand, as that user: ";
    if (port != 0) text += "set port = " + std::to_string(port) + ", then ";
    return text + server.bin_directory + "/pg_ctl restart -D " + server.data_directory;
}

}  // namespace

bool edits(const PromotionStep& step) {
    return step.kind == PromotionStepKind::EditSetting || step.kind == PromotionStepKind::RemoveSetting;
}

Status add_edit(const ServerFiles& server, const PromotionStep& step, std::vector<FileEdit>& files) {
    auto path = file_to_edit(server, step);
    if (!path) return std::move(path).error();
    auto found = std::find_if(files.begin(), files.end(), [&](const FileEdit& f) { return f.path == *path; });
    if (found == files.end()) {
        auto text = read_file(*path, limits::max_settings_file_bytes);
        if (!text) return std::move(text).error();
        files.push_back({*path, *text, *text, {}});
        found = files.end() - 1;
    }
    auto settings = SettingsFile::parse(found->new_text, *path);
    if (!settings) return std::move(settings).error();
    if (settings->error() != nullptr) return *settings->error();
    FileEdit::Change change{step.name, std::nullopt, std::nullopt};
    if (const auto old = settings->get(step.name)) change.old_value = old->value;
    if (step.kind == PromotionStepKind::RemoveSetting) {
        settings->remove(step.name);
    } else {
        change.new_value = step.value;
        if (auto set = settings->set(step.name, step.value); !set) return set;
    }
    found->new_text = settings->text();
    found->changes.push_back(std::move(change));
    return {};
}

// Does the server, starting now, see what the plan wants?
Status verify_edits(const ServerFiles& server, const std::vector<PromotionStep>& steps) {
    for (const auto& step : steps) {
        if (!edits(step)) continue;
        const bool removed = step.kind == PromotionStepKind::RemoveSetting;
        const bool recovery_conf = step.file == SettingsFileRole::RecoveryConf;
        auto place =
            locate_setting(recovery_conf ? recovery_conf_path(server.data_directory) : server.config_file,
                           recovery_conf ? std::string{} : auto_conf_path(server), step.name);
        if (!place) return std::move(place).error();
        if (removed ? place->has_value() : !*place || (*place)->value != step.value) {
            return Error(sqlstate::config_file_error,
                         "setting \"" + step.name + "\" did not take effect in the files of the server",
                         "Look at the include directives of \"" + server.config_file + "\".",
                         *place ? "It is set in file \"" + (*place)->file + "\" line " +
                                      std::to_string((*place)->line) + "."
                                : "No file sets it.");
        }
    }
    return {};
}

Status check_server(const ServerFiles& server, std::uint16_t port) {
    if (server.owner != ::geteuid()) {
        return Error(sqlstate::insufficient_privilege,
                     "data directory \"" + server.data_directory +
                         "\" belongs to another operating system user, who alone can restart its server",
                     by_hand(server, port));
    }
    const std::string pg_ctl = server.bin_directory + "/pg_ctl";
    if (server.bin_directory.empty() || ::access(pg_ctl.c_str(), X_OK) != 0) {
        return Error(sqlstate::undefined_file,
                     "no pg_ctl for the server in \"" + server.data_directory + "\": \"" + pg_ctl + "\"",
                     "Install the server's own programs beside it.");
    }
    if (!is_safe_in_double_quotes(server.bin_directory)) {
        return Error(
            sqlstate::feature_not_supported,
            "pg_ctl can't start a program in a directory of that name: \"" + server.bin_directory + "\"");
    }
    for (const auto& setting : command_line_settings(server.arguments)) {
        static constexpr std::array files{"config_file", "hba_file", "ident_file", "external_pid_file"};
        const bool is_file = std::find(files.begin(), files.end(), setting.name) != files.end();
        if (is_file && !setting.value.starts_with('/')) {
            return Error(sqlstate::object_not_in_prerequisite_state,
                         "the server in \"" + server.data_directory +
                             "\" was started with a relative path: " + setting.name + "=" + setting.value,
                         "Start it with an absolute one.");
        }
    }
    const bool slave = server.major_version >= first_version_with_signal_files
                           ? exists(standby_signal_path(server.data_directory))
                           : exists(recovery_conf_path(server.data_directory));
    if (!slave) {
        return Error(sqlstate::object_not_in_prerequisite_state,
                     "the server in \"" + server.data_directory + "\" is no slave",
                     "It has no standby.signal (before PostgreSQL 12: recovery.conf).");
    }
    if (server.postmaster && port != 0 && port != server.postmaster->port) {
        return check_port_is_free(*server.postmaster, port);
    }
    return {};
}

Status check_port_is_free(const PostmasterPid& postmaster, std::uint16_t port) {
    const Error in_use(sqlstate::object_in_use, "port " + std::to_string(port) + " of this host is in use",
                       "If the old master still runs there, stop it, or choose another port.");
    if (!postmaster.listen_address.empty()) {
        sockaddr_in v4{};
        sockaddr_in6 v6{};
        v4.sin_family = AF_INET;
        v4.sin_port = htons(port);
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(port);
        const std::string address = postmaster.listen_address == "*"           ? "0.0.0.0"
                                    : postmaster.listen_address == "localhost" ? "127.0.0.1"
                                                                               : postmaster.listen_address;
        const sockaddr* target = nullptr;
        socklen_t length = 0;
        if (::inet_pton(AF_INET, address.c_str(), &v4.sin_addr) == 1) {
            target = reinterpret_cast<const sockaddr*>(&v4);
            length = sizeof v4;
        } else if (::inet_pton(AF_INET6, address.c_str(), &v6.sin6_addr) == 1) {
            target = reinterpret_cast<const sockaddr*>(&v6);
            length = sizeof v6;
        }
        if (target != nullptr) {
            const UniqueFd fd(::socket(target->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
            const int yes =
                1;  // as the server does: connections of the dead master in TIME_WAIT don't matter
            if (fd.valid() && ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0 &&
                ::bind(fd.get(), target, length) != 0 && errno == EADDRINUSE) {
                return in_use;
            }
        }
    }
    if (!postmaster.socket_directory.empty()) {
        sockaddr_un local{};
        local.sun_family = AF_UNIX;
        const std::string path = postmaster.socket_directory + "/.s.PGSQL." + std::to_string(port);
        if (path.size() < sizeof local.sun_path) {
            std::memcpy(local.sun_path, path.c_str(), path.size() + 1);
            const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
            if (fd.valid() &&
                (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&local), sizeof local) == 0 ||
                 errno == EAGAIN)) {
                return in_use;
            }
        }
    }
    return {};
}

Status check_restart(const ServerFiles& server, const PromotionPlan& plan) {
    if (auto checked = check_server(server, 0); !checked) return checked;
    RestartJournal journal;
    for (const auto& step : plan.file_steps()) {
        if (!edits(step)) continue;
        if (auto added = add_edit(server, step, journal.files); !added) return added;
    }
    for (const auto& file : journal.files) {
        if (auto can = check_replaceable(file.path, file.new_text); !can) return can;
    }
    return check_journal_writable(server.data_directory, journal);
}

}  // namespace pgxc::replication
