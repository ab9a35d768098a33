#include "pg/random_hex.h"

#include <vector>

#include "pg/boundary.h"

namespace pgxc {

Result<std::string> random_hex(std::size_t bytes) {
    std::vector<unsigned char> random(bytes);
    if (!pg_strong_random(random.data(), random.size()))
        return Error{sqlstate::internal_error, "the server has no random numbers"};
    std::string text;
    for (const unsigned char byte : random) {
        constexpr const char* digits = "0123456789abcdef";
        text += digits[byte >> 4];
        text += digits[byte & 15];
    }
    return text;
}

}  // namespace pgxc
