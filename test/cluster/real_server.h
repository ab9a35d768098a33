#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "catalog/node.h"

/// PostgreSQL servers for tests: on loopback, on free ports, in a directory of their own that goes with them.
namespace pgxc::test {

/// Where initdb, pg_ctl and pg_basebackup are; set once at the start.
void set_program_directory(std::filesystem::path bindir);
/// Servers never run as root: becomes the OS user "postgres" where it is root. False, with a reason on
/// standard error, where it can't.
[[nodiscard]] bool leave_root();

/// A temporary directory that is removed with everything in it.
class Workspace {
  public:
    Workspace();
    ~Workspace();
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

/// A port of loopback that is ours as long as this lives: its socket is bound and doesn't listen, so that a
/// server (which sets SO_REUSEADDR) can take the port, and neither another test nor an outgoing connection
/// gets it.
class ReservedPort {
  public:
    ReservedPort();
    [[nodiscard]] std::uint16_t number() const { return number_; }

  private:
    UniqueFd holder_;
    std::uint16_t number_ = 0;
};

class RealServer {
  public:
    /// Makes no server yet.
    RealServer(const Workspace& workspace, std::string name);
    /// Ends the server without asking it.
    ~RealServer();
    RealServer(const RealServer&) = delete;
    RealServer& operator=(const RealServer&) = delete;

    /// A new, started master; `settings` are lines for postgresql.conf.
    void initialize(const std::string& settings = {});
    /// A started slave, as "pg_basebackup -R" leaves it.
    void clone(const RealServer& master, const std::string& settings = {});

    /// `options` are for the postmaster's command line.
    void start(const std::string& options = {});
    /// pg_ctl stop or restart with a mode; waits for it.
    void stop(const std::string& mode);
    void restart(const std::string& mode);
    /// kill -9 of the postmaster; waits until it and all its children are gone.
    void kill9();
    /// Ends it without asking it, and removes its files: it can be made anew.
    void remove();
    /// SIGSTOP to all its processes, and back.
    void freeze();
    /// The postmaster alone: who is connected goes on, nobody else is let in.
    void freeze_postmaster();
    /// Of a slave: it answers, and neither streams nor replays.
    void freeze_startup();
    void thaw();
    /// Copies the data directory of a stopped server, and puts that copy in its place again.
    void keep_copy() const;
    void restore_copy() const;

    [[nodiscard]] HostPort address() const { return {"127.0.0.1", port}; }
    [[nodiscard]] bool running() const;
    /// The text of a file in its data directory; empty where there is none.
    [[nodiscard]] std::string file(const std::string& name) const;

  private:
    ReservedPort reserved_;

  public:
    std::uint16_t port;

  private:
    static const std::filesystem::path& initialized_directory();
    [[nodiscard]] pid_t postmaster() const;
    void forget_shared_memory() const;
    void write_configuration(const std::string& settings) const;

    std::filesystem::path data_;
    std::filesystem::path log_;
    bool frozen_ = false;
};

}  // namespace pgxc::test
