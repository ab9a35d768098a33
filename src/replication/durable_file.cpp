#include "replication/durable_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <system_error>
#include <utility>

namespace pgxc::replication {
namespace {

SqlState sqlstate_for_file_access(int error_number) {
    switch (error_number) {
        case EPERM:
        case EACCES:
        case EROFS:
            return sqlstate::insufficient_privilege;
        case ENOENT:
            return sqlstate::undefined_file;
        case EEXIST:
            return sqlstate::duplicate_file;
        case ENOTDIR:
        case EISDIR:
        case ENOTEMPTY:
            return sqlstate::wrong_object_type;
        case ENOSPC:
        case EDQUOT:
            return sqlstate::disk_full;
        case EFBIG:
            return sqlstate::configuration_limit_exceeded;
        case ENOMEM:
        case ENFILE:
        case EMFILE:
            return sqlstate::insufficient_resources;
        default:
            return sqlstate::io_error;
    }
}

std::string directory_of(const std::string& path) {
    const auto slash = path.rfind('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

std::string name_of(const std::string& path) {
    const auto slash = path.rfind('/');
    return slash == std::string::npos ? path : path.substr(slash + 1);
}

Status write_all(int fd, std::string_view text, const std::string& path) {
    while (!text.empty()) {
        const ssize_t written = ::write(fd, text.data(), text.size());
        if (written < 0) {
            if (errno == EINTR) continue;
            return file_error("write", path, errno);
        }
        // A disk that takes nothing and gives no reason is full, as the server reads it too.
        if (written == 0) return file_error("write", path, ENOSPC);
        text.remove_prefix(static_cast<std::size_t>(written));
    }
    return {};
}

struct Target {
    std::string path;  // no symbolic link
    bool exists = false;
    struct stat status {};
};

Result<Target> resolve(const std::string& path) {
    Target target;
    const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
    if (real) {
        target.path = real.get();
        if (::stat(real.get(), &target.status) != 0) return file_error("read the status of", path, errno);
        if (!S_ISREG(target.status.st_mode)) return file_error("replace", path, EISDIR);
        target.exists = true;
        return target;
    }
    const int error_number = errno;
    struct stat link {};
    if (error_number != ENOENT || ::lstat(path.c_str(), &link) == 0)
        return file_error("open", path, error_number);
    target.path = path;
    return target;
}

// Removes the temporary file on every way out but the rename.
class TemporaryFile {
  public:
    explicit TemporaryFile(std::string path) : path_(std::move(path)) {}
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;
    ~TemporaryFile() {
        if (!path_.empty()) ::unlink(path_.c_str());
    }
    [[nodiscard]] const std::string& path() const { return path_; }
    void renamed() { path_.clear(); }

  private:
    std::string path_;
};

// The text in a temporary file beside the target, with its owner and mode, durable but for its name.
Result<std::unique_ptr<TemporaryFile>> write_beside(const Target& target, const std::string& path,
                                                    std::string_view text) {
    std::string temporary_path = directory_of(target.path) + "/." + name_of(target.path) + ".pgxc-XXXXXX";
    const UniqueFd fd(::mkostemp(temporary_path.data(), O_CLOEXEC));
    if (!fd.valid()) return file_error("create a temporary file for", path, errno);
    auto temporary = std::make_unique<TemporaryFile>(temporary_path);

    if (auto written = write_all(fd.get(), text, path); !written) return std::move(written).error();
    if (target.exists) {
        const struct stat& old = target.status;
        struct stat made {};
        if (::fstat(fd.get(), &made) != 0) return file_error("read the status of", path, errno);
        if ((made.st_uid != old.st_uid || made.st_gid != old.st_gid) &&
            ::fchown(fd.get(), old.st_uid, old.st_gid) != 0) {
            return file_error("keep the owner of", path, errno);
        }
        if (::fchmod(fd.get(), old.st_mode & 07777) != 0) return file_error("keep the mode of", path, errno);
    }
    if (::fsync(fd.get()) != 0) return file_error("fsync", path, errno);
    return temporary;
}

}  // namespace

Error file_error(std::string_view action, std::string_view path, int error_number) {
    Error error(sqlstate_for_file_access(error_number), "could not ");
    error.message += action;
    error.message += " file \"";
    error.message += path;
    error.message += "\": ";
    error.message += std::system_category().message(error_number);
    switch (error_number) {
        case EPERM:
        case EACCES:
            error.hint = "It must belong to, and be writable by, the operating system user of this server.";
            break;
        case ENOSPC:
        case EDQUOT:
            error.hint = "Free space on that file system.";
            break;
        case EFBIG:
            error.hint = "The limit of this process for the size of a file (ulimit -f) is too low.";
            break;
        default:
            break;
    }
    return error;
}

Status sync_directory(const std::string& directory) {
    const UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) return file_error("open", directory, errno);
    if (::fsync(fd.get()) != 0) return file_error("fsync", directory, errno);
    return {};
}

Result<std::string> read_file(const std::string& path, std::size_t limit_bytes) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) return file_error("open", path, errno);
    std::string text;
    char buffer[16384];
    for (;;) {
        const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
        if (got < 0) {
            if (errno == EINTR) continue;
            return file_error("read", path, errno);
        }
        if (got == 0) return text;
        text.append(buffer, static_cast<std::size_t>(got));
        if (text.size() > limit_bytes) {
            return Error(sqlstate::program_limit_exceeded, "file \"" + path + "\" is larger than the " +
                                                               std::to_string(limit_bytes) +
                                                               " bytes that are read of such a file");
        }
    }
}

Status replace_file_durably(const std::string& path, std::string_view text, const ReplaceOptions& options) {
    auto target = resolve(path);
    if (!target) return std::move(target).error();
    auto temporary = write_beside(*target, path, text);
    if (!temporary) return std::move(temporary).error();
    if (options.only_if_text) {
        auto current = read_file(target->path, options.only_if_text->size());
        if (!current && current.error().sqlstate != sqlstate::program_limit_exceeded) {
            return std::move(current).error();
        }
        if (!current || *current != *options.only_if_text) {
            return Error(sqlstate::object_in_use,
                         "file \"" + path + "\" was changed by somebody else meanwhile", "Try again.");
        }
    }
    if (::rename((*temporary)->path().c_str(), target->path.c_str()) != 0)
        return file_error("rename", path, errno);
    (*temporary)->renamed();
    return sync_directory(directory_of(target->path));
}

Status check_replaceable(const std::string& path, std::string_view text) {
    auto target = resolve(path);
    if (!target) return std::move(target).error();
    auto temporary = write_beside(*target, path, text);
    if (!temporary) return std::move(temporary).error();
    return {};
}

Status create_signal_file(const std::string& path) {
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR));
    if (!fd.valid()) return file_error("create", path, errno);
    if (::fsync(fd.get()) != 0) return file_error("fsync", path, errno);
    return sync_directory(directory_of(path));
}

Result<bool> remove_file_durably(const std::string& path) {
    if (::unlink(path.c_str()) != 0) {
        if (errno == ENOENT) return false;
        return file_error("remove", path, errno);
    }
    if (auto synced = sync_directory(directory_of(path)); !synced) return std::move(synced).error();
    return true;
}

Result<FileLock> FileLock::try_acquire(const std::string& path) {
    for (;;) {
        UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!fd.valid() && (errno == ENOTDIR || errno == ENOENT)) {
            fd.reset(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR));
        }
        if (!fd.valid()) return file_error("open", path, errno);
        while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
            if (errno == EINTR) continue;
            if (errno == EWOULDBLOCK) {
                return Error(sqlstate::lock_not_available, "\"" + path + "\" is locked by another process",
                             "Another coordinator or session works on this server: wait until it has ended.");
            }
            return file_error("lock", path, errno);
        }
        // Whoever held it before may have removed or replaced what we opened: then the lock is nobody's.
        struct stat locked {};
        struct stat named {};
        if (::fstat(fd.get(), &locked) != 0) return file_error("read the status of", path, errno);
        if (::stat(path.c_str(), &named) == 0 && locked.st_dev == named.st_dev &&
            locked.st_ino == named.st_ino) {
            return FileLock(std::move(fd));
        }
    }
}

}  // namespace pgxc::replication
