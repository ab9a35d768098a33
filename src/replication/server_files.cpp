#include "replication/server_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <utility>

#include "base/limits.h"
#include "base/text.h"
#include "replication/durable_file.h"
#include "replication/settings_file.h"

namespace pgxc::replication {
namespace {

// Bytes of postmaster.pid: the server reads and writes it in one block.
constexpr std::size_t max_pid_file_bytes = 8192;
// Bytes of a process's command line or environment that are read.
constexpr std::size_t max_process_text_bytes = 1024 * 1024;
// As the server: "depth > 10" is an error.
constexpr int max_include_depth = 10;
constexpr int oldest_major_version = 10;

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    while (!text.empty()) {
        const auto end = text.find(separator);
        parts.push_back(text.substr(0, end));
        if (end == std::string_view::npos) break;
        text.remove_prefix(end + 1);
    }
    return parts;
}

std::string_view trimmed(std::string_view line) {
    while (!line.empty() && (line.back() == ' ' || line.back() == '\r' || line.back() == '\n'))
        line.remove_suffix(1);
    return line;
}

PostmasterPid::Status to_status(std::string_view word) {
    if (word == "starting") return PostmasterPid::Status::Starting;
    if (word == "stopping") return PostmasterPid::Status::Stopping;
    if (word == "ready") return PostmasterPid::Status::Ready;
    if (word == "standby") return PostmasterPid::Status::Standby;
    return PostmasterPid::Status::Unknown;
}

std::optional<std::string> real_path(const std::string& path) {
    const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
    if (!real) return std::nullopt;
    return std::string(real.get());
}

std::string proc_path(pid_t pid, std::string_view what) {
    return "/proc/" + std::to_string(pid) + "/" + std::string(what);
}

std::optional<std::string> link_target(const std::string& path) {
    std::array<char, 4096> buffer;
    const ssize_t length = ::readlink(path.c_str(), buffer.data(), buffer.size());
    if (length < 0 || length == static_cast<ssize_t>(buffer.size())) return std::nullopt;
    std::string target(buffer.data(), static_cast<std::size_t>(length));
    // The program was upgraded while it runs: its place is still right.
    constexpr std::string_view deleted = " (deleted)";
    if (target.ends_with(deleted)) target.resize(target.size() - deleted.size());
    return target;
}

std::vector<std::string> process_strings(pid_t pid, std::string_view what) {
    std::vector<std::string> strings;
    auto text = read_file(proc_path(pid, what), max_process_text_bytes);
    if (!text) return strings;
    for (const auto part : split(*text, '\0')) strings.emplace_back(part);
    return strings;
}

// Has it ended, without its parent having taken notice yet?
bool is_zombie(pid_t pid) {
    auto text = read_file(proc_path(pid, "stat"), max_process_text_bytes);
    if (!text) return false;
    const auto name_end = text->rfind(')');  // "pid (name) state ...", and a name may contain anything
    return name_end != std::string::npos && name_end + 2 < text->size() && (*text)[name_end + 2] == 'Z';
}

// The last component of the control group of a process, where it is a systemd service.
std::string service_of(const std::string& proc_cgroup) {
    auto text = read_file(proc_cgroup, max_process_text_bytes);
    if (!text) return {};
    for (const auto line : split(*text, '\n')) {
        // "0::/path" (version 2) or "1:name=systemd:/path" (version 1)
        const bool systemd = line.starts_with("0::") || line.find(":name=systemd:") != std::string_view::npos;
        const auto slash = line.rfind('/');
        if (!systemd || slash == std::string_view::npos) continue;
        const std::string_view last = line.substr(slash + 1);
        if (last.ends_with(".service")) return std::string(last);
    }
    return {};
}

// Where descriptor 2 of the server leads, if a new server can append to it.
std::string log_file_of(pid_t pid) {
    const auto target = link_target(proc_path(pid, "fd/2"));
    if (!target || target->empty() || (*target)[0] != '/') return {};
    struct stat status {};
    if (::stat(target->c_str(), &status) != 0) return {};
    const bool is_null = *target == "/dev/null";
    if ((!S_ISREG(status.st_mode) && !is_null) || ::access(target->c_str(), W_OK) != 0) return {};
    return *target;
}

Error not_on_this_host(const std::string& data_directory, int error_number) {
    Error error = file_error("reach data directory, as", data_directory, error_number);
    error.message = "data directory \"" + data_directory + "\" is not within reach of this server";
    error.detail = std::string(std::strerror(error_number)) + ".";  // NOLINT(concurrency-mt-unsafe)
    error.hint = error_number == ENOENT || error_number == ENOTDIR
                     ? "Is that server on another host? Then promote it without a restart, or restart it "
                       "there by hand."
                     : "Run this server under the operating system user who owns that directory.";
    return error;
}

// postgres's one-letter options that stand for settings (PostmasterMain, process_postgres_switches).
struct ShortOption {
    char letter;
    bool has_argument;
    std::string_view setting;  // empty: none that a file has
};
constexpr std::array short_options{
    ShortOption{'B', true, "shared_buffers"},
    ShortOption{'b', false, ""},
    ShortOption{'C', true, ""},
    ShortOption{'c', true, ""},
    ShortOption{'D', true, ""},
    ShortOption{'d', true, "log_min_messages"},
    ShortOption{'E', false, ""},
    ShortOption{'e', false, "datestyle"},
    ShortOption{'F', false, "fsync"},
    ShortOption{'f', true, ""},
    ShortOption{'h', true, "listen_addresses"},
    ShortOption{'i', false, "listen_addresses"},
    ShortOption{'j', false, ""},
    ShortOption{'k', true, "unix_socket_directories"},
    ShortOption{'l', false, "ssl"},
    ShortOption{'M', true, ""},
    ShortOption{'N', true, "max_connections"},
    ShortOption{'n', false, ""},
    ShortOption{'O', false, "allow_system_table_mods"},
    ShortOption{'P', false, "ignore_system_indexes"},
    ShortOption{'p', true, "port"},
    ShortOption{'r', true, ""},
    ShortOption{'S', true, "work_mem"},
    ShortOption{'s', false, "log_statement_stats"},
    ShortOption{'T', false, ""},
    ShortOption{'t', true, ""},
    ShortOption{'W', true, "post_auth_delay"},
};

// ParseLongOption of guc.c: "name=value" or "name", '-' in the name means '_'.
CommandLineSetting long_option(std::string_view text) {
    const auto equals = text.find('=');
    CommandLineSetting setting;
    for (const char c : text.substr(0, equals)) {
        setting.name += c == '-' ? '_' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
    setting.value = equals == std::string_view::npos ? "on" : std::string(text.substr(equals + 1));
    return setting;
}

// Walks the files as ParseConfigFile and its friends in guc-file.l do.
class SettingSearch {
  public:
    explicit SettingSearch(std::string_view name) : name_(name) {}

    // `caller` is empty for the outermost file.
    Status read(const std::string& file, bool must_exist, const std::string& caller, std::size_t caller_line,
                int depth, bool auto_conf) {
        if (depth > max_include_depth) {
            return include_error("includes are nested too deep", file, caller, caller_line);
        }
        if (file == caller) return include_error("a file includes itself", file, caller, caller_line);
        auto text = read_file(file, limits::max_settings_file_bytes);
        if (!text) {
            // As in the server any reason for which it can't be opened counts as "doesn't exist".
            if (!must_exist && text.error().sqlstate != sqlstate::program_limit_exceeded) return {};
            return std::move(text).error();
        }
        auto settings = SettingsFile::parse(std::move(*text), file);
        if (!settings) return std::move(settings).error();
        if (settings->error() != nullptr) return *settings->error();
        for (const auto& item : settings->items()) {
            Status done;
            switch (item.kind) {
                case SettingsItem::Kind::Setting:
                    if (same_setting(item.name, name_)) found_ = {file, item.line, item.value, auto_conf};
                    break;
                case SettingsItem::Kind::Include:
                case SettingsItem::Kind::IncludeIfExists:
                    if (is_blank(item.value)) {
                        return include_error("the name of an included file is empty", item.value, file,
                                             item.line);
                    }
                    done = read(beside(item.value, file), item.kind == SettingsItem::Kind::Include, file,
                                item.line, depth + 1, auto_conf);
                    break;
                case SettingsItem::Kind::IncludeDir:
                    done = read_directory(item, file, depth + 1, auto_conf);
                    break;
            }
            if (!done) return done;
        }
        return {};
    }

    [[nodiscard]] const std::optional<SettingLocation>& found() const { return found_; }

  private:
    static bool is_blank(std::string_view text) {
        return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
    }

    // AbsoluteConfigLocation: relative to the including file, without looking at symbolic links.
    static std::string beside(const std::string& location, const std::string& caller) {
        if (location[0] == '/') return location;
        return (std::filesystem::path(caller).parent_path() / location).lexically_normal().string();
    }

    static Error include_error(std::string_view why, const std::string& file, const std::string& caller,
                               std::size_t line) {
        return {sqlstate::config_file_error, std::string(why) + ": \"" + file + "\" in file \"" + caller +
                                                 "\" line " + std::to_string(line)};
    }

    Status read_directory(const SettingsItem& item, const std::string& caller, int depth, bool auto_conf) {
        if (is_blank(item.value)) {
            return include_error("the name of an included directory is empty", item.value, caller, item.line);
        }
        const std::string directory = beside(item.value, caller);
        const std::unique_ptr<DIR, int (*)(DIR*)> open(::opendir(directory.c_str()), &::closedir);
        if (!open) return file_error("open directory, not", directory, errno);
        std::vector<std::string> files;
        // readdir is safe here: the stream is ours alone.
        while (const dirent* entry = ::readdir(open.get())) {  // NOLINT(concurrency-mt-unsafe)
            const std::string_view name = entry->d_name;
            if (name.size() < 6 || name[0] == '.' || !name.ends_with(".conf")) continue;
            const std::string path = (std::filesystem::path(directory) / name).lexically_normal().string();
            struct stat status {};
            if (::stat(path.c_str(), &status) != 0) return file_error("read the status of", path, errno);
            if (!S_ISDIR(status.st_mode)) files.push_back(path);
        }
        std::sort(files.begin(), files.end());  // bytewise, as strcmp
        for (const auto& file : files) {
            if (auto done = read(file, true, caller, item.line, depth, auto_conf); !done) return done;
        }
        return {};
    }

    std::string_view name_;
    std::optional<SettingLocation> found_;
};

}  // namespace

std::string service_of_process(pid_t pid) {
    return service_of(proc_path(pid, "cgroup"));
}

std::optional<PostmasterPid> parse_postmaster_pid(std::string_view text) {
    const auto lines = split(text, '\n');
    const auto line = [&lines](std::size_t number) {  // 1-based, as in pidfile.h
        return number <= lines.size() ? trimmed(lines[number - 1]) : std::string_view{};
    };
    const auto pid = to_number<pid_t>(line(1));
    if (!pid || *pid <= 0) return std::nullopt;
    PostmasterPid result;
    result.pid = *pid;
    result.data_directory = line(2);
    result.start_time = to_number<std::int64_t>(line(3)).value_or(0);
    result.port = to_number<std::uint16_t>(line(4)).value_or(0);
    result.socket_directory = line(5);
    result.listen_address = line(6);
    result.status = to_status(line(8));
    return result;
}

std::vector<std::string> parse_postmaster_opts(std::string_view text) {
    std::string_view line = trimmed(text.substr(0, text.find('\n')));
    std::vector<std::string> arguments;
    constexpr std::string_view between = " \"";
    const auto first = line.find(between);
    arguments.emplace_back(line.substr(0, first));
    if (arguments[0].empty()) return {};
    while (first != std::string_view::npos && line.find(between) != std::string_view::npos) {
        line.remove_prefix(line.find(between) + between.size());
        // Quotes inside an argument aren't escaped: the one that ends it stands before ` "` or the end of the
        // line.
        auto end = line.find("\" \"");
        if (end == std::string_view::npos) end = line.ends_with('"') ? line.size() - 1 : line.size();
        arguments.emplace_back(line.substr(0, end));
        line.remove_prefix(std::min(line.size(), end + 1));
    }
    return arguments;
}

std::vector<CommandLineSetting> command_line_settings(const std::vector<std::string>& arguments) {
    std::vector<CommandLineSetting> settings;
    for (std::size_t i = 1; i < arguments.size(); ++i) {
        const std::string_view argument = arguments[i];
        if (argument.size() < 2 || argument[0] != '-')
            break;  // getopt stops here; a postmaster has nothing after
        if (argument == "--") break;
        if (argument.starts_with("--")) {
            settings.push_back(long_option(argument.substr(2)));
            continue;
        }
        for (std::size_t at = 1; at < argument.size(); ++at) {
            const auto* option = std::find_if(short_options.begin(), short_options.end(),
                                              [&](const ShortOption& o) { return o.letter == argument[at]; });
            if (option == short_options.end()) break;
            std::string_view value = "on";
            if (option->has_argument) {
                if (at + 1 < argument.size()) {
                    value = argument.substr(at + 1);
                } else if (i + 1 < arguments.size()) {
                    value = arguments[++i];
                }
            }
            if (option->letter == 'c') {
                settings.push_back(long_option(value));
            } else if (option->letter == 'i') {
                settings.push_back({"listen_addresses", "*"});
            } else if (option->letter == 'F') {
                settings.push_back({"fsync", "off"});
            } else if (!option->setting.empty()) {
                settings.push_back({std::string(option->setting), std::string(value)});
            }
            if (option->has_argument) break;
        }
    }
    return settings;
}

std::optional<PostmasterPid> running_postmaster(const std::string& data_directory) {
    auto text = read_file(data_directory + "/postmaster.pid", max_pid_file_bytes);
    if (!text) return std::nullopt;
    auto postmaster = parse_postmaster_pid(*text);
    if (!postmaster) return std::nullopt;
    // kill(pid, 0) would take a zombie, or another process that got the pid since, for the server.
    const auto works_in = link_target(proc_path(postmaster->pid, "cwd"));
    const auto real = real_path(data_directory);
    if (!works_in || !real || *works_in != *real) return std::nullopt;
    return postmaster;
}

void clear_dead_socket_lock(const std::string& socket_directory, std::uint16_t port) {
    const std::string socket = socket_directory + "/.s.PGSQL." + std::to_string(port);
    const std::string lock = socket + ".lock";
    auto text = read_file(lock, max_pid_file_bytes);
    if (!text) return;
    const auto owner = parse_postmaster_pid(*text);
    if (!owner || !is_zombie(owner->pid)) return;
    // The order in which the server itself removes them. Where this fails the server's start will say why.
    if (::unlink(socket.c_str()) != 0 && errno != ENOENT) return;
    (void)::unlink(lock.c_str());
}

void clear_dead_pid_file(const std::string& data_directory) {
    const std::string path = data_directory + "/postmaster.pid";
    auto text = read_file(path, max_pid_file_bytes);
    if (!text) return;
    const auto owner = parse_postmaster_pid(*text);
    if (!owner || !is_zombie(owner->pid)) return;
    (void)::unlink(path.c_str());
}

Result<std::uint64_t> read_system_identifier(const std::string& data_directory) {
    const std::string path = data_directory + "/global/pg_control";
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) return file_error("open", path, errno);
    std::uint64_t identifier = 0;
    if (::read(fd.get(), &identifier, sizeof identifier) != static_cast<ssize_t>(sizeof identifier)) {
        return file_error("read", path, EIO);
    }
    return identifier;
}

Result<ServerFiles> inspect_server(const std::string& data_directory, const std::string& config_file) {
    if (data_directory.empty() || data_directory[0] != '/') {
        return Error(sqlstate::invalid_parameter_value,
                     "data directory \"" + data_directory + "\" must be an absolute path");
    }
    const auto real = real_path(data_directory);
    if (!real) return not_on_this_host(data_directory, errno);

    ServerFiles server;
    server.data_directory = *real;
    struct stat status {};
    if (::stat(real->c_str(), &status) != 0) return not_on_this_host(data_directory, errno);
    server.owner = status.st_uid;
    if (::access(real->c_str(), R_OK | X_OK) != 0) return not_on_this_host(data_directory, errno);

    auto version = read_file(*real + "/PG_VERSION", 64);
    const auto major = version ? to_number<int>(trimmed(*version)) : std::nullopt;
    if (!major || *major < oldest_major_version) {
        return Error(sqlstate::object_not_in_prerequisite_state,
                     "\"" + data_directory + "\" is no data directory of PostgreSQL 10 or later",
                     "Check data_directory of that server.");
    }
    server.major_version = *major;
    auto identifier = read_system_identifier(*real);
    if (!identifier) return std::move(identifier).error();
    server.system_identifier = *identifier;

    server.config_file = config_file.empty() ? *real + "/postgresql.conf" : config_file;
    if (server.config_file[0] != '/') server.config_file.insert(0, *real + "/");

    server.postmaster = running_postmaster(*real);
    if (server.postmaster) {
        const pid_t pid = server.postmaster->pid;
        server.arguments = process_strings(pid, "cmdline");
        server.environment = process_strings(pid, "environ");
        server.log_file = log_file_of(pid);
        if (const auto program = link_target(proc_path(pid, "exe"))) {
            server.bin_directory = std::filesystem::path(*program).parent_path().string();
        }
        auto unit = service_of(proc_path(pid, "cgroup"));
        if (unit != service_of("/proc/self/cgroup")) server.systemd_unit = std::move(unit);
    }
    if (server.arguments.empty()) {
        if (auto opts = read_file(*real + "/postmaster.opts", max_process_text_bytes)) {
            server.arguments = parse_postmaster_opts(*opts);
        }
    }
    if (server.bin_directory.empty() && !server.arguments.empty()) {
        server.bin_directory = std::filesystem::path(server.arguments[0]).parent_path().string();
    }
    return server;
}

Result<std::optional<SettingLocation>> locate_setting(const std::string& config_file,
                                                      const std::string& auto_conf, std::string_view name) {
    SettingSearch search(name);
    if (auto done = search.read(config_file, true, {}, 0, 0, false); !done) return std::move(done).error();
    if (!auto_conf.empty()) {
        if (auto done = search.read(auto_conf, false, {}, 0, 0, true); !done) return std::move(done).error();
    }
    return search.found();
}

std::vector<std::string> socket_directories_of(const ServerFiles& server) {
    std::vector<std::string> directories;
    if (server.postmaster && !server.postmaster->socket_directory.empty()) {
        directories.push_back(server.postmaster->socket_directory);
    }
    const auto place = locate_setting(server.config_file, server.data_directory + "/postgresql.auto.conf",
                                      "unix_socket_directories");
    if (!place || !*place) return directories;
    std::string_view list = (*place)->value;
    while (!list.empty()) {
        const auto comma = list.find(',');
        std::string_view one = list.substr(0, comma);
        list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
        const auto is_padding = [](char c) { return c == ' ' || c == '\t' || c == '"'; };
        while (!one.empty() && is_padding(one.front())) one.remove_prefix(1);
        while (!one.empty() && is_padding(one.back())) one.remove_suffix(1);
        if (one.starts_with('/')) directories.emplace_back(one);
    }
    return directories;
}

}  // namespace pgxc::replication
