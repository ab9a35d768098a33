#pragma once

#include "replication/arbiter.h"

namespace pgxc {

/// The arbiter `local`: the table pgxc.node_record of this, the only, coordinator. A change is durable when
/// it returns (synchronous_commit = local in the monitor's session: flushed here, never waiting for a slave
/// of this coordinator).
class ArbiterLocal : public Arbiter {
  public:
    [[nodiscard]] asio::awaitable<Result<Record>> read(NodeKey group) override;
    [[nodiscard]] asio::awaitable<Result<bool>> compare_and_set(NodeKey group, Record next) override;
};

}  // namespace pgxc
