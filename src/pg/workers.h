#pragma once

namespace pgxc {

/// Registers the monitor and the pooler's processes with the postmaster. Raises FATAL where
/// max_worker_processes leaves no room: without its monitor a coordinator would look well and fail over
/// nothing. Only while preloading.
void register_workers();

}  // namespace pgxc
