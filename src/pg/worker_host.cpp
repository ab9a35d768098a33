#include "pg/worker_host.h"

#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>

#include "base/log.h"
#include "base/unique_fd.h"
#include "pg/boundary.h"
#include "pg/shared_state.h"

extern "C" {
#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "postmaster/postmaster.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "storage/procsignal.h"
#include "storage/sinval.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/pidfile.h"
}

// A worker waits in epoll, where the server's latch doesn't reach it. So its signal handlers write an eventfd
// that the loop watches, and the loop then does what the server's own wait loops do: CHECK_FOR_INTERRUPTS
// (which absorbs barriers: DROP DATABASE waits for every process), catch-up interrupts, configuration reload,
// the end. A dead postmaster shows as the end of its watch pipe. A smart shutdown sends no signal until the
// last session of this server is gone, and pooled sessions of idle clients would keep it from ever being so;
// but the postmaster writes "stopping" into postmaster.pid, which inotify tells.

namespace pgxc {
namespace {

int signal_eventfd = -1;
volatile std::sig_atomic_t terminate_requested = 0;

void write_eventfd() {
    const std::uint64_t one = 1;
    (void)!::write(signal_eventfd, &one, sizeof one);
}

extern "C" void pgxc_on_sigterm(int /*signal*/) {
    const int saved = errno;
    terminate_requested = 1;
    // In a transaction the server may be waiting (for a lock, for I/O): its own way out of that is FATAL.
    // Outside, the loop ends in good order.
    if (IsTransactionState()) {
        InterruptPending = 1;
        ProcDiePending = 1;
    }
    SetLatch(MyLatch);
    write_eventfd();
    errno = saved;
}

extern "C" void pgxc_on_sighup(int /*signal*/) {
    const int saved = errno;
    ConfigReloadPending = 1;
    SetLatch(MyLatch);
    write_eventfd();
    errno = saved;
}

extern "C" void pgxc_on_sigusr1(int signal) {
    const int saved = errno;
    procsignal_sigusr1_handler(signal);
    write_eventfd();
    errno = saved;
}

void drain(int fd) {
    std::uint64_t count = 0;
    (void)!::read(fd, &count, sizeof count);
}

/// Does postmaster.pid (in the current directory, which is the data directory) say that the server is
/// stopping?
bool server_is_stopping() {
    std::ifstream file("postmaster.pid");
    std::string line;
    for (int number = 1; std::getline(file, line); ++number)
        if (number == LOCK_FILE_LINE_PM_STATUS) return line.starts_with(PM_STATUS_STOPPING);
    return false;
}

}  // namespace

void WorkerHost::connect(const char* database) {
    signal_eventfd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (signal_eventfd < 0) ereport(FATAL, (errmsg("pgxc_ha: could not create an eventfd: %m")));
    pqsignal(SIGTERM, pgxc_on_sigterm);
    pqsignal(SIGHUP, pgxc_on_sighup);
    pqsignal(SIGUSR1, pgxc_on_sigusr1);
    pqsignal(SIGINT, SIG_IGN);
    BackgroundWorkerUnblockSignals();
    BackgroundWorkerInitializeConnection(database, nullptr, 0);
    // Whatever holds a lock on a catalog must not stop failover for longer than this.
    SetConfigOption("lock_timeout", "5s", PGC_SUSET, PGC_S_OVERRIDE);
}

struct WorkerHost::Impl {
    Impl(net::Loop& the_loop, int worker_index, int fd) : loop(the_loop), worker(worker_index), wake_fd(fd) {
        // Reloads and interrupts allocate here; emptied after each.
        scratch = AllocSetContextCreate(TopMemoryContext, "pgxc_ha worker", ALLOCSET_DEFAULT_SIZES);
    }

    void on_signal();
    void on_wake();
    void end(Ending ending);
    Status watch_postmaster_status();
    void look_at_postmaster_status();

    net::Loop& loop;
    int worker;
    int wake_fd;
    MemoryContext scratch;
    WorkerEvents events;
    bool smart_told = false;
    bool now_told = false;
    UniqueFd inotify;
    net::Handle signal_watch, wake_watch, postmaster_watch, status_watch, status_timer, patience;
};

WorkerHost::WorkerHost(net::Loop& loop, int worker, int wake_fd)
    : impl_(std::make_unique<Impl>(loop, worker, wake_fd)) {}

WorkerHost::~WorkerHost() = default;

net::Loop& WorkerHost::loop() const {
    return impl_->loop;
}

void WorkerHost::leave() {
    impl_->loop.stop();
}

void WorkerHost::Impl::on_signal() {
    drain(signal_eventfd);
    MemoryContext const context = scratch;
    bool reloaded = false;
    const Status served = pg_call([&reloaded, context] {
        MemoryContext const before = MemoryContextSwitchTo(context);
        CHECK_FOR_INTERRUPTS();
        if (catchupInterruptPending) ProcessCatchupInterrupt();
        if (ConfigReloadPending) {
            ConfigReloadPending = 0;
            ProcessConfigFile(PGC_SIGHUP);
            reloaded = true;
        }
        MemoryContextSwitchTo(before);
        MemoryContextReset(context);
    });
    if (!served) log_warning("while a worker served the server's interrupts: " + served.error().message);
    if (reloaded && events.reloaded) events.reloaded();
    if (terminate_requested != 0) end(Ending::Now);
}

void WorkerHost::Impl::on_wake() {
    drain(wake_fd);
    const LeaveRequests requests = take_leave_requests(worker);
    if (!requests.databases.empty()) {
        if (events.leave_database)
            for (const std::string& database : requests.databases) events.leave_database(database);
        confirm_left(worker, requests.number);
    }
    if (events.woken) events.woken();
}

void WorkerHost::Impl::end(Ending ending) {
    bool& told = ending == Ending::Smart ? smart_told : now_told;
    if (told || now_told) return;
    told = true;
    if (ending == Ending::Now) patience = loop.call_after(ending_patience, [this] { loop.stop(); });
    if (events.ending)
        events.ending(ending);
    else if (ending == Ending::Now)
        loop.stop();
}

void WorkerHost::Impl::look_at_postmaster_status() {
    if (server_is_stopping()) end(Ending::Smart);
}

Status WorkerHost::Impl::watch_postmaster_status() {
    inotify.reset(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    if (inotify.valid() && ::inotify_add_watch(inotify.get(), "postmaster.pid", IN_MODIFY) >= 0) {
        auto watch = loop.watch_readable(inotify.get(), [this] {
            alignas(inotify_event) std::array<char, 4096> events_read;
            while (::read(inotify.get(), events_read.data(), events_read.size()) > 0) {
            }
            look_at_postmaster_status();
        });
        if (!watch) return watch.error();
        status_watch = std::move(watch).value();
        return {};
    }
    // inotify instances are limited per user. Looking once a second is the next best.
    log_warning(std::string("inotify is not available (") + strerror(errno) +
                "): a smart shutdown is noticed up to a second late");
    struct Again {
        Impl* impl;
        void operator()() const {
            impl->look_at_postmaster_status();
            if (!impl->smart_told) impl->status_timer = impl->loop.call_after(Millis{1000}, *this);
        }
    };
    status_timer = loop.call_after(Millis{1000}, Again{this});
    return {};
}

Status WorkerHost::serve(WorkerEvents events) {
    Impl& host = *impl_;
    host.events = std::move(events);
    attach_to_leave_requests(host.worker);

    auto signals = host.loop.watch_readable(signal_eventfd, [&host] { host.on_signal(); });
    if (!signals) return signals.error();
    host.signal_watch = std::move(signals).value();
    auto wakes = host.loop.watch_readable(host.wake_fd, [&host] { host.on_wake(); });
    if (!wakes) return wakes.error();
    host.wake_watch = std::move(wakes).value();
    auto postmaster = host.loop.watch_readable(postmaster_alive_fds[POSTMASTER_FD_WATCH], [] {
        // Without a postmaster nobody may keep its port, its shared memory or its clients.
        if (!PostmasterIsAlive()) proc_exit(1);
    });
    if (!postmaster) return postmaster.error();
    host.postmaster_watch = std::move(postmaster).value();
    if (Status watched = host.watch_postmaster_status(); !watched) return watched;

    // What came before the watches were set.
    host.loop.post([&host] {
        host.on_signal();
        host.on_wake();
        host.look_at_postmaster_status();
    });
    host.loop.run();
    return {};
}

void run_worker(const char* name, Status (*body)(int argument), int argument) noexcept {
    {
        Status done;
        try {
            done = body(argument);
        } catch (...) {
            done = detail::exception_as_error();
        }
        if (!done) {
            Error error = std::move(done).error();
            error.message = std::string(name) + ": " + error.message;
            report(LOG, error);
        }
    }
    proc_exit(1);
}

std::size_t raise_file_limit(std::size_t wanted) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = limit.rlim_max == RLIM_INFINITY ? wanted : std::min<rlim_t>(wanted, limit.rlim_max);
        if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) (void)::getrlimit(RLIMIT_NOFILE, &limit);
    }
    return limit.rlim_cur;
}

}  // namespace pgxc
