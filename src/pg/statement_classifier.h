#pragma once

#include <memory>

#include "pooler/statement_class.h"

namespace pgxc {

/// Reads statements with the server's own parser. Works in a pooler worker, which has no database, as in a
/// backend; which of the server's own functions only read is taken from the file that initdb made the catalog
/// from (postgres.bki), once per process.
[[nodiscard]] std::unique_ptr<pooler::StatementClassifier> make_statement_classifier();

}  // namespace pgxc
