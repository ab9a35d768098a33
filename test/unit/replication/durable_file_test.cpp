#include "replication/durable_file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "unit/replication/temporary_directory.h"

namespace pgxc::replication {
namespace {

mode_t mode_of(const std::string& path) {
    struct stat status {};
    EXPECT_EQ(::stat(path.c_str(), &status), 0);
    return status.st_mode & 07777;
}

TEST(DurableFileTest, ReadsWithinItsLimit) {
    const TemporaryDirectory directory;
    const std::string file = directory / "f";
    write_text(file, std::string("a\0b", 3));
    EXPECT_EQ(*read_file(file, 3), std::string("a\0b", 3));
    EXPECT_EQ(read_file(file, 2).error().sqlstate, sqlstate::program_limit_exceeded);
    const auto missing = read_file(directory / "none", 10);
    EXPECT_EQ(missing.error().sqlstate, sqlstate::undefined_file);
    EXPECT_NE(missing.error().message.find(directory / "none"), std::string::npos);
    EXPECT_EQ(read_file(directory.path(), 10).error().sqlstate, sqlstate::wrong_object_type);
}

TEST(DurableFileTest, ReplacesAndKeepsMode) {
    const TemporaryDirectory directory;
    const std::string file = directory / "postgresql.conf";
    write_text(file, "old");
    ASSERT_EQ(::chmod(file.c_str(), 0640), 0);
    ASSERT_TRUE(replace_file_durably(file, "new text").ok());
    EXPECT_EQ(text_of(file), "new text");
    EXPECT_EQ(mode_of(file), 0640U);
    EXPECT_EQ(directory.file_count(), 1U);
    ASSERT_TRUE(replace_file_durably(file, "").ok());
    EXPECT_EQ(text_of(file), "");
}

TEST(DurableFileTest, KeepsTheOwner) {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
    const TemporaryDirectory directory;
    const std::string file = directory / "f";
    write_text(file, "old");
    ASSERT_EQ(::chown(file.c_str(), 12345, 23456), 0);
    ASSERT_TRUE(replace_file_durably(file, "new").ok());
    struct stat status {};
    ASSERT_EQ(::stat(file.c_str(), &status), 0);
    EXPECT_EQ(status.st_uid, 12345U);
    EXPECT_EQ(status.st_gid, 23456U);
}

TEST(DurableFileTest, MakesAMissingFilePrivate) {
    const TemporaryDirectory directory;
    ASSERT_TRUE(replace_file_durably(directory / "f", "secret").ok());
    EXPECT_EQ(mode_of(directory / "f"), 0600U);
}

TEST(DurableFileTest, ReplacesTheTargetOfALink) {
    const TemporaryDirectory directory;
    const TemporaryDirectory elsewhere;
    write_text(elsewhere / "target", "old");
    ASSERT_EQ(::symlink((elsewhere / "target").c_str(), (directory / "link").c_str()), 0);
    ASSERT_TRUE(replace_file_durably(directory / "link", "new").ok());
    EXPECT_TRUE(std::filesystem::is_symlink(directory / "link"));
    EXPECT_EQ(text_of(elsewhere / "target"), "new");
    EXPECT_EQ(elsewhere.file_count(), 1U);
    EXPECT_EQ(directory.file_count(), 1U);

    ASSERT_EQ(::symlink("/nowhere/at/all", (directory / "dangling").c_str()), 0);
    EXPECT_EQ(replace_file_durably(directory / "dangling", "new").error().sqlstate, sqlstate::undefined_file);
    EXPECT_TRUE(std::filesystem::is_symlink(directory / "dangling"));
}

TEST(DurableFileTest, ReplacesOnlyTheTextThatWasRead) {
    const TemporaryDirectory directory;
    const std::string file = directory / "f";
    write_text(file, "theirs");
    const auto done = replace_file_durably(file, "ours", {"read before"});
    ASSERT_FALSE(done.ok());
    EXPECT_EQ(done.error().sqlstate, sqlstate::object_in_use);
    EXPECT_EQ(text_of(file), "theirs");
    EXPECT_EQ(replace_file_durably(file, "ours", {"the"}).error().sqlstate, sqlstate::object_in_use);
    EXPECT_EQ(directory.file_count(), 1U);
    EXPECT_TRUE(replace_file_durably(file, "ours", {"theirs"}).ok());
    EXPECT_EQ(text_of(file), "ours");
}

TEST(DurableFileTest, TellsWhatIsWrong) {
    const TemporaryDirectory directory;
    EXPECT_EQ(replace_file_durably(directory / "no/such/dir", "x").error().sqlstate,
              sqlstate::undefined_file);
    EXPECT_EQ(replace_file_durably(directory.path(), "x").error().sqlstate, sqlstate::wrong_object_type);
    EXPECT_EQ(create_signal_file(directory / "no/standby.signal").error().sqlstate, sqlstate::undefined_file);
    EXPECT_EQ(file_error("write", "/f", ENOSPC).sqlstate, sqlstate::disk_full);
    EXPECT_EQ(file_error("write", "/f", EACCES).sqlstate, sqlstate::insufficient_privilege);
    EXPECT_EQ(file_error("write", "/f", EIO).sqlstate, sqlstate::io_error);
    EXPECT_EQ(file_error("write", "/f", EIO).message, "could not write file \"/f\": Input/output error");
}

TEST(DurableFileTest, ReadOnlyDirectory) {
    if (::geteuid() == 0) GTEST_SKIP() << "no directory is read-only to root";
    const TemporaryDirectory directory;
    write_text(directory / "f", "old");
    ASSERT_EQ(::chmod(directory.path().c_str(), 0500), 0);
    const auto done = replace_file_durably(directory / "f", "new");
    const auto removed = remove_file_durably(directory / "f");
    ASSERT_EQ(::chmod(directory.path().c_str(), 0700), 0);
    EXPECT_EQ(done.error().sqlstate, sqlstate::insufficient_privilege);
    EXPECT_FALSE(done.error().hint.empty());
    EXPECT_EQ(removed.error().sqlstate, sqlstate::insufficient_privilege);
    EXPECT_EQ(text_of(directory / "f"), "old");
}

// A write that fails half way, as on a full disk: in a child, because the limit is the whole process's.
TEST(DurableFileTest, HalfAWriteChangesNothing) {
    const TemporaryDirectory directory;
    const std::string file = directory / "f";
    write_text(file, "old");
    const pid_t child = ::fork();
    if (child == 0) {
        ::signal(SIGXFSZ, SIG_IGN);
        const rlimit limit{4096, 4096};
        ::setrlimit(RLIMIT_FSIZE, &limit);
        const auto done = replace_file_durably(file, std::string(10000, 'x'));
        ::_exit(!done && done.error().sqlstate == sqlstate::configuration_limit_exceeded ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(text_of(file), "old");
    EXPECT_EQ(directory.file_count(), 1U);
}

TEST(DurableFileTest, SignalFiles) {
    const TemporaryDirectory directory;
    const std::string file = directory / "standby.signal";
    ASSERT_TRUE(create_signal_file(file).ok());
    ASSERT_TRUE(create_signal_file(file).ok());
    EXPECT_EQ(mode_of(file), 0600U);
    EXPECT_EQ(text_of(file), "");
    EXPECT_TRUE(*remove_file_durably(file));
    EXPECT_FALSE(*remove_file_durably(file));
}

TEST(FileLockTest, OneHolder) {
    const TemporaryDirectory directory;
    for (const auto& path : {directory / "lock", directory.path()}) {
        {
            const auto held = FileLock::try_acquire(path);
            ASSERT_TRUE(held.ok());
            const auto second = FileLock::try_acquire(path);
            ASSERT_FALSE(second.ok());
            EXPECT_EQ(second.error().sqlstate, sqlstate::lock_not_available);
        }
        EXPECT_TRUE(FileLock::try_acquire(path).ok());
    }
    EXPECT_EQ(FileLock::try_acquire(directory / "no/lock").error().sqlstate, sqlstate::undefined_file);
}

TEST(FileLockTest, ALockOnARemovedFileIsNobodys) {
    const TemporaryDirectory directory;
    const auto held = FileLock::try_acquire(directory / "lock");
    ASSERT_TRUE(held.ok());
    std::filesystem::remove(directory / "lock");
    EXPECT_TRUE(FileLock::try_acquire(directory / "lock").ok());
}

}  // namespace
}  // namespace pgxc::replication
