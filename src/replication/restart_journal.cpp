#include "replication/restart_journal.h"

#include <sys/stat.h>

#include <exception>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "replication/durable_file.h"
#include "replication/server_files.h"
#include "replication/settings_file.h"

namespace pgxc::replication {
namespace {

using Json = nlohmann::json;

constexpr int journal_version = 1;
// Bytes of a journal: a few settings files, each byte of which may take two.
constexpr std::size_t max_journal_bytes = 8 * limits::max_settings_file_bytes;

std::string journal_path(const std::string& data_directory) {
    return data_directory + "/pgxc_ha.restart";
}

bool exists(const std::string& path) {
    struct stat status {};
    return ::stat(path.c_str(), &status) == 0;
}

// JSON strings are UTF-8 and settings files are bytes: each byte becomes the code point of its number.
std::string bytes_to_utf8(std::string_view bytes) {
    std::string utf8;
    utf8.reserve(bytes.size());
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x80) {
            utf8 += c;
        } else {
            utf8 += static_cast<char>(0xC0U | (byte >> 6U));
            utf8 += static_cast<char>(0x80U | (byte & 0x3FU));
        }
    }
    return utf8;
}

std::string utf8_to_bytes(std::string_view utf8) {
    std::string bytes;
    bytes.reserve(utf8.size());
    for (std::size_t i = 0; i < utf8.size(); ++i) {
        const auto first = static_cast<unsigned char>(utf8[i]);
        if (first < 0x80 || i + 1 >= utf8.size()) {
            bytes += utf8[i];
        } else {
            const auto second = static_cast<unsigned char>(utf8[++i]);
            bytes += static_cast<char>(((first & 0x03U) << 6U) | (second & 0x3FU));
        }
    }
    return bytes;
}

Json strings_to_json(const std::vector<std::string>& strings) {
    Json list = Json::array();
    for (const auto& s : strings) list.push_back(bytes_to_utf8(s));
    return list;
}

std::vector<std::string> strings_from_json(const Json& list) {
    std::vector<std::string> strings;
    for (const auto& s : list) strings.push_back(utf8_to_bytes(s.get<std::string>()));
    return strings;
}

std::string journal_text(const RestartJournal& journal) {
    Json files = Json::array();
    for (const auto& file : journal.files) {
        Json changes = Json::array();
        for (const auto& change : file.changes) {
            Json entry{{"name", bytes_to_utf8(change.name)}};
            if (change.new_value) entry["new_value"] = bytes_to_utf8(*change.new_value);
            if (change.old_value) entry["old_value"] = bytes_to_utf8(*change.old_value);
            changes.push_back(std::move(entry));
        }
        files.push_back({{"path", bytes_to_utf8(file.path)},
                         {"old_text", bytes_to_utf8(file.old_text)},
                         {"new_text", bytes_to_utf8(file.new_text)},
                         {"changes", std::move(changes)}});
    }
    const Json text{{"version", journal_version},
                    {"intent", bytes_to_utf8(journal.intent)},
                    {"files", std::move(files)},
                    {"replaces_standby_signal", journal.replaces_standby_signal},
                    {"ends_by_itself", journal.ends_by_itself},
                    {"old_pid", journal.old_pid},
                    {"old_start_time", journal.old_start_time},
                    {"arguments", strings_to_json(journal.arguments)},
                    {"environment", strings_to_json(journal.environment)},
                    {"log_file", bytes_to_utf8(journal.log_file)}};
    return text.dump(1) + "\n";
}

// Did the decider that died get as far as a server that is up with the new files?
bool has_taken_effect(const std::string& data_directory, const RestartJournal& journal) {
    const auto postmaster = running_postmaster(data_directory);
    return postmaster && postmaster->is_up() &&
           (postmaster->pid != journal.old_pid || postmaster->start_time != journal.old_start_time);
}

// The text with our changes taken back and everything else, which somebody has changed meanwhile, kept.
Result<std::string> text_without_changes(const FileEdit& edit, std::string current) {
    auto settings = SettingsFile::parse(std::move(current), edit.path);
    if (!settings) return std::move(settings).error();
    for (const auto& change : edit.changes) {
        const auto now = settings->get(change.name);
        // Changed again by somebody: no longer ours.
        if (now.has_value() != change.new_value.has_value()) continue;
        if (now && now->value != *change.new_value) continue;
        if (change.old_value) {
            if (auto set = settings->set(change.name, *change.old_value); !set) return std::move(set).error();
        } else {
            settings->remove(change.name);
        }
    }
    return settings->text();
}

Status restore_file(const FileEdit& edit) {
    auto current = read_file(edit.path, limits::max_settings_file_bytes);
    if (!current) return std::move(current).error();
    if (*current == edit.old_text) return {};
    if (*current == edit.new_text) return replace_file_durably(edit.path, edit.old_text);
    auto text = text_without_changes(edit, *current);
    if (!text) return std::move(text).error();
    if (*text == *current) return {};
    return replace_file_durably(edit.path, *text, {*current});
}

}  // namespace

std::string recovery_conf_path(const std::string& data_directory) {
    return data_directory + "/recovery.conf";
}
std::string standby_signal_path(const std::string& data_directory) {
    return data_directory + "/standby.signal";
}
std::string recovery_signal_path(const std::string& data_directory) {
    return data_directory + "/recovery.signal";
}

Result<std::optional<RestartJournal>> read_journal(const std::string& data_directory) {
    const std::string path = journal_path(data_directory);
    auto text = read_file(path, max_journal_bytes);
    if (!text) {
        if (text.error().sqlstate == sqlstate::undefined_file) return std::optional<RestartJournal>{};
        return std::move(text).error();
    }
    try {
        const Json json = Json::parse(*text);
        if (json.at("version").get<int>() != journal_version) throw std::runtime_error("of another version");
        RestartJournal journal;
        journal.intent = utf8_to_bytes(json.at("intent").get<std::string>());
        for (const auto& file : json.at("files")) {
            FileEdit edit;
            edit.path = utf8_to_bytes(file.at("path").get<std::string>());
            edit.old_text = utf8_to_bytes(file.at("old_text").get<std::string>());
            edit.new_text = utf8_to_bytes(file.at("new_text").get<std::string>());
            for (const auto& entry : file.at("changes")) {
                FileEdit::Change change;
                change.name = utf8_to_bytes(entry.at("name").get<std::string>());
                if (entry.contains("new_value")) {
                    change.new_value = utf8_to_bytes(entry.at("new_value").get<std::string>());
                }
                if (entry.contains("old_value")) {
                    change.old_value = utf8_to_bytes(entry.at("old_value").get<std::string>());
                }
                edit.changes.push_back(std::move(change));
            }
            journal.files.push_back(std::move(edit));
        }
        journal.replaces_standby_signal = json.at("replaces_standby_signal").get<bool>();
        journal.ends_by_itself = json.at("ends_by_itself").get<bool>();
        journal.old_pid = json.at("old_pid").get<pid_t>();
        journal.old_start_time = json.at("old_start_time").get<std::int64_t>();
        journal.arguments = strings_from_json(json.at("arguments"));
        journal.environment = strings_from_json(json.at("environment"));
        journal.log_file = utf8_to_bytes(json.at("log_file").get<std::string>());
        return std::optional<RestartJournal>(std::move(journal));
    } catch (const std::exception& problem) {
        return Error(sqlstate::config_file_error, "file \"" + path + "\" is not a journal of a restart",
                     "Look at the settings files of that server, then remove that file.", problem.what());
    }
}

Status write_journal(const std::string& data_directory, const RestartJournal& journal) {
    return replace_file_durably(journal_path(data_directory), journal_text(journal));
}

Status check_journal_writable(const std::string& data_directory, const RestartJournal& journal) {
    return check_replaceable(journal_path(data_directory), journal_text(journal));
}

Status remove_journal(const std::string& data_directory) {
    if (auto removed = remove_file_durably(journal_path(data_directory)); !removed)
        return std::move(removed).error();
    return {};
}

bool is_promoted_already(const std::string& data_directory, const RestartJournal& journal) {
    if (!journal.ends_by_itself) return false;
    if (journal.replaces_standby_signal) {
        return !exists(standby_signal_path(data_directory)) && !exists(recovery_signal_path(data_directory));
    }
    return !exists(recovery_conf_path(data_directory));
}

Status restore_files(const std::string& data_directory, const RestartJournal& journal) {
    Status first;
    const auto note = [&first](Status status) {
        if (first && !status) first = std::move(status);
    };
    if (!is_promoted_already(data_directory, journal)) {
        if (journal.replaces_standby_signal) {
            // Where both are there standby.signal counts: never is there a moment without one.
            note(create_signal_file(standby_signal_path(data_directory)));
            if (auto removed = remove_file_durably(recovery_signal_path(data_directory)); !removed) {
                note(std::move(removed).error());
            }
        }
        for (const auto& file : journal.files) note(restore_file(file));
    }
    if (!first) return first;  // the journal stays, for the next try
    note(remove_journal(data_directory));
    return first;
}

Status settle_unfinished(const std::string& data_directory, const RestartJournal& journal) {
    if (!has_taken_effect(data_directory, journal)) {
        log_info("undoing an unfinished restart in " + data_directory + ": " + journal.intent);
        return restore_files(data_directory, journal);
    }
    log_info("an unfinished restart in " + data_directory +
             " was done but for its journal: " + journal.intent);
    return remove_journal(data_directory);
}

Result<std::optional<std::string>> unfinished_restart(const std::string& data_directory) {
    auto journal = read_journal(data_directory);
    if (!journal) return std::move(journal).error();
    if (!*journal) return std::optional<std::string>{};
    return std::optional<std::string>((*journal)->intent);
}

Status undo_unfinished_restart(const std::string& data_directory) {
    auto lock = FileLock::try_acquire(data_directory);
    if (!lock) return std::move(lock).error();
    auto journal = read_journal(data_directory);
    if (!journal) return std::move(journal).error();
    if (!*journal) return {};
    return settle_unfinished(data_directory, **journal);
}

}  // namespace pgxc::replication
