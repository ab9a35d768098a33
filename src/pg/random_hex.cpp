#include "pg/random_hex.h"

#include <vector>

#include "base/text.h"
#include "pg/boundary.h"

namespace pgxc {

Result<std::string> random_hex(std::size_t bytes) {
    std::vector<unsigned char> random(bytes);
    if (!pg_strong_random(random.data(), random.size()))
        return Error{sqlstate::internal_error, "the server has no random numbers"};
    return to_hex(random);
}

}  // namespace pgxc
