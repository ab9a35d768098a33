#include "replication/process_runner.h"

#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <utility>

#include "base/limits.h"
#include "replication/durable_file.h"

namespace pgxc::replication {
namespace {

#ifndef P_PIDFD
constexpr auto P_PIDFD = static_cast<idtype_t>(3);
#endif
#ifndef SYS_close_range
constexpr long SYS_close_range = 436;
#endif

// A memory file of a fixed size: writes beyond it fail in the program (EPERM) instead of filling our memory.
// How much was written tells the file offset, which the program shares with us.
Result<UniqueFd> make_output_file() {
    UniqueFd fd(::memfd_create("pgxc program output", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!fd.valid()) return file_error("create memory", "for program output", errno);
    if (::ftruncate(fd.get(), static_cast<off_t>(limits::max_program_output_bytes)) != 0 ||
        ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) != 0) {
        return file_error("size memory", "for program output", errno);
    }
    return fd;
}

// What the program reads from its standard input.
Result<UniqueFd> make_input(const std::string& text) {
    if (text.empty()) {
        UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
        if (!null.valid()) return file_error("open", "/dev/null", errno);
        return null;
    }
    UniqueFd fd(::memfd_create("pgxc program input", MFD_CLOEXEC));
    if (!fd.valid()) return file_error("create memory", "for program input", errno);
    std::size_t written = 0;
    while (written < text.size()) {
        const ssize_t put =
            ::pwrite(fd.get(), text.data() + written, text.size() - written, static_cast<off_t>(written));
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return file_error("write memory", "for program input", errno);
        written += static_cast<std::size_t>(put);
    }
    return fd;
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
    std::vector<char*> result;
    result.reserve(strings.size() + 1);
    for (const auto& s : strings) result.push_back(const_cast<char*>(s.c_str()));
    result.push_back(nullptr);
    return result;
}

struct ChildPlan {
    char* const* arguments;
    char* const* environment;
    const char* working_directory;
    int input_fd;
    int output_fd;
    int error_fd;  // write end of a close-on-exec pipe: carries errno of what failed
    pid_t parent;
    bool own_session;
    bool die_with_parent;
    bool detached;
};

// The child between fork and exec. The parent may have threads, so only async-signal-safe calls are allowed
// here.
[[noreturn]] void become_program(const ChildPlan& plan) {
    const auto fail = [&plan]() {
        const int error_number = errno;
        if (::write(plan.error_fd, &error_number, sizeof error_number) < 0) ::_exit(126);
        ::_exit(127);
    };
    // All signals are still blocked: no handler of the parent's can run in the child before it is reset.
    for (int signal_number = 1; signal_number < NSIG; ++signal_number) ::signal(signal_number, SIG_DFL);
    if (plan.own_session || plan.detached) ::setsid();
    if (plan.detached) {
        // Its parent is to be init: ours would have to reap it, and may be gone long before it ends.
        const pid_t grandchild = ::fork();
        if (grandchild > 0) ::_exit(0);
        if (grandchild < 0) fail();
    } else if (plan.die_with_parent) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() != plan.parent) ::_exit(126);  // the parent ended before prctl
    }
    if (::chdir(plan.working_directory) != 0) fail();
    if (::dup2(plan.input_fd, 0) < 0 || ::dup2(plan.output_fd, 1) < 0 || ::dup2(plan.output_fd, 2) < 0)
        fail();
    // The error pipe closes itself at exec; everything else from 3 up goes now.
    if (plan.error_fd != 3) {
        if (::dup3(plan.error_fd, 3, O_CLOEXEC) < 0) fail();
    }
    if (::syscall(SYS_close_range, 4U, ~0U, 0U) != 0) {
        const long highest = std::min<long>(::sysconf(_SC_OPEN_MAX), 1 << 20);
        for (int fd = 4; fd < highest; ++fd) ::close(fd);
    }
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execve(plan.arguments[0], plan.arguments, plan.environment);
    const int error_number = errno;
    if (::write(3, &error_number, sizeof error_number) < 0) ::_exit(126);
    ::_exit(127);
}

// Moves a descriptor out of the way of 0..3, which the child overwrites.
Result<UniqueFd> above_standard(UniqueFd fd) {
    if (!fd.valid()) return file_error("open", "descriptor", errno);
    if (fd.get() > 3) return fd;
    UniqueFd moved(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 4));
    if (!moved.valid()) return file_error("duplicate", "descriptor", errno);
    return moved;
}

Error start_error(const Command& command, int error_number) {
    return file_error("run program", command.arguments[0], error_number);
}

// A fork on its way to becoming a program.
struct Launch {
    pid_t pid = -1;
    UniqueFd error_read;

    Status begin(const Command& command, int output_fd, bool detached);
    // Waits until the program is executed.
    Status executed(const Command& command);
};

Status Launch::begin(const Command& command, int output_fd, bool detached) {
    if (command.arguments.empty() || command.arguments[0].empty() || command.arguments[0][0] != '/')
        return Error(sqlstate::invalid_parameter_value, "a program to run needs an absolute path");
    auto input = make_input(command.input);
    if (!input) return std::move(input).error();
    auto input_high = above_standard(std::move(*input));
    if (!input_high) return std::move(input_high).error();
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return start_error(command, errno);
    error_read.reset(ends[0]);
    UniqueFd error_write(ends[1]);
    auto error_high = above_standard(std::move(error_write));
    if (!error_high) return std::move(error_high).error();

    const auto arguments = pointers(command.arguments);
    const auto environment = pointers(command.environment);
    const ChildPlan plan{arguments.data(),  environment.data(),  command.working_directory.c_str(),
                         input_high->get(), output_fd,           error_high->get(),
                         ::getpid(),        command.own_session, command.die_with_parent,
                         detached};
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = ::fork();
    if (pid == 0) become_program(plan);
    const int fork_error = errno;
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (pid < 0) return start_error(command, fork_error);
    return {};
}

Status Launch::executed(const Command& command) {
    int error_number = 0;
    ssize_t got = 0;
    do {
        got = ::read(error_read.get(), &error_number, sizeof error_number);  // ends at exec, at once
    } while (got < 0 && errno == EINTR);
    if (got == static_cast<ssize_t>(sizeof error_number)) return start_error(command, error_number);
    return {};
}

}  // namespace

std::vector<std::string> clean_environment() {
    std::vector<std::string> environment{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C"};
    passwd entry{};
    passwd* found = nullptr;
    std::vector<char> buffer(16384);
    if (::getpwuid_r(::geteuid(), &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr) {
        environment.push_back(std::string("HOME=") + found->pw_dir);
    }
    return environment;
}

Result<ChildProcess> ChildProcess::start(const Command& command, TimePoint deadline, Millis kill_grace) {
    auto output = make_output_file();
    if (!output) return std::move(output).error();
    auto output_high = above_standard(std::move(*output));
    if (!output_high) return std::move(output_high).error();
    Launch launch;
    if (Status begun = launch.begin(command, output_high->get(), false); !begun) return begun.error();

    ChildProcess child;
    child.pid_ = launch.pid;
    child.output_ = std::move(*output_high);
    child.deadline_ = deadline;
    child.kill_grace_ = kill_grace;
    child.phase_ = Phase::Running;
    // Safe against reuse of the pid: it is our child and not reaped yet.
    child.pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, launch.pid, 0U)));
    if (!child.pidfd_.valid()) return start_error(command, errno);
    if (Status executed = launch.executed(command); !executed) return executed.error();
    return child;
}

Status start_detached(const Command& command, const std::string& log_file) {
    auto log = above_standard(
        UniqueFd(::open(log_file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR)));
    if (!log) return file_error("open", log_file, errno);
    Launch launch;
    if (Status begun = launch.begin(command, log->get(), true); !begun) return begun;
    Status executed = launch.executed(command);
    // What is reaped is only what has begun the real one.
    while (::waitpid(launch.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return executed;
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pidfd_(std::move(other.pidfd_)),
      output_(std::move(other.output_)),
      deadline_(other.deadline_),
      kill_grace_(other.kill_grace_),
      phase_(std::exchange(other.phase_, Phase::Ended)),
      timed_out_(other.timed_out_),
      exit_status_(other.exit_status_) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
    if (this != &other) {
        end_now();
        pid_ = std::exchange(other.pid_, -1);
        pidfd_ = std::move(other.pidfd_);
        output_ = std::move(other.output_);
        deadline_ = other.deadline_;
        kill_grace_ = other.kill_grace_;
        phase_ = std::exchange(other.phase_, Phase::Ended);
        timed_out_ = other.timed_out_;
        exit_status_ = other.exit_status_;
    }
    return *this;
}

ChildProcess::~ChildProcess() {
    end_now();
}

void ChildProcess::end_now() noexcept {
    if (phase_ == Phase::Ended || pid_ <= 0) return;
    ::kill(pid_, SIGKILL);  // not reaped yet, so the pid is still this child's
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    phase_ = Phase::Ended;
}

std::optional<TimePoint> ChildProcess::next_wakeup() const {
    switch (phase_) {
        case Phase::Running:
            return deadline_;
        case Phase::Terminating:
            return deadline_ + kill_grace_;
        case Phase::Killed:
        case Phase::Ended:
            break;
    }
    return std::nullopt;
}

std::optional<ProcessResult> ChildProcess::poll(TimePoint now) {
    if (phase_ != Phase::Ended) {
        siginfo_t info{};
        int answer = 0;
        do {
            answer = ::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED | WNOHANG);
        } while (answer != 0 && errno == EINTR);
        if (answer != 0) {
            // Where SIGCHLD is ignored the kernel reaps by itself and the status is lost: that is no success.
            phase_ = Phase::Ended;
            exit_status_ = 255;
        } else if (info.si_pid != 0) {
            phase_ = Phase::Ended;
            exit_status_ = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
        }
    }
    if (phase_ == Phase::Running && now >= deadline_) {
        timed_out_ = true;
        ::kill(pid_, SIGTERM);
        phase_ = Phase::Terminating;
    }
    if (phase_ == Phase::Terminating && now >= deadline_ + kill_grace_) {
        ::kill(pid_, SIGKILL);
        phase_ = Phase::Killed;
    }
    if (phase_ != Phase::Ended) return std::nullopt;
    return ProcessResult{exit_status_, timed_out_, output()};
}

std::string ChildProcess::output() const {
    const off_t end = output_.valid() ? ::lseek(output_.get(), 0, SEEK_CUR) : 0;
    std::string text(end > 0 ? static_cast<std::size_t>(end) : 0, '\0');
    std::size_t have = 0;
    while (have < text.size()) {
        const ssize_t got =
            ::pread(output_.get(), text.data() + have, text.size() - have, static_cast<off_t>(have));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        have += static_cast<std::size_t>(got);
    }
    text.resize(have);
    return text;
}

Result<ProcessResult> run(const Command& command, Millis time_limit) {
    auto child = ChildProcess::start(command, Clock::now() + time_limit);
    if (!child) return std::move(child).error();
    for (;;) {
        if (auto result = child->poll(Clock::now())) return *std::move(result);
        int wait_ms = -1;
        if (const auto wakeup = child->next_wakeup()) {
            const auto left = std::chrono::ceil<Millis>(*wakeup - Clock::now()).count();
            wait_ms = static_cast<int>(std::clamp<long long>(left, 0, INT_MAX));
        }
        pollfd event{child->event_fd(), POLLIN, 0};
        if (::poll(&event, 1, wait_ms) < 0 && errno != EINTR) return file_error("wait for", "program", errno);
    }
}

}  // namespace pgxc::replication
