#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

/// What a restart promotion writes down before it changes anything (<data_directory>/pgxc_ha.restart), and
/// how it is taken back: by itself, or by the next decider if it died.
namespace pgxc::replication {

/// One settings file as it was and as it is wanted.
struct FileEdit {
    struct Change {
        std::string name;
        std::optional<std::string> new_value;  // nothing: every line of it is taken out
        std::optional<std::string> old_value;  // nothing: the setting wasn't in that file
    };
    std::string path;
    std::string old_text;
    std::string new_text;
    std::vector<Change> changes;
};

struct RestartJournal {
    std::string intent;  // for people and for the next decider: who does this and why
    std::vector<FileEdit> files;
    bool replaces_standby_signal = false;
    bool ends_by_itself = false;  // the start with these files promotes (recovery.signal, standby_mode = off)
    // The server that ran when it was written; pid 0: none. A later one was started with the new files.
    pid_t old_pid = 0;
    std::int64_t old_start_time = 0;
    // How the server is to be started: can't be asked any more once it is down.
    std::vector<std::string> arguments;
    std::vector<std::string> environment;
    std::string log_file;
};

[[nodiscard]] std::string recovery_conf_path(const std::string& data_directory);
[[nodiscard]] std::string standby_signal_path(const std::string& data_directory);
[[nodiscard]] std::string recovery_signal_path(const std::string& data_directory);

/// Nothing where there is none. F0000 for one that can't be read: then a person has to look.
[[nodiscard]] Result<std::optional<RestartJournal>> read_journal(const std::string& data_directory);
[[nodiscard]] Status write_journal(const std::string& data_directory, const RestartJournal& journal);
/// Could it be written? Leaves nothing behind.
[[nodiscard]] Status check_journal_writable(const std::string& data_directory, const RestartJournal& journal);
[[nodiscard]] Status remove_journal(const std::string& data_directory);

/// Has the server, started with the new files, already ended recovery by itself? It removes recovery.signal
/// (>= 12) or renames recovery.conf (< 12) after the new timeline is there. From then on it must not be made
/// a slave again.
[[nodiscard]] bool is_promoted_already(const std::string& data_directory, const RestartJournal& journal);

/// Puts the files back and removes the journal; of a file that somebody else has changed meanwhile, only our
/// own settings. Leaves files alone that have promoted the server. Goes on after an error to put back what
/// can be, gives the first, and then leaves the journal for the next try.
[[nodiscard]] Status restore_files(const std::string& data_directory, const RestartJournal& journal);

/// Ends what a decider that died has left: if the server has come up with the new files since, only the
/// journal goes, else the files are restored. The caller holds the lock on the data directory.
[[nodiscard]] Status settle_unfinished(const std::string& data_directory, const RestartJournal& journal);

/// What a decider that died has left in that data directory: its intent, or nothing.
[[nodiscard]] Result<std::optional<std::string>> unfinished_restart(const std::string& data_directory);

/// settle_unfinished() under the lock; doesn't start or stop the server. Nothing to undo is success.
[[nodiscard]] Status undo_unfinished_restart(const std::string& data_directory);

}  // namespace pgxc::replication
