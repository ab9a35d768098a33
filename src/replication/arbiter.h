#pragma once

#include <asio/awaitable.hpp>

#include "replication/record.h"

namespace pgxc {

/// Keeps one record per node group (DESIGN 6.6). Two implementations of one narrow interface: a local table,
/// etcd.
class Arbiter {
  public:
    virtual ~Arbiter() = default;
    /// The newest record. An Error where the arbiter can't be asked or the record is missing: a missing
    /// record is a refusal, never a fresh start.
    [[nodiscard]] virtual asio::awaitable<Result<Record>> read(NodeKey group) = 0;
    /// Replaces the record whose generation is next.generation - 1. False: somebody else was first. When it
    /// returns true the change is durable.
    [[nodiscard]] virtual asio::awaitable<Result<bool>> compare_and_set(NodeKey group, Record next) = 0;
};

}  // namespace pgxc
