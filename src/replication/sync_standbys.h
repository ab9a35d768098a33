#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "catalog/node.h"

/// Names that tie a stream to one slave and one epoch (FAILOVER_PROTOCOL rules 8 and 9).
namespace pgxc {

/// The application_name, and the physical slot, of a slave in an epoch: "pgxc_d_3_e1".
[[nodiscard]] std::string standby_name(NodeKey slave, Epoch epoch);

/// The name that no stream ever carries: a server that lists only this acknowledges no synchronous commit.
[[nodiscard]] std::string nobody_name(std::string_view cluster_id);

/// The value of synchronous_standby_names for k of these; '' for none. Names are our own: no quoting needed.
[[nodiscard]] std::string synchronous_standby_names(int k, const std::vector<std::string>& names);

/// 'ANY 1 (pgxc_nobody_<cluster>)'.
[[nodiscard]] std::string nobody_standby_names(std::string_view cluster_id);

}  // namespace pgxc
