#pragma once

#include <memory>

#include "replication/monitor_environment.h"

namespace asio {
class io_context;
}

namespace pgxc {

/// Watches all nodes of the catalog, keeps the cluster view, and runs one NodeGroup for each datanode master.
/// Lives on one loop; every call comes from it.
class Monitor {
  public:
    Monitor(asio::io_context& context, MonitorEnvironment& environment, std::string claim_token);
    ~Monitor();
    Monitor(const Monitor&) = delete;
    Monitor& operator=(const Monitor&) = delete;

    void start();
    /// The catalog has changed (or the extension has come or gone): read it again.
    void catalog_changed();
    /// The settings have changed.
    void reload();
    /// Pooled traffic met trouble at a node: ask it now.
    void traffic_failed(NodeKey node);
    void submit(MonitorTask task);

  private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace pgxc
