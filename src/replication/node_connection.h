#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "catalog/node.h"
#include "replication/node_answer.h"
#include "replication/node_login.h"

/// The control connection to a node: libpq, driven by the loop, never blocking it.
namespace pgxc {

struct ConnectTarget {
    HostPort address;
    NodeLogin login;
    std::string application_name;
};

class NodeConnection {
  public:
    /// Opens a connection within the time. Unless told otherwise by the login's conninfo: tcp_user_timeout
    /// and keepalives so that a dead peer is noticed, gssencmode=disable so that no ticket is asked for.
    [[nodiscard]] static asio::awaitable<NodeResult<std::unique_ptr<NodeConnection>>> open(
        ConnectTarget target, Millis timeout);
    NodeConnection(const NodeConnection&) = delete;
    NodeConnection& operator=(const NodeConnection&) = delete;
    ~NodeConnection();

    /// Runs one statement (no more: ALTER SYSTEM wants to be alone). After a timeout or a lost connection the
    /// object is broken. One statement at a time.
    [[nodiscard]] asio::awaitable<NodeResult<Rows>> query(std::string sql, Millis timeout);

    /// Starts a statement whose end is awaited later by finish(): to see from elsewhere that it waits.
    [[nodiscard]] bool start(const std::string& sql);
    [[nodiscard]] asio::awaitable<NodeResult<Rows>> finish(Millis timeout);
    /// Has the started statement's answer begun to come (or the connection broken), so that finish() won't
    /// wait long?
    [[nodiscard]] bool answered();

    /// Waits until the server closes the connection or the time has come. True: the connection is broken.
    [[nodiscard]] asio::awaitable<bool> wait_broken(TimePoint until);
    /// Ends a wait_broken() early, as if its time had come.
    void interrupt();

    [[nodiscard]] bool broken() const;
    [[nodiscard]] int backend_pid() const;
    [[nodiscard]] int server_version() const;  // as PQserverVersion: 150020
    [[nodiscard]] bool is_superuser() const;   // as the server reported
    /// SQLSTATE of the last FATAL or WARNING that came unasked (57P01: it shuts down), else empty.
    [[nodiscard]] const std::string& last_unasked() const;

  private:
    class Impl;
    explicit NodeConnection(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace pgxc
