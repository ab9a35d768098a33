#include "replication/node_answer.h"

namespace pgxc {

std::string Rows::text(std::size_t column, std::size_t row) const {
    if (row >= rows.size() || column >= rows[row].size() || !rows[row][column]) return {};
    return *rows[row][column];
}

bool Rows::is_null(std::size_t column, std::size_t row) const {
    return row >= rows.size() || column >= rows[row].size() || !rows[row][column];
}

}  // namespace pgxc
