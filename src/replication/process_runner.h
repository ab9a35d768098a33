#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"

/// Runs programs by argument vector, never through a shell, from inside a server process: the program gets no
/// descriptor but 0, 1 and 2, no signal mask or handler, and no environment of ours (F8).
namespace pgxc::replication {

struct Command {
    std::vector<std::string> arguments;  // [0] is the absolute path of the program
    /// "NAME=value", complete; see clean_environment().
    std::vector<std::string> environment;
    std::string working_directory = "/";
    std::string input;  // what it reads from its standard input, whatever its size; not shown to others, as
                        // arguments and environment are
    bool own_session = false;  // setsid(): not reached by signals to our process group
    /// End it with SIGKILL when the thread that started it ends, so that no orphan goes on with work that
    /// another decider has taken over meanwhile. What it has started itself, such as a server, is not
    /// touched.
    bool die_with_parent = true;
};

/// PATH, LANG=C, HOME of this OS user: enough for PostgreSQL's programs, and nothing that would change them
/// (PG*).
[[nodiscard]] std::vector<std::string> clean_environment();

struct ProcessResult {
    /// Exit status 0..255, or 128 + signal where a signal ended it.
    int exit_status = 0;
    bool timed_out = false;  // ended by us at the deadline
    /// What it wrote to standard output and error, at most limits::max_program_output_bytes.
    std::string output;
    [[nodiscard]] bool succeeded() const { return exit_status == 0 && !timed_out; }
};

/// A running program. Never blocks: wait until event_fd() is readable or next_wakeup() is there, then ask
/// poll().
///
/// Its output goes to a memory file and not to a pipe: pg_ctl leaves a server behind that inherits it, and a
/// pipe would then neither end (the server holds it) nor may be closed (the server would get SIGPIPE).
///
/// A destroyed ChildProcess that still runs is ended with SIGKILL and reaped.
class ChildProcess {
  public:
    /// Starts it. At the deadline it gets SIGTERM, and SIGKILL `kill_grace` later; only itself, not its
    /// children. Error if it can't be started (e.g. 58P01 no such program).
    [[nodiscard]] static Result<ChildProcess> start(const Command& command, TimePoint deadline,
                                                    Millis kill_grace = Millis{2000});

    ChildProcess(ChildProcess&& other) noexcept;
    ChildProcess& operator=(ChildProcess&& other) noexcept;
    ChildProcess(const ChildProcess&) = delete;
    ChildProcess& operator=(const ChildProcess&) = delete;
    ~ChildProcess();

    [[nodiscard]] pid_t pid() const { return pid_; }
    /// Readable (epoll, Asio) when the program has ended. Owned by this object.
    [[nodiscard]] int event_fd() const { return pidfd_.get(); }
    /// When poll() has something to do even without an event. Nothing: it has ended, or was killed already.
    [[nodiscard]] std::optional<TimePoint> next_wakeup() const;

    /// The result once it has ended, else nothing. Signals it if `now` is past the deadline. May be repeated.
    [[nodiscard]] std::optional<ProcessResult> poll(TimePoint now);

    /// What it has written so far.
    [[nodiscard]] std::string output() const;

  private:
    enum class Phase { Running, Terminating, Killed, Ended };

    ChildProcess() = default;
    void end_now() noexcept;

    pid_t pid_ = -1;
    UniqueFd pidfd_;
    UniqueFd output_;
    TimePoint deadline_;
    Millis kill_grace_{0};
    Phase phase_ = Phase::Ended;
    bool timed_out_ = false;
    int exit_status_ = 0;
};

/// Runs a program to its end and blocks meanwhile: for tools and tests.
[[nodiscard]] Result<ProcessResult> run(const Command& command, Millis time_limit);

/// Starts a program that nobody waits for: it is no child of ours, has a session of its own, and outlives us
/// (whatever `own_session` and `die_with_parent` say). Its output is appended to `log_file`. When this
/// returns, the program has been executed, or the error says why not.
[[nodiscard]] Status start_detached(const Command& command, const std::string& log_file);

}  // namespace pgxc::replication
