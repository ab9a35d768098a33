#include "real_server.h"

#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "replication/process_runner.h"

namespace pgxc::test {
namespace {

namespace fs = std::filesystem;

constexpr Millis program_deadline{60'000};
constexpr Millis end_deadline{20'000};

fs::path& program_directory() {
    static fs::path directory;
    return directory;
}

std::string read_file(const fs::path& path) {
    std::ifstream stream(path);
    return {std::istreambuf_iterator<char>(stream), {}};
}

void run_program(const std::string& name, std::vector<std::string> arguments) {
    replication::Command command;
    command.arguments = std::move(arguments);
    command.arguments.insert(command.arguments.begin(), program_directory() / name);
    command.environment = replication::clean_environment();
    const auto result = replication::run(command, program_deadline);
    if (!result.ok()) throw std::runtime_error(name + ": " + result.error().message);
    if (!result->succeeded()) throw std::runtime_error(name + " failed: " + result->output);
}

struct Process {
    pid_t parent = 0;
    char state = 0;
};

Process process(const std::string& pid) {
    // pid (program) state parent ...; the program's name may hold anything.
    // It may be gone between the opening and the reading, which this takes for an empty file.
    std::ifstream file("/proc/" + pid + "/stat");
    std::string stat;
    std::getline(file, stat, '\0');
    Process found;
    const auto end = stat.rfind(')');
    if (end == std::string::npos) return found;
    std::istringstream fields(stat.substr(end + 1));
    fields >> found.state >> found.parent;
    return found;
}

bool alive(pid_t pid) {
    const Process found = process(std::to_string(pid));
    return found.state != 0 && found.state != 'Z';
}

std::vector<pid_t> children(pid_t parent) {
    std::vector<pid_t> found;
    for (const auto& entry : fs::directory_iterator("/proc")) {
        const std::string name = entry.path().filename();
        if (name.find_first_not_of("0123456789") != std::string::npos) continue;
        if (process(name).parent == parent) found.push_back(static_cast<pid_t>(std::stol(name)));
    }
    return found;
}

/// Waits until the kernel knows those processes no more: a new server takes a zombie for one that lives.
void wait_gone(const std::vector<pid_t>& pids) {
    const TimePoint deadline = Clock::now() + end_deadline;
    for (const pid_t pid : pids) {
        // Whoever is not ours to reap gives no event.
        while (::waitpid(pid, nullptr, WNOHANG) != pid && ::kill(pid, 0) == 0) {
            if (Clock::now() >= deadline)
                throw std::runtime_error("process " + std::to_string(pid) + " does not end");
            std::this_thread::sleep_for(Millis(1));
        }
    }
}

}  // namespace

void set_program_directory(fs::path bindir) {
    program_directory() = std::move(bindir);
}

bool leave_root() {
    if (::geteuid() != 0) return true;
    const passwd* user = ::getpwnam("postgres");
    if (user == nullptr) {
        std::fputs("servers don't run as root, and there is no OS user \"postgres\"\n", stderr);
        return false;
    }
    const bool left = ::initgroups(user->pw_name, user->pw_gid) == 0 && ::setgid(user->pw_gid) == 0 &&
                      ::setuid(user->pw_uid) == 0;
    // A process that changed its user can't be looked into, not even by its own leak checker.
    (void)::prctl(PR_SET_DUMPABLE, 1);
    if (!left) std::perror("can't become the OS user \"postgres\"");
    return left;
}

Workspace::Workspace() {
    // Orphans become ours to reap: not every machine's first process does that soon, if at all.
    (void)::prctl(PR_SET_CHILD_SUBREAPER, 1);
    std::string name = fs::temp_directory_path() / "pgxc_monitor_XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("can't make " + name);
    path_ = name;
}

Workspace::~Workspace() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
}

ReservedPort::ReservedPort() : holder_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int on = 1;
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* raw = reinterpret_cast<sockaddr*>(&address);
    if (::setsockopt(holder_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        ::bind(holder_.get(), raw, length) != 0 || ::getsockname(holder_.get(), raw, &length) != 0)
        throw std::runtime_error("no free port");
    number_ = ntohs(address.sin_port);
}

RealServer::RealServer(const Workspace& workspace, std::string name)
    : port(reserved_.number()), data_(workspace.path() / name), log_(workspace.path() / (name + ".log")) {}

RealServer::~RealServer() {
    try {
        remove();
    } catch (const std::exception& problem) {
        std::fprintf(stderr, "%s\n", problem.what());
    }
}

void RealServer::write_configuration(const std::string& settings) const {
    std::ofstream(data_ / "postgresql.conf") << "port = " << port << "\n"
                                             << "listen_addresses = '127.0.0.1'\n"
                                                "unix_socket_directories = ''\n"
                                                "fsync = off\n"
                                                "dynamic_shared_memory_type = mmap\n"
                                                "wal_log_hints = on\n"
                                                "autovacuum = off\n"
                                                "shared_buffers = 16MB\n"
                                                "max_connections = 40\n"
                                             << settings;
}

/// What initdb makes, made once in this process: all masters of a process have one system identifier.
const fs::path& RealServer::initialized_directory() {
    static const Workspace workspace;
    static const fs::path made = [] {
        fs::path directory = workspace.path() / "initdb";
        run_program("initdb",
                    {"-D", directory, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"});
        return directory;
    }();
    return made;
}

void RealServer::initialize(const std::string& settings) {
    fs::copy(initialized_directory(), data_, fs::copy_options::recursive);
    fs::permissions(data_, fs::perms::owner_all);
    write_configuration(settings);
    start();
}

void RealServer::clone(const RealServer& master, const std::string& settings) {
    run_program("pg_basebackup", {"-D", data_, "-R", "-N", "-c", "fast", "-h", "127.0.0.1", "-p",
                                  std::to_string(master.port), "-U", "postgres"});
    write_configuration(settings);
    start();
}

void RealServer::start(const std::string& options) {
    std::vector<std::string> arguments{"start", "-D", data_, "-l", log_, "-w"};
    if (!options.empty()) arguments.insert(arguments.end(), {"-o", options});
    run_program("pg_ctl", std::move(arguments));
}

void RealServer::stop(const std::string& mode) {
    run_program("pg_ctl", {"stop", "-D", data_, "-m", mode, "-w"});
}

void RealServer::restart(const std::string& mode) {
    run_program("pg_ctl", {"restart", "-D", data_, "-m", mode, "-l", log_, "-w"});
}

pid_t RealServer::postmaster() const {
    const std::string text = file("postmaster.pid");
    return text.empty() ? 0 : static_cast<pid_t>(std::stol(text));
}

bool RealServer::running() const {
    const pid_t pid = postmaster();
    return pid != 0 && alive(pid);
}

void RealServer::kill9() {
    const pid_t pid = postmaster();
    ::kill(pid, SIGSTOP);  // no more children
    std::vector<pid_t> all = children(pid);
    all.push_back(pid);
    ::kill(pid, SIGKILL);
    // A logger or archiver would take longer, but there is none here: all others notice at once.
    wait_gone(all);
}

void RealServer::remove() {
    if (frozen_) thaw();
    if (running()) kill9();
    forget_shared_memory();
    fs::remove_all(data_);
}

void RealServer::forget_shared_memory() const {
    // Line 7 of postmaster.pid: key and id of the segment that a killed server leaves. The system has few.
    std::istringstream lines(file("postmaster.pid"));
    std::string line;
    for (int number = 1; number <= 7; ++number) std::getline(lines, line);
    std::istringstream numbers(line);
    unsigned long key = 0;
    int id = -1;
    shmid_ds segment{};
    if (numbers >> key >> id && ::shmctl(id, IPC_STAT, &segment) == 0 && segment.shm_nattch == 0)
        ::shmctl(id, IPC_RMID, nullptr);
}

void RealServer::freeze() {
    const pid_t pid = postmaster();
    // The postmaster first, so that no child is born meanwhile.
    ::kill(pid, SIGSTOP);
    for (const pid_t child : children(pid)) ::kill(child, SIGSTOP);
    frozen_ = true;
}

void RealServer::freeze_postmaster() {
    ::kill(postmaster(), SIGSTOP);
    frozen_ = true;
}

void RealServer::freeze_startup() {
    for (const pid_t child : children(postmaster())) {
        const std::string title = read_file("/proc/" + std::to_string(child) + "/cmdline");
        if (title.find("startup") == std::string::npos) continue;
        ::kill(child, SIGSTOP);
        frozen_ = true;
    }
    if (!frozen_) throw std::logic_error("there is no startup process");
}

void RealServer::keep_copy() const {
    fs::copy(data_, data_.string() + ".copy", fs::copy_options::recursive);
}

void RealServer::restore_copy() const {
    fs::remove_all(data_);
    fs::copy(data_.string() + ".copy", data_, fs::copy_options::recursive);
    fs::permissions(data_, fs::perms::owner_all);
}

void RealServer::thaw() {
    const pid_t pid = postmaster();
    for (const pid_t child : children(pid)) ::kill(child, SIGCONT);
    ::kill(pid, SIGCONT);
    frozen_ = false;
}

std::string RealServer::file(const std::string& name) const {
    return read_file(data_ / name);
}

}  // namespace pgxc::test
