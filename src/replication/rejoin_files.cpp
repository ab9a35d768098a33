#include "replication/rejoin_files.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "base/text.h"
#include "replication/durable_file.h"
#include "replication/settings_file.h"

namespace pgxc::replication {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::pair<RejoinStage, std::string_view>, 6> stage_words{{
    {RejoinStage::None, "none"},
    {RejoinStage::Rewinding, "rewinding"},
    {RejoinStage::Rewound, "rewound"},
    {RejoinStage::Broken, "broken"},
    {RejoinStage::Copied, "copied"},
    {RejoinStage::Prepared, "prepared"},
}};

/// The value behind "label:" at the start of a line; empty = there is no such line.
std::string_view line_value(std::string_view text, std::string_view label) {
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        if (line.size() > label.size() && line.starts_with(label) && line[label.size()] == ':') {
            std::string_view value = line.substr(label.size() + 1);
            value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
            return value;
        }
        text.remove_prefix(std::min(text.size(), line.size() + 1));
    }
    return {};
}

/// Is a file at the top of a data directory the administrator's: settings, keys, certificates? Everything
/// else there is the server's, or a log.
bool is_a_setting(const fs::path& path) {
    const std::string name = path.filename().string();
    const std::string extension = path.extension().string();
    static constexpr std::array extensions{".conf", ".key", ".crt", ".pem", ".crl", ".cer"};
    return name == "postmaster.opts" ||
           std::any_of(extensions.begin(), extensions.end(), [&](const char* e) { return extension == e; });
}

/// Calls `use` for each of the administrator's files, by its path below `from`.
template <class Use>
Status for_each_setting(const std::string& from, Use&& use) {
    std::error_code error;
    for (const char* folder : {"", "conf.d"}) {
        const fs::path directory = fs::path(from) / folder;
        if (*folder != '\0' && !fs::is_directory(directory, error)) continue;
        for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
            std::error_code ignored;
            if (!at->is_regular_file(ignored) || !is_a_setting(at->path())) continue;
            Status used = use((fs::path(folder) / at->path().filename()).string());
            if (!used) return used;
        }
        if (error) return file_error("read directory", directory.string(), error.value());
    }
    return {};
}

Status copy_file(const std::string& from, const std::string& to) {
    auto text = read_file(from, limits::max_settings_file_bytes);
    if (!text) return std::move(text).error();
    return replace_file_durably(to, *text);
}

Status make_directory(const std::string& path) {
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
        return file_error("create directory", path, errno);
    return sync_directory(fs::path(path).parent_path().string());
}

Status rename_durably(const std::string& from, const std::string& to) {
    if (::rename(from.c_str(), to.c_str()) != 0) return file_error("rename", from, errno);
    return sync_directory(fs::path(to).parent_path().string());
}

bool exists(const std::string& path) {
    struct stat status {};
    return ::lstat(path.c_str(), &status) == 0;
}

Command program(const ServerFiles& server, const std::string& name) {
    Command command;
    command.arguments.push_back(server.bin_directory + "/" + name);
    command.environment = clean_environment();
    return command;
}

}  // namespace

Result<ControlData> parse_control_data(std::string_view output) {
    ControlData data;
    const std::string_view state = line_value(output, "Database cluster state");
    const auto checkpoint = Lsn::parse(line_value(output, "Latest checkpoint location"));
    const auto redo = Lsn::parse(line_value(output, "Latest checkpoint's REDO location"));
    const auto timeline = to_number<std::uint32_t>(line_value(output, "Latest checkpoint's TimeLineID"));
    const auto recovery_timeline =
        to_number<std::uint32_t>(line_value(output, "Min recovery ending loc's timeline"));
    const auto segment = to_number<std::uint64_t>(line_value(output, "Bytes per WAL segment"));
    if (state.empty() || !checkpoint || !redo || !timeline || !segment || *segment == 0)
        return Error(sqlstate::internal_error, "what pg_controldata says can't be read", {},
                     std::string(output.substr(0, 500)));
    data.shut_down = state == "shut down";
    data.checkpoint = *checkpoint;
    data.redo = *redo;
    data.timeline = std::max(*timeline, recovery_timeline.value_or(0));
    data.timeline_begun = data.timeline != *timeline;
    data.segment_bytes = *segment;
    data.wal_log_hints = line_value(output, "wal_log_hints setting") == "on";
    const auto checksums = to_number<int>(line_value(output, "Data page checksum version"));
    data.checksums = checksums && *checksums != 0;
    return data;
}

std::optional<Lsn> last_valid_record(std::string_view waldump_output) {
    constexpr std::string_view before = "error in WAL record at ";
    const auto at = waldump_output.rfind(before);
    if (at == std::string_view::npos) return std::nullopt;
    const std::string_view rest = waldump_output.substr(at + before.size());
    return Lsn::parse(rest.substr(0, rest.find(':')));
}

std::string wal_file_suffix(Lsn position, std::uint64_t segment_bytes) {
    const std::uint64_t segment = position.bytes() / segment_bytes;
    const std::uint64_t per_id = 0x100000000ULL / segment_bytes;
    char text[17];
    std::snprintf(text, sizeof text, "%08X%08X", static_cast<unsigned>(segment / per_id),
                  static_cast<unsigned>(segment % per_id));
    return text;
}

Command controldata_command(const ServerFiles& server) {
    Command command = program(server, "pg_controldata");
    command.arguments.insert(command.arguments.end(), {"-D", server.data_directory});
    return command;
}

Command waldump_command(const ServerFiles& server, Lsn from, std::uint32_t timeline) {
    Command command = program(server, "pg_waldump");
    command.arguments.insert(command.arguments.end(),
                             {"--quiet", "-p", server.data_directory + "/pg_wal", "-t",
                              std::to_string(timeline), "-s", from.to_string()});
    return command;
}

Command rewind_command(const ServerFiles& server, const std::string& source_conninfo) {
    Command command = program(server, "pg_rewind");
    command.arguments.insert(command.arguments.end(),
                             {"-D", server.data_directory, "--source-server", source_conninfo});
    if (server.major_version >= 15 && server.config_file != server.data_directory + "/postgresql.conf")
        command.arguments.push_back("--config-file=" + server.config_file);
    return command;
}

Command basebackup_command(const ServerFiles& server, const std::string& directory,
                           const std::string& source_conninfo, const std::string& slot) {
    Command command = program(server, "pg_basebackup");
    command.arguments.insert(command.arguments.end(), {"-D", directory, "-X", "stream", "-c", "fast", "-S",
                                                       slot, "-d", source_conninfo});
    return command;
}

Command remove_command(const std::string& directory) {
    Command command;
    command.arguments = {"/bin/rm", "-rf", "--", directory};
    command.environment = clean_environment();
    return command;
}

bool processes_work_in(const std::string& directory) {
    std::error_code error;
    for (fs::directory_iterator at("/proc", error), end; !error && at != end; at.increment(error)) {
        const std::string name = at->path().filename().string();
        if (name.empty() || name[0] < '0' || name[0] > '9') continue;
        std::error_code unreadable;
        if (fs::read_symlink(at->path() / "cwd", unreadable) == directory) return true;
    }
    return false;
}

Status make_standby(const std::string& data_directory,
                    const std::vector<std::pair<std::string, std::string>>& settings) {
    const std::string path = data_directory + "/postgresql.auto.conf";
    std::string text;
    if (exists(path)) {
        auto read = read_file(path, limits::max_settings_file_bytes);
        if (!read) return std::move(read).error();
        text = std::move(*read);
    }
    auto file = SettingsFile::parse(std::move(text), path);
    if (!file) return std::move(file).error();
    for (const auto& [name, value] : settings)
        if (Status set = file->set(name, value); !set) return set;
    if (Status written = replace_file_durably(path, file->text()); !written) return written;
    auto removed = remove_file_durably(data_directory + "/recovery.signal");
    if (!removed) return std::move(removed).error();
    return create_signal_file(data_directory + "/standby.signal");
}

Result<RejoinFiles::Journal> RejoinFiles::read() const {
    const std::string path = journal_directory() + "/journal";
    Journal journal;
    if (!exists(path)) return journal;
    auto text = read_file(path, limits::max_settings_file_bytes);
    if (!text) return std::move(text).error();
    try {
        const auto value = nlohmann::json::parse(*text);
        const auto word = value.at("stage").get<std::string>();
        const auto* known = std::find_if(stage_words.begin(), stage_words.end(),
                                         [&](const auto& entry) { return entry.second == word; });
        if (known == stage_words.end()) throw std::invalid_argument("stage " + word);
        journal.stage = known->first;
        value.at("epoch").get_to(journal.epoch);
        value.at("log_file").get_to(journal.log_file);
    } catch (const std::exception& problem) {
        return Error("XX001", "\"" + path + "\" can't be read: " + problem.what(),
                     "Remove it, after a look at the data directory.");
    }
    return journal;
}

Status RejoinFiles::write(const Journal& journal) const {
    if (Status made = make_directory(journal_directory()); !made) return made;
    const auto* word = std::find_if(stage_words.begin(), stage_words.end(),
                                    [&](const auto& entry) { return entry.first == journal.stage; });
    const nlohmann::json value = {
        {"stage", std::string(word->second)}, {"epoch", journal.epoch}, {"log_file", journal.log_file}};
    return replace_file_durably(journal_directory() + "/journal",
                                value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

Status RejoinFiles::save_settings() const {
    const std::string saved = journal_directory() + "/saved";
    std::error_code error;
    fs::remove_all(saved, error);
    if (error) return file_error("remove", saved, error.value());
    for (const std::string& directory : {journal_directory(), saved, saved + "/conf.d"})
        if (Status made = make_directory(directory); !made) return made;
    return for_each_setting(
        data_, [&](const std::string& name) { return copy_file(data_ + "/" + name, saved + "/" + name); });
}

bool RejoinFiles::has_saved_settings() const {
    return exists(journal_directory() + "/saved");
}

Status RejoinFiles::restore_settings(const std::string& directory) const {
    const std::string saved = journal_directory() + "/saved";
    if (!exists(saved)) return {};
    return for_each_setting(saved, [&](const std::string& name) -> Status {
        if (name.starts_with("conf.d/"))
            if (Status made = make_directory(directory + "/conf.d"); !made) return made;
        return copy_file(saved + "/" + name, directory + "/" + name);
    });
}

void RejoinFiles::restore_start_options() const {
    const std::string from = journal_directory() + "/saved/postmaster.opts";
    const std::string to = data_ + "/postmaster.opts";
    if (!exists(from) || !exists(data_) || exists(to)) return;
    // Without it the look that follows says what is missing.
    if (Status copied = copy_file(from, to); !copied) return;
}

std::string RejoinFiles::copy_impossible_because() const {
    std::error_code error;
    const std::string parent = fs::path(data_).parent_path().string();
    struct stat above {};
    struct stat here {};
    if (::access(parent.c_str(), W_OK | X_OK) != 0) return "directory \"" + parent + "\" can't be written to";
    if (::stat(parent.c_str(), &above) != 0 || ::stat(data_.c_str(), &here) != 0) return {};
    if (above.st_dev != here.st_dev) return "\"" + data_ + "\" is a mount point, which can't be renamed";
    if (fs::is_symlink(data_ + "/pg_wal", error)) return "its pg_wal lies elsewhere";
    if (!fs::is_empty(data_ + "/pg_tblspc", error) && !error) return "it has tablespaces";
    return {};
}

Status RejoinFiles::complete_copy() const {
    return rename_durably(copy_directory(), complete_directory());
}

bool RejoinFiles::copy_is_complete() const {
    return exists(complete_directory());
}

Status RejoinFiles::put_copy_in_place() const {
    if (exists(data_))
        if (Status aside = rename_durably(data_, old_directory()); !aside) return aside;
    return rename_durably(complete_directory(), data_);
}

void RejoinFiles::forget() const {
    // What stays is found and settled when this server has to rejoin again.
    std::error_code ignored;
    fs::remove_all(journal_directory(), ignored);
}

}  // namespace pgxc::replication
