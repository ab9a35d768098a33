#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

/// Files that must be right after a crash: either the old text or the new one, never half of it, and durable
/// before what depends on them (FAILOVER_PROTOCOL, "what must be durable before what").
namespace pgxc::replication {

/// The Error for a failed system call on a file: "could not <action> file "<path>": <system's reason>", with
/// the SQLSTATE that the server itself gives for that errno (errcode_for_file_access).
[[nodiscard]] Error file_error(std::string_view action, std::string_view path, int error_number);

/// The whole file. More than `limit_bytes` is refused (54000).
[[nodiscard]] Result<std::string> read_file(const std::string& path, std::size_t limit_bytes);

struct ReplaceOptions {
    /// Replace only while the file still has this text; else 55006. Narrows (it can't close) the window in
    /// which somebody else's change, such as an ALTER SYSTEM, would be overwritten.
    std::optional<std::string_view> only_if_text;
};

/// Puts `text` in the place of the file, durably: temporary file beside it, fsync, rename, fsync of the
/// directory. Mode and owner stay (extended attributes don't); a symbolic link stays and its target is
/// replaced; a file that isn't there is made with mode 0600. On any Error the old file is untouched and the
/// temporary one removed. The temporary's name begins with a dot, so that an include_dir never reads it.
[[nodiscard]] Status replace_file_durably(const std::string& path, std::string_view text,
                                          const ReplaceOptions& options = {});

/// Would replace_file_durably() find space and permission? Does all of it but the rename.
[[nodiscard]] Status check_replaceable(const std::string& path, std::string_view text);

/// Makes an empty file (standby.signal, recovery.signal) durably, mode 0600. One that is there already is
/// success.
[[nodiscard]] Status create_signal_file(const std::string& path);

/// A rename, a creation or a removal is durable only when its directory is.
[[nodiscard]] Status sync_directory(const std::string& directory);

/// Removes a file durably; tells whether it was there.
[[nodiscard]] Result<bool> remove_file_durably(const std::string& path);

/// One holder per path among all processes of this host (flock), until it is destroyed or the process ends. A
/// directory can be locked too, which leaves no file behind and survives everything that happens in it. The
/// lock isn't inherited by programs that process_runner starts.
class FileLock {
  public:
    /// Never waits: 55P03 if another holds it. A path that isn't there is made as an empty file.
    [[nodiscard]] static Result<FileLock> try_acquire(const std::string& path);

  private:
    explicit FileLock(UniqueFd fd) : fd_(std::move(fd)) {}
    UniqueFd fd_;
};

}  // namespace pgxc::replication
