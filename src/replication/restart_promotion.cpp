#include "replication/restart_promotion.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <climits>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/log.h"
#include "base/unique_fd.h"
#include "replication/durable_file.h"
#include "replication/pg_ctl.h"
#include "replication/process_runner.h"
#include "replication/restart_edits.h"
#include "replication/restart_journal.h"
#include "replication/settings_file.h"

namespace pgxc::replication {
namespace {

// Bytes of pg_ctl's output and of the server's log that an Error shows.
constexpr std::size_t max_shown_bytes = 2000;

std::string tail_of(std::string_view text) {
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
    if (text.size() > max_shown_bytes) {
        text.remove_prefix(text.size() - max_shown_bytes);
        if (const auto newline = text.find('\n'); newline != std::string_view::npos)
            text.remove_prefix(newline + 1);
    }
    return std::string(text);
}

std::string read_from(const std::string& path, off_t offset) {
    std::string text;
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status {};
    if (!fd.valid() || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) return text;
    const off_t keep = static_cast<off_t>(2 * max_shown_bytes);
    offset = std::max(offset, status.st_size - keep);
    if (offset >= status.st_size) return text;
    text.resize(static_cast<std::size_t>(status.st_size - offset));
    const ssize_t got = ::pread(fd.get(), text.data(), text.size(), offset);
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
}

off_t size_of(const std::string& path) {
    struct stat status {};
    return ::stat(path.c_str(), &status) == 0 ? status.st_size : 0;
}

Millis pg_ctl_grace(Millis server_timeout) {
    return server_timeout + Millis{5000};
}

}  // namespace

struct RestartPromotion::State {
    State(ServerFiles server_files, RestartOptions restart_options, FileLock file_lock)
        : server(std::move(server_files)), options(std::move(restart_options)), lock(std::move(file_lock)) {}

    ServerFiles server;
    RestartOptions options;
    FileLock lock;
    RestartJournal journal;
    std::uint16_t port = 0;  // on which it must come up; 0: whichever
    std::vector<std::string> socket_directories;
    Phase phase = Phase::ReadyToStop;
    Error error;

    UniqueFd epoll;
    UniqueFd inotify;                   // changes in the data directory: postmaster.pid
    UniqueFd server_fd;                 // pidfd of the server that is being stopped
    std::optional<ChildProcess> child;  // pg_ctl
    TimePoint deadline;
    bool immediate = false;      // the stop was made an immediate one
    bool stopping_back = false;  // in RollingBack: the new server is being stopped
    off_t log_start = 0;         // where the log file ended before the start

    Status open_events();
    void watch(int fd) const;
    void begin_stop(TimePoint now);
    void begin_start(TimePoint now);
    void advance_stop(TimePoint now);
    void advance_start(TimePoint now);
    void stopped(TimePoint now);
    void roll_back(TimePoint now, Error why);
    void fail(Error why);
    void finish();
    void drain_inotify() const;
    [[nodiscard]] std::string log_tail() const;
};

Status RestartPromotion::State::open_events() {
    epoll.reset(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll.valid()) return file_error("create", "epoll", errno);
    inotify.reset(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    if (!inotify.valid()) return file_error("create", "inotify", errno);
    // Where the watch is refused (too many, a network file system) pg_ctl's own exit tells, 100 ms later at
    // most.
    if (::inotify_add_watch(inotify.get(), server.data_directory.c_str(),
                            IN_CLOSE_WRITE | IN_CREATE | IN_ONLYDIR) < 0) {
        log_debug("no inotify watch on " + server.data_directory);
    }
    watch(inotify.get());
    return {};
}

void RestartPromotion::State::watch(int fd) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    // A closed descriptor leaves the set by itself. Failing here only makes next_wakeup() the one that wakes.
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) log_debug("epoll_ctl failed");
}

void RestartPromotion::State::drain_inotify() const {
    std::array<char, 4096> buffer;
    while (::read(inotify.get(), buffer.data(), buffer.size()) > 0) {
    }
}

std::string RestartPromotion::State::log_tail() const {
    return tail_of(read_from(server.log_file, log_start));
}

void RestartPromotion::State::begin_stop(TimePoint now) {
    const auto postmaster = running_postmaster(server.data_directory);
    if (!postmaster) {
        stopped(now);
        return;
    }
    // The pidfd sees the end at once, where pg_ctl looks every 100 ms; and a zombie has ended for it.
    server_fd.reset(static_cast<int>(::syscall(SYS_pidfd_open, postmaster->pid, 0U)));
    if (!server_fd.valid()) {
        if (errno == ESRCH) {
            stopped(now);
        } else {
            fail(file_error("watch", "the server's process", errno));
        }
        return;
    }
    deadline = now + options.stop_timeout;
    auto started =
        ChildProcess::start(stop_command(server, immediate), now + pg_ctl_grace(options.stop_timeout));
    if (!started) {
        fail(std::move(started).error());
        return;
    }
    child.emplace(std::move(*started));
    watch(server_fd.get());
    watch(child->event_fd());
}

void RestartPromotion::State::advance_stop(TimePoint now) {
    pollfd event{server_fd.get(), POLLIN, 0};
    if (::poll(&event, 1, 0) == 1) {
        server_fd.reset();
        child.reset();
        stopped(now);
        return;
    }
    if (child) {
        if (const auto result = child->poll(now)) {
            child.reset();
            if (!result->succeeded()) {
                server_fd.reset();
                fail(Error(sqlstate::object_not_in_prerequisite_state,
                           "pg_ctl could not stop the server in \"" + server.data_directory + "\"", {},
                           tail_of(result->output)));
                return;
            }
        }
    }
    if (now < deadline) return;
    if (immediate) {
        server_fd.reset();
        child.reset();
        fail(Error(sqlstate::object_not_in_prerequisite_state,
                   "the server in \"" + server.data_directory + "\" does not stop, not even at once",
                   "Look at its processes; it will be down when they have ended."));
        return;
    }
    immediate = true;
    child.reset();
    begin_stop(now);
}

void RestartPromotion::State::stopped(TimePoint now) {
    if (phase == Phase::RollingBack) {
        stopping_back = false;
        begin_start(now);
    } else {
        phase = Phase::ReadyToStart;
    }
}

void RestartPromotion::State::begin_start(TimePoint now) {
    for (const auto& directory : socket_directories) clear_dead_socket_lock(directory, port);
    log_start = size_of(server.log_file);
    deadline = now + pg_ctl_grace(options.start_timeout);
    auto started =
        ChildProcess::start(start_command(server, server.log_file, options.start_timeout), deadline);
    if (!started) {
        if (phase == Phase::RollingBack) {
            error.detail +=
                "\nIt could not be started again with the old files either: " + started.error().message;
            phase = Phase::Failed;
        } else {
            roll_back(now, std::move(started).error());
        }
        return;
    }
    child.emplace(std::move(*started));
    watch(child->event_fd());
}

void RestartPromotion::State::advance_start(TimePoint now) {
    drain_inotify();
    const bool rolling_back = phase == Phase::RollingBack;
    // Finished means what the server says of itself; pg_ctl only tells when it has failed.
    const auto postmaster = running_postmaster(server.data_directory);
    const bool up = postmaster && postmaster->is_up();
    std::optional<ProcessResult> result;
    if (child) result = child->poll(now);
    if (up) {
        // pg_ctl may still be asleep between two looks. Its work is done; the server has a session of its
        // own.
        child.reset();
        if (rolling_back) {
            error.detail += "\nThe files were restored and the server runs again on port " +
                            std::to_string(postmaster->port) + ".";
            phase = Phase::Failed;
        } else if (port != 0 && postmaster->port != port) {
            roll_back(now,
                      Error(sqlstate::config_file_error,
                            "the server in \"" + server.data_directory + "\" came up on port " +
                                std::to_string(postmaster->port) + " instead of " + std::to_string(port)));
        } else {
            finish();
        }
        return;
    }
    if (child && !result) return;
    child.reset();
    std::string detail = result ? tail_of(result->output) : std::string{};
    if (const auto log_text = log_tail(); !log_text.empty()) detail += "\nThe server's log:\n" + log_text;
    if (rolling_back) {
        error.detail +=
            "\nThe files were restored, but the server does not start with them either: " + detail;
        error.hint =
            "Start it by hand: " + server.bin_directory + "/pg_ctl start -D " + server.data_directory;
        phase = Phase::Failed;
        return;
    }
    roll_back(now, Error(sqlstate::object_not_in_prerequisite_state,
                         "the server in \"" + server.data_directory + "\" did not start" +
                             (port != 0 ? " on port " + std::to_string(port) : std::string{}),
                         "Look at its log, \"" + server.log_file + "\".", std::move(detail)));
}

void RestartPromotion::State::roll_back(TimePoint now, Error why) {
    error = std::move(why);
    if (is_promoted_already(server.data_directory, journal)) {
        error.detail += "\nIt has ended recovery already and is a master: its files were left as they are.";
        phase = Phase::Failed;
        if (auto removed = remove_journal(server.data_directory); !removed) {
            error.detail += "\n" + removed.error().message;
        }
        return;
    }
    // The claim isn't asked again: a slave that comes back as it was decides nothing, and nobody else can
    // work here, because the lock is ours.
    if (auto restored = restore_files(server.data_directory, journal); !restored) {
        error.detail += "\nThe files could not be restored: " + restored.error().message;
        phase = Phase::Failed;
        return;
    }
    phase = Phase::RollingBack;
    stopping_back = running_postmaster(server.data_directory).has_value();
    immediate = false;
    if (stopping_back) {
        begin_stop(now);
    } else {
        begin_start(now);
    }
}

// Ends without the server having been stopped (or with one that can't be): only the files go back.
void RestartPromotion::State::fail(Error why) {
    if (phase == Phase::RollingBack) {
        error.detail += "\nThe files were restored, but: " + why.message;
        phase = Phase::Failed;
        return;
    }
    error = std::move(why);
    if (auto restored = restore_files(server.data_directory, journal); !restored) {
        error.detail += "\nThe files could not be restored: " + restored.error().message;
    } else {
        error.detail += (error.detail.empty() ? "" : "\n") + std::string("The files were restored.");
    }
    phase = Phase::Failed;
}

void RestartPromotion::State::finish() {
    phase = Phase::Done;
    // The restart has succeeded whether or not this works; a journal that stays is told by
    // unfinished_restart().
    if (auto removed = remove_journal(server.data_directory); !removed) {
        log_warning(removed.error().message);
    }
}

RestartPromotion::RestartPromotion(std::unique_ptr<State> state) : state_(std::move(state)) {}
RestartPromotion::RestartPromotion(RestartPromotion&&) noexcept = default;
RestartPromotion& RestartPromotion::operator=(RestartPromotion&&) noexcept = default;
RestartPromotion::~RestartPromotion() = default;

RestartPromotion::Phase RestartPromotion::phase() const {
    return state_->phase;
}
const Error& RestartPromotion::error() const {
    return state_->error;
}
int RestartPromotion::event_fd() const {
    return state_->epoll.get();
}

Result<RestartPromotion> RestartPromotion::prepare(ServerFiles server, const PromotionPlan& plan,
                                                   RestartOptions options) {
    const auto steps = plan.file_steps();
    if (steps.empty()) {
        return Error(sqlstate::internal_error, "a promotion without a restart has nothing to do with files");
    }
    auto lock = FileLock::try_acquire(server.data_directory);
    if (!lock) return std::move(lock).error();

    auto left_over = read_journal(server.data_directory);
    if (!left_over) return std::move(left_over).error();
    if (*left_over) {
        if (auto settled = settle_unfinished(server.data_directory, **left_over); !settled) {
            return std::move(settled).error();
        }
        if (!server.postmaster) {
            server.arguments = (*left_over)->arguments;
            server.environment = (*left_over)->environment;
            server.log_file = (*left_over)->log_file;
        }
    }

    const std::uint16_t port = steps.back().port;
    if (auto checked = check_server(server, port); !checked) return std::move(checked).error();
    if (server.log_file.empty() || !is_safe_in_double_quotes(server.log_file)) {
        // Its standard error was a terminal, a pipe (logging_collector) or a socket: there is no such thing
        // to give to a new server. What a server says before its collector runs, or without one, goes here.
        server.log_file = server.data_directory + "/pgxc_ha_server.log";
        if (!is_safe_in_double_quotes(server.log_file)) {
            return Error(
                sqlstate::feature_not_supported,
                "pg_ctl can't write a log into a directory of that name: \"" + server.data_directory + "\"");
        }
    }

    auto state = std::make_unique<State>(std::move(server), std::move(options), std::move(*lock));
    const ServerFiles& files = state->server;
    RestartJournal& journal = state->journal;
    state->port = port;
    state->socket_directories = socket_directories_of(files);
    if (auto opened = state->open_events(); !opened) return std::move(opened).error();

    journal.intent = state->options.intent;
    journal.arguments = files.arguments;
    journal.environment = files.environment;
    journal.log_file = files.log_file;
    if (files.postmaster) {
        journal.old_pid = files.postmaster->pid;
        journal.old_start_time = files.postmaster->start_time;
    }
    for (const auto& step : steps) {
        if (edits(step)) {
            if (auto added = add_edit(files, step, journal.files); !added) return std::move(added).error();
            if (step.file == SettingsFileRole::RecoveryConf && same_setting(step.name, "standby_mode")) {
                journal.ends_by_itself = true;
            }
        } else if (step.kind == PromotionStepKind::ReplaceStandbySignal) {
            journal.replaces_standby_signal = true;
            journal.ends_by_itself = true;
        }
    }

    if (auto written = write_journal(files.data_directory, journal); !written) {
        return std::move(written).error();
    }
    Status edited;
    for (const auto& file : journal.files) {
        if (edited) edited = replace_file_durably(file.path, file.new_text, {file.old_text});
    }
    if (edited) edited = verify_edits(files, steps);
    if (edited && journal.replaces_standby_signal) {
        edited = create_signal_file(recovery_signal_path(files.data_directory));
        if (edited) {
            auto removed = remove_file_durably(standby_signal_path(files.data_directory));
            if (!removed) edited = std::move(removed).error();
        }
    }
    if (!edited) {
        Error error = std::move(edited).error();
        if (auto restored = restore_files(files.data_directory, journal); !restored) {
            error.detail += "\nThe files could not be restored: " + restored.error().message;
        }
        return error;
    }
    state->phase = files.postmaster ? Phase::ReadyToStop : Phase::ReadyToStart;
    return RestartPromotion(std::move(state));
}

std::optional<TimePoint> RestartPromotion::next_wakeup() const {
    const bool stopping = state_->phase == Phase::Stopping || state_->stopping_back;
    std::optional<TimePoint> wakeup;
    if (stopping) wakeup = state_->deadline;
    if (state_->child) {
        if (const auto child_wakeup = state_->child->next_wakeup()) {
            wakeup = wakeup ? std::min(*wakeup, *child_wakeup) : *child_wakeup;
        }
    }
    return wakeup;
}

void RestartPromotion::stop(TimePoint now) {
    assert(state_->phase == Phase::ReadyToStop);
    state_->phase = Phase::Stopping;
    state_->begin_stop(now);
}

void RestartPromotion::start(TimePoint now) {
    assert(state_->phase == Phase::ReadyToStart);
    state_->phase = Phase::Starting;
    state_->begin_start(now);
}

void RestartPromotion::abandon(TimePoint now) {
    assert(state_->phase == Phase::ReadyToStop || state_->phase == Phase::ReadyToStart);
    Error why(sqlstate::lock_not_available,
              "the restart of the server in \"" + state_->server.data_directory + "\" was abandoned",
              "Another decider has taken over.");
    if (state_->phase == Phase::ReadyToStop) {
        state_->fail(std::move(why));
    } else {
        state_->roll_back(now, std::move(why));
    }
}

void RestartPromotion::advance(TimePoint now) {
    switch (state_->phase) {
        case Phase::Stopping:
            state_->advance_stop(now);
            break;
        case Phase::Starting:
            state_->advance_start(now);
            break;
        case Phase::RollingBack:
            if (state_->stopping_back) {
                state_->advance_stop(now);
            } else {
                state_->advance_start(now);
            }
            break;
        case Phase::ReadyToStop:
        case Phase::ReadyToStart:
        case Phase::Done:
        case Phase::Failed:
            break;
    }
}

Status run_restart_promotion(ServerFiles server, const PromotionPlan& plan, RestartOptions options,
                             const std::function<Status()>& before_pg_ctl) {
    using Phase = RestartPromotion::Phase;
    auto restart = RestartPromotion::prepare(std::move(server), plan, std::move(options));
    if (!restart) return std::move(restart).error();
    for (;;) {
        const TimePoint now = Clock::now();
        switch (restart->phase()) {
            case Phase::ReadyToStop:
            case Phase::ReadyToStart:
                if (auto claim = before_pg_ctl(); !claim) {
                    log_warning(claim.error().message);
                    restart->abandon(now);
                } else if (restart->phase() == Phase::ReadyToStop) {
                    restart->stop(now);
                } else {
                    restart->start(now);
                }
                break;
            case Phase::Stopping:
            case Phase::Starting:
            case Phase::RollingBack: {
                int wait_ms = -1;
                if (const auto wakeup = restart->next_wakeup()) {
                    const auto left = std::chrono::ceil<Millis>(*wakeup - now).count();
                    wait_ms = static_cast<int>(std::clamp<long long>(left, 0, INT_MAX));
                }
                pollfd event{restart->event_fd(), POLLIN, 0};
                if (::poll(&event, 1, wait_ms) < 0 && errno != EINTR)
                    return file_error("wait for", "events", errno);
                restart->advance(Clock::now());
                break;
            }
            case Phase::Done:
                return {};
            case Phase::Failed:
                return restart->error();
        }
    }
}

}  // namespace pgxc::replication
