#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "net/loop.h"

/// How our background workers live in the server: one event loop instead of the server's latch, and yet good
/// citizens that answer barriers, reloads and every kind of shutdown (worker_host.cpp tells how).
namespace pgxc {

/// How the server ends.
enum class Ending {
    Smart,  // no new work; what holds sessions on this server gives them back, and SIGTERM comes when all are
            // gone
    Now,    // SIGTERM (fast shutdown, pg_terminate_backend): be gone within a few seconds
};

/// What a worker does when something happens. All are called from the loop; an exception ends the worker,
/// which is started again a second later.
struct WorkerEvents {
    std::function<void()> woken;     // the worker's own eventfd, given to WorkerHost::serve()
    std::function<void()> reloaded;  // after SIGHUP; the settings have been read
    std::function<void(const std::string& database)>
        leave_database;  // '' = all: close idle connections to it
    /// Called at most once for each Ending, Smart first. After Now: call WorkerHost::leave() when done; it
    /// happens by itself `ending_patience` later.
    std::function<void(Ending)> ending;
};

class WorkerHost {
  public:
    /// How long a worker may take to say goodbye after SIGTERM.
    static constexpr Millis ending_patience{3000};

    /// The first thing a worker's entry function does: own signal handlers, then connect to `database`
    /// (nullptr: only the shared catalogs).
    static void connect(const char* database);

    /// Makes the host; `worker` is the index for shared_state.h's leave requests, `wake_fd` its eventfd.
    WorkerHost(net::Loop& loop, int worker, int wake_fd);
    ~WorkerHost();
    WorkerHost(const WorkerHost&) = delete;
    WorkerHost& operator=(const WorkerHost&) = delete;

    [[nodiscard]] net::Loop& loop() const;

    /// Runs the loop until the server or the worker itself wants an end. The error says what could not be
    /// watched.
    [[nodiscard]] Status serve(WorkerEvents events);
    /// Ends serve().
    void leave();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// Runs a worker's C++ body: a returned Error or an exception is logged. Never returns: the process ends with
/// exit code 1, so that the postmaster starts it again (0 would mean never, anything else would restart the
/// whole server).
[[noreturn]] void run_worker(const char* name, Status (*body)(int argument), int argument) noexcept;

/// Raises the limit of open files to `wanted` or as far as the system allows; returns the limit in force.
[[nodiscard]] std::size_t raise_file_limit(std::size_t wanted);

}  // namespace pgxc
