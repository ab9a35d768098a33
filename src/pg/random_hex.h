#pragma once

#include <string>

#include "base/result.h"

namespace pgxc {

/// That many strong random bytes, in hexadecimal. XX000 where the server has none.
[[nodiscard]] Result<std::string> random_hex(std::size_t bytes);

}  // namespace pgxc
