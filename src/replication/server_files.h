#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

/// What the files of a server on this host tell about it, without asking the server.
namespace pgxc::replication {

/// postmaster.pid (pidfile.h of PostgreSQL).
struct PostmasterPid {
    enum class Status { Unknown, Starting, Stopping, Ready, Standby };
    pid_t pid = 0;
    std::string data_directory;   // as the server was told; may be relative in theory
    std::int64_t start_time = 0;  // seconds since 1970
    std::uint16_t port = 0;
    std::string socket_directory;     // empty: none
    std::string listen_address;       // the first one; "*"; empty: no TCP
    Status status = Status::Unknown;  // Ready: takes connections. Standby: up, takes none (hot_standby = off)
    [[nodiscard]] bool is_up() const { return status == Status::Ready || status == Status::Standby; }
    friend bool operator==(const PostmasterPid&, const PostmasterPid&) = default;
};

/// Reads the text of postmaster.pid. Lines that aren't there yet stay empty; nothing where even the pid is
/// missing or is that of a single-user server (negative).
[[nodiscard]] std::optional<PostmasterPid> parse_postmaster_pid(std::string_view text);

/// Splits the line of postmaster.opts, `program "arg" "arg"`, as CreateOptsFile of postmaster.c writes it.
[[nodiscard]] std::vector<std::string> parse_postmaster_opts(std::string_view text);

struct CommandLineSetting {
    std::string name;   // in lower case, '-' as '_'
    std::string value;  // "on" for switches
    friend bool operator==(const CommandLineSetting&, const CommandLineSetting&) = default;
};

/// The settings that a postmaster's argument vector makes (-c, --name=value, -p, ...). They beat every file.
[[nodiscard]] std::vector<CommandLineSetting> command_line_settings(
    const std::vector<std::string>& arguments);

/// A server whose files are within reach of this process.
struct ServerFiles {
    std::string data_directory;  // absolute, symbolic links resolved
    std::string config_file;     // absolute; may lie outside (Debian keeps it in /etc)
    int major_version = 0;       // PG_VERSION: 10, 11, ..., 15
    std::uint64_t system_identifier = 0;
    std::string bin_directory;  // of the running (or last run) server: its pg_ctl is the right one
    /// How the server was started, [0] the program: from the process, or postmaster.opts where none runs.
    std::vector<std::string> arguments;
    /// The environment it was started in; empty where it can't be known.
    std::vector<std::string> environment;
    std::optional<PostmasterPid> postmaster;  // nothing: it doesn't run
    /// Where its standard error goes, if that is a file that a new start can go on writing; else empty.
    std::string log_file;
    /// The systemd unit that the server runs in, if that isn't ours too: systemd would lose a server
    /// restarted by us.
    std::string systemd_unit;
    uid_t owner = 0;  // of the data directory: the only user who may run the server
};

/// Gathers those facts. `data_directory` and `config_file` are what the server says of itself (SHOW);
/// `config_file` may be empty for data_directory/postgresql.conf. Errors: 58P01 not on this host; 42501 not
/// readable for this OS user; 55000 no data directory of a PostgreSQL >= 10.
[[nodiscard]] Result<ServerFiles> inspect_server(const std::string& data_directory,
                                                 const std::string& config_file);

/// The systemd service that a process runs in; empty: none.
[[nodiscard]] std::string service_of_process(pid_t pid);

/// The running postmaster of that data directory (its process lives and works there), or nothing.
[[nodiscard]] std::optional<PostmasterPid> running_postmaster(const std::string& data_directory);

/// Removes the socket and its lock file that a killed server has left, if that server is dead but not reaped
/// yet: PostgreSQL asks kill(pid, 0), takes such a zombie for a living server, and would not start. (It
/// removes what is left by processes that are gone altogether itself.)
void clear_dead_socket_lock(const std::string& socket_directory, std::uint16_t port);

/// Removes the postmaster.pid of such a server, for the same reason. Nothing may live in the directory.
void clear_dead_pid_file(const std::string& data_directory);

/// The system identifier in global/pg_control (its first 8 bytes).
[[nodiscard]] Result<std::uint64_t> read_system_identifier(const std::string& data_directory);

/// The line that decides about a setting.
struct SettingLocation {
    std::string file;      // absolute
    std::size_t line = 0;  // 1-based
    std::string value;
    bool in_auto_conf = false;
    friend bool operator==(const SettingLocation&, const SettingLocation&) = default;
};

/// Where a setting is effective: follows include, include_if_exists and include_dir as the server does, then
/// postgresql.auto.conf, which is read last; the last line wins. Nothing where no file sets it. `auto_conf`
/// may be empty (recovery.conf has none). Any error that would keep the server from starting is an Error
/// (F0000).
[[nodiscard]] Result<std::optional<SettingLocation>> locate_setting(const std::string& config_file,
                                                                    const std::string& auto_conf,
                                                                    std::string_view name);

/// Where the server has, or its settings make it have, its sockets.
[[nodiscard]] std::vector<std::string> socket_directories_of(const ServerFiles& server);

}  // namespace pgxc::replication
