#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "replication/process_runner.h"
#include "replication/rejoin_plan.h"
#include "replication/server_files.h"

/// The files of a former master that becomes a slave: what its own programs tell about them, and what is kept
/// beside its data directory so that no crash leaves a half that looks whole.
namespace pgxc::replication {

/// What pg_controldata tells (in English: LANG=C is in the environment of the programs that we run).
struct ControlData {
    bool shut_down = false;      // as a master and in good order: the checkpoint is its last record
    std::uint32_t timeline = 0;  // the newest that the control file knows
    bool timeline_begun =
        false;  // on a newer timeline than its last checkpoint's: `redo` is on the older one
    Lsn checkpoint;
    Lsn redo;
    std::uint64_t segment_bytes = 0;
    bool wal_log_hints = false;
    bool checksums = false;
};
[[nodiscard]] Result<ControlData> parse_control_data(std::string_view output);

/// Where the last valid record begins, from what pg_waldump says when it meets the end of the WAL ("error in
/// WAL record at 0/30001C8: ..."). Nothing: it says something else.
[[nodiscard]] std::optional<Lsn> last_valid_record(std::string_view waldump_output);

/// The last 16 of the 24 digits of the WAL file that has this position: the same on every timeline.
[[nodiscard]] std::string wal_file_suffix(Lsn position, std::uint64_t segment_bytes);

[[nodiscard]] Command controldata_command(const ServerFiles& server);
[[nodiscard]] Command waldump_command(const ServerFiles& server, Lsn from, std::uint32_t timeline);
[[nodiscard]] Command rewind_command(const ServerFiles& server, const std::string& source_conninfo);
[[nodiscard]] Command basebackup_command(const ServerFiles& server, const std::string& directory,
                                         const std::string& source_conninfo, const std::string& slot);
[[nodiscard]] Command remove_command(const std::string& directory);

/// Does any process work in that directory, as every process of a server does?
[[nodiscard]] bool processes_work_in(const std::string& directory);

/// Beside data directory D: D.pgxc_rejoin (journal and saved settings), D.pgxc_copy (being made), D.pgxc_new
/// (complete), D.pgxc_old (what was there before a copy took its place; the administrator's to remove).
class RejoinFiles {
  public:
    explicit RejoinFiles(std::string data_directory) : data_(std::move(data_directory)) {}

    struct Journal {
        RejoinStage stage = RejoinStage::None;
        std::int64_t epoch = 0;  // of the master that the files were made to follow
        std::string log_file;    // of the server when it was last seen running; empty = not known
    };
    /// Nothing written yet is stage None.
    [[nodiscard]] Result<Journal> read() const;
    [[nodiscard]] Status write(const Journal& journal) const;

    /// Copies the settings (the files at the top of the data directory that are an administrator's, and
    /// conf.d), which pg_rewind and pg_basebackup would replace by the new master's.
    [[nodiscard]] Status save_settings() const;
    [[nodiscard]] bool has_saved_settings() const;
    /// Puts them into a data directory. Nothing saved is success.
    [[nodiscard]] Status restore_settings(const std::string& directory) const;

    /// The same for postmaster.opts alone, which tells how to start the server and which pg_rewind removes.
    void restore_start_options() const;

    [[nodiscard]] std::string copy_directory() const { return data_ + ".pgxc_copy"; }
    [[nodiscard]] std::string complete_directory() const { return data_ + ".pgxc_new"; }
    [[nodiscard]] std::string old_directory() const { return data_ + ".pgxc_old"; }
    /// Why a copy can't be made beside and put in the place of the data directory; empty = it can.
    [[nodiscard]] std::string copy_impossible_because() const;
    /// The copy is complete, to its settings: renames it, durably.
    [[nodiscard]] Status complete_copy() const;
    [[nodiscard]] bool copy_is_complete() const;
    /// Two renames, each durable; may be repeated from in between. old_directory() must not be there, unless
    /// the first rename is done.
    [[nodiscard]] Status put_copy_in_place() const;

    /// Forgets journal and saved settings: the slave is registered.
    void forget() const;

  private:
    [[nodiscard]] std::string journal_directory() const { return data_ + ".pgxc_rejoin"; }
    std::string data_;
};

/// Settings in postgresql.auto.conf, durably, then standby.signal: from then on it starts as a slave.
[[nodiscard]] Status make_standby(const std::string& data_directory,
                                  const std::vector<std::pair<std::string, std::string>>& settings);

}  // namespace pgxc::replication
