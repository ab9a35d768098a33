#include "replication/process_runner.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "base/limits.h"
#include "unit/replication/temporary_directory.h"

namespace pgxc::replication {
namespace {

Command shell(const std::string& script) {
    Command command;
    command.arguments = {"/bin/sh", "-c", script};
    command.environment = clean_environment();
    return command;
}

ProcessResult run_shell(const std::string& script, Millis limit = Millis{20000}) {
    auto result = run(shell(script), limit);
    EXPECT_TRUE(result.ok()) << result.error().message;
    return result ? *result : ProcessResult{};
}

TEST(ProcessRunnerTest, GivesStatusAndOutput) {
    auto result = run_shell("echo out; echo err >&2; exit 3");
    EXPECT_EQ(result.exit_status, 3);
    EXPECT_EQ(result.output, "out\nerr\n");
    EXPECT_FALSE(result.timed_out);
    EXPECT_FALSE(result.succeeded());
    EXPECT_TRUE(run_shell("true").succeeded());
    EXPECT_EQ(run_shell("kill -KILL $$").exit_status, 128 + SIGKILL);
}

TEST(ProcessRunnerTest, PassesArgumentsUntouched) {
    Command command;
    command.arguments = {"/usr/bin/printf", "%s|", "a b", "$HOME", "`id`", "'\"\\", ""};
    const auto result = run(command, Millis{20000});
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result->output, "a b|$HOME|`id`|'\"\\||");
}

TEST(ProcessRunnerTest, SaysWhatCannotRun) {
    Command command;
    command.arguments = {"/no/such/program"};
    const auto missing = run(command, Millis{1000});
    ASSERT_FALSE(missing.ok());
    EXPECT_EQ(missing.error().sqlstate, sqlstate::undefined_file);
    EXPECT_NE(missing.error().message.find("/no/such/program"), std::string::npos);
    command.arguments = {"/etc/passwd"};
    EXPECT_EQ(run(command, Millis{1000}).error().sqlstate, sqlstate::insufficient_privilege);
    command.arguments = {"sh"};
    EXPECT_EQ(run(command, Millis{1000}).error().sqlstate, sqlstate::invalid_parameter_value);
    command.arguments = {};
    EXPECT_EQ(run(command, Millis{1000}).error().sqlstate, sqlstate::invalid_parameter_value);
    command.arguments = {"/bin/true"};
    command.working_directory = "/no/such/directory";
    EXPECT_EQ(run(command, Millis{1000}).error().sqlstate, sqlstate::undefined_file);
}

TEST(ProcessRunnerTest, ClosesDescriptors) {
    const UniqueFd leaked(::open("/etc/passwd", O_RDONLY));  // not close-on-exec, as a server's may be
    ASSERT_TRUE(leaked.valid());
    EXPECT_EQ(run_shell("cd /proc/self/fd; echo *; ").output, "0 1 2 3\n");  // 3: the directory that is read
}

TEST(ProcessRunnerTest, ResetsSignals) {
    sigset_t blocked;
    sigset_t before;
    ::sigemptyset(&blocked);
    ::sigaddset(&blocked, SIGUSR1);
    ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
    const auto old_handler = ::signal(SIGHUP, SIG_IGN);
    Command command;  // cat, since a shell or grep has handlers of its own
    command.arguments = {"/bin/cat", "/proc/self/status"};
    const auto result = run(command, Millis{20000});
    ::signal(SIGHUP, old_handler);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    ASSERT_TRUE(result.ok());
    EXPECT_NE(result->output.find(
                  "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n"),
              std::string::npos)
        << result->output;
}

TEST(ProcessRunnerTest, CleanEnvironment) {
    ::setenv("PGHOST", "elsewhere", 1);
    const auto result = run_shell("env");
    ::unsetenv("PGHOST");
    EXPECT_EQ(result.output.find("PGHOST"), std::string::npos);
    EXPECT_NE(result.output.find("LANG=C\n"), std::string::npos);
    EXPECT_NE(result.output.find("HOME="), std::string::npos);
    EXPECT_NE(result.output.find("PWD=/\n"), std::string::npos);
}

TEST(ProcessRunnerTest, EndsWhatTakesTooLong) {
    const auto started = Clock::now();
    const auto result = run_shell("echo begun; exec sleep 600", Millis{3'000});
    EXPECT_TRUE(result.timed_out);
    EXPECT_EQ(result.exit_status, 128 + SIGTERM);
    EXPECT_EQ(result.output, "begun\n");
    EXPECT_LT(Clock::now() - started, std::chrono::seconds(20));
}

TEST(ProcessRunnerTest, KillsWhatIgnoresTheEnd) {
    auto child = ChildProcess::start(shell("trap '' TERM; echo ready; while :; do sleep 0.01; done"),
                                     Clock::now() + Millis{3'000}, Millis{200});
    ASSERT_TRUE(child.ok());
    std::optional<ProcessResult> result;
    while (!(result = child->poll(Clock::now()))) {
        pollfd event{child->event_fd(), POLLIN, 0};
        const auto wakeup = child->next_wakeup();
        const auto left = wakeup ? std::chrono::ceil<Millis>(*wakeup - Clock::now()).count() : 20000;
        ::poll(&event, 1, static_cast<int>(std::max<long long>(0, left)));
    }
    EXPECT_TRUE(result->timed_out);
    EXPECT_EQ(result->exit_status, 128 + SIGKILL);
    EXPECT_FALSE(child->next_wakeup());
    EXPECT_TRUE(child->poll(Clock::now()));  // asking again gives the same
}

TEST(ProcessRunnerTest, KeepsABoundedOutputAndLetsTheProgramGoOn) {
    const auto result = run_shell("head -c 1000000 /dev/zero 2>/dev/null; echo $? >&3 3>&1; exit 7");
    EXPECT_EQ(result.exit_status, 7);
    EXPECT_LE(result.output.size(), limits::max_program_output_bytes);
    EXPECT_GT(result.output.size(), limits::max_program_output_bytes / 2);
}

// pg_ctl leaves a server behind: its end is what counts, not the end of all who inherited its output, and
// what it left behind must be able to go on writing.
TEST(ProcessRunnerTest, DoesNotWaitForADaemonAndDoesNotBreakIt) {
    const TemporaryDirectory directory;
    ASSERT_EQ(::mkfifo((directory / "go").c_str(), 0600), 0);
    ASSERT_EQ(::mkfifo((directory / "result").c_str(), 0600), 0);
    const auto started = Clock::now();
    const auto result = run_shell("(read line <" + (directory / "go") + "; echo late && echo alive >" +
                                  (directory / "result") + ") & echo started");
    EXPECT_TRUE(result.succeeded());
    EXPECT_EQ(result.output, "started\n");
    EXPECT_LT(Clock::now() - started, std::chrono::seconds(10));
    write_text(directory / "go", "go\n");
    EXPECT_EQ(text_of(directory / "result"), "alive\n");
}

TEST(ProcessRunnerTest, ADestroyedChildIsEnded) {
    pid_t pid = 0;
    {
        auto child = ChildProcess::start(shell("exec sleep 600"), Clock::now() + Millis{600000});
        ASSERT_TRUE(child.ok());
        pid = child->pid();
        EXPECT_FALSE(child->poll(Clock::now()));
    }
    EXPECT_EQ(::kill(pid, 0), -1);
}

TEST(ProcessRunnerTest, AProgramEndsWithTheProcessThatStartedIt) {
    // The grandchild is handed to this process when its parent ends.
    ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t decider = ::fork();
    if (decider == 0) {
        auto child = ChildProcess::start(shell("exec sleep 600"), Clock::now() + Millis{600000});
        const pid_t pid = child ? child->pid() : -1;
        if (::write(ends[1], &pid, sizeof pid) < 0) ::_exit(1);
        ::kill(::getpid(), SIGKILL);
    }
    pid_t program = -1;
    ASSERT_EQ(::read(ends[0], &program, sizeof program), static_cast<ssize_t>(sizeof program));
    ASSERT_GT(program, 0);
    ASSERT_EQ(::waitpid(decider, nullptr, 0), decider);
    int status = 0;
    ASSERT_EQ(::waitpid(program, &status, 0), program);
    EXPECT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(WTERMSIG(status), SIGKILL);
    ::prctl(PR_SET_CHILD_SUBREAPER, 0);
    ::close(ends[0]);
    ::close(ends[1]);
}

}  // namespace
}  // namespace pgxc::replication
