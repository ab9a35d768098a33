#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pooler/session_use.h"
#include "pooler/setting_set.h"
#include "pooler/sql_statements.h"

/// Asks a server session, on its own connection and outside of a transaction, what was left in it: settings,
/// and what can't be moved to another connection. Pure: texts out, rows in.
namespace pgxc::pooler {

/// Why a client must stay with its server connection: a set, since there may be several reasons.
class PinReasons {
  public:
    enum Reason : std::uint16_t {
        Listens = 1U << 0U,
        Temporary = 1U << 1U,
        HeldCursor = 1U << 2U,
        AdvisoryLock = 1U << 3U,
        Prepared = 1U << 4U,     // a statement that can't be prepared elsewhere as it is there
        NamedInSql = 1U << 5U,   // statements of the protocol that SQL names
        TempBuffers = 1U << 6U,  // a setting that can't be changed once temporary tables were used
        // Nothing tells that these have ended.
        Loaded = 1U << 7U,
        Seeded = 1U << 8U,
        Unreadable = 1U << 9U,
        SetUnknown = 1U << 10U,
        NotKnown = 1U << 11U,   // the server could not be asked
        Sequences = 1U << 12U,  // currval() and lastval() are used here, until DISCARD SEQUENCES
    };
    std::uint16_t bits = 0;
    [[nodiscard]] bool any() const { return bits != 0; }
    [[nodiscard]] bool has(std::uint16_t any_of) const { return (bits & any_of) != 0; }
    void add(std::uint16_t more) { bits |= more; }
    /// What the probe tells anew each time.
    static constexpr std::uint16_t probed =
        Listens | Temporary | HeldCursor | AdvisoryLock | Prepared | TempBuffers | NotKnown;
    /// "LISTEN, temporary object".
    [[nodiscard]] std::string text() const;
};

/// The query. Locks are asked for only where one may have been taken: that isn't free on a busy server.
[[nodiscard]] std::string probe_sql(bool locks_too, std::span<const std::string> custom_settings);

/// Collects the answer.
class ProbeAnswer {
  public:
    /// A DataRow's body. False: it isn't what probe_sql() gives.
    [[nodiscard]] bool take_row(std::string_view body);

    SettingSet settings;  // all that the session has set, ours and the client's
    PinReasons pins;
    StatementNames own_names;      // of what pins as Prepared
    SqlStatements sql_statements;  // those that can be prepared elsewhere
};

}  // namespace pgxc::pooler
