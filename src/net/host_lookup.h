#pragma once

#include <asio/awaitable.hpp>
#include <string>

#include "base/clock.h"
#include "base/result.h"

namespace pgxc::net {

/// The numeric address of a host (08001 if it has none), without blocking the loop: names are looked up in a
/// thread of its own that takes none of the process's signals. IPv4 is preferred, as a server on "localhost"
/// rather listens there. Whoever asks for a name that is being looked up waits for the same thread: where
/// name servers are silent it is one for each name.
[[nodiscard]] asio::awaitable<Result<std::string>> resolve_host(std::string host, TimePoint deadline);

}  // namespace pgxc::net
