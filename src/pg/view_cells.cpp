#include "pg/view_cells.h"

#include <ctime>

#include "pg/boundary.h"
#include "pg/pg_compat.h"

extern "C" {
#include "miscadmin.h"
#include "utils/acl.h"
}

namespace pgxc {

Cell one_char(char c) {
    return c == '\0' ? Cell{} : Cell{std::string(1, c)};
}

Cell timestamp(WallTime time) {
    const std::int64_t us = time.time_since_epoch().count();
    const auto seconds = static_cast<std::time_t>(us / 1000000);
    std::tm parts{};
    ::gmtime_r(&seconds, &parts);
    char text[64];
    const std::size_t size = std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
    const std::string fraction = std::to_string(us % 1000000);
    return std::string(text, size) + "." + std::string(6 - fraction.size(), '0') + fraction + "+00";
}

void tell_left_out(std::uint64_t rows, const char* of_what) {
    if (rows == 0) return;
    report(NOTICE, Error{"00000", std::to_string(rows) + " more " + of_what + " are not shown",
                         "Each pooler process keeps a limited number of rows in shared memory."});
}

Result<bool> may_see(const std::string& user) {
    const char* name = user.c_str();
    return pg_call([name] {
        const Oid role = get_role_oid(name, true);
        return has_privs_of_role(GetUserId(), compat::role_read_all_stats()) ||
               (OidIsValid(role) && has_privs_of_role(GetUserId(), role));
    });
}

}  // namespace pgxc
