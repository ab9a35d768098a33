#include "pooler/session_probe.h"

#include <array>

#include "base/limits.h"
#include "base/text.h"
#include "pooler/prepared_statements.h"
#include "wire/bytes.h"

namespace pgxc::pooler {
namespace {

struct ReasonText {
    PinReasons::Reason reason;
    std::string_view text;
};
constexpr std::array<ReasonText, 13> texts{{
    {PinReasons::Listens, "LISTEN"},
    {PinReasons::Temporary, "temporary object"},
    {PinReasons::HeldCursor, "WITH HOLD cursor"},
    {PinReasons::AdvisoryLock, "session advisory lock"},
    {PinReasons::Prepared, "PREPARE"},
    {PinReasons::NamedInSql, "prepared statement named in SQL"},
    {PinReasons::TempBuffers, "SET temp_buffers"},
    {PinReasons::Loaded, "LOAD"},
    {PinReasons::Seeded, "setseed()"},
    {PinReasons::Unreadable, "a statement too long to be looked at"},
    {PinReasons::SetUnknown, "set_config() of a setting that the text doesn't name"},
    {PinReasons::Sequences, "sequence values (currval, lastval)"},
    {PinReasons::NotKnown, "its server session could not be examined"},
}};

}  // namespace

std::string PinReasons::text() const {
    std::string all;
    for (const auto& [reason, text] : texts) {
        if (!has(reason)) continue;
        if (!all.empty()) all += ", ";
        all += text;
    }
    return all;
}

std::string probe_sql(bool locks_too, std::span<const std::string> custom_settings) {
    // Every name has its schema: the client's search_path must not change what is asked.
    std::string sql =
        "/* pgxc_ha */ SELECT 's', name, setting FROM pg_catalog.pg_settings WHERE source "
        "OPERATOR(pg_catalog.=) "
        "'session'"
        " UNION ALL SELECT 's', 'role', r FROM pg_catalog.current_setting('role') r WHERE r "
        "OPERATOR(pg_catalog.<>) 'none'"
        " UNION ALL SELECT 'a', pg_catalog.current_setting('session_authorization'), ''"
        " UNION ALL SELECT 'l', '', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels())"
        " UNION ALL SELECT 'h', '', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_cursor() WHERE is_holdable)"
        " UNION ALL SELECT 'q', name, statement FROM pg_catalog.pg_prepared_statement() WHERE from_sql"
        " UNION ALL (SELECT 'p', name, '' FROM pg_catalog.pg_prepared_statement() WHERE "
        "NOT from_sql AND NOT pg_catalog.starts_with(name, '" +
        std::string{server_name_prefix} + "') LIMIT " + std::to_string(limits::max_sql_statements + 1) +
        ")"
        " UNION ALL SELECT 't', '', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace "
        "OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
        " OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace OPERATOR(pg_catalog.=) "
        "pg_catalog.pg_my_temp_schema())"
        " OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace OPERATOR(pg_catalog.=) "
        "pg_catalog.pg_my_temp_schema())";
    if (locks_too) {
        sql +=
            " UNION ALL SELECT 'k', '', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_lock_status() WHERE "
            "locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) "
            "pg_catalog.pg_backend_pid())";
    }
    for (const std::string& name : custom_settings) {
        const std::string literal = sql_literal(name);
        sql += " UNION ALL SELECT 'c', ";
        sql += literal;
        sql += ", pg_catalog.current_setting(";
        sql += literal;
        sql += ", true)";
    }
    return sql;
}

bool ProbeAnswer::take_row(std::string_view body) {
    wire::BodyReader reader{body};
    if (reader.u16() != 3) return false;
    std::array<std::string_view, 3> values;
    bool null = false;
    for (auto& value : values) {
        const std::uint32_t bytes = reader.u32();
        if (bytes == 0xffffffffU) {
            null = true;
            continue;
        }
        value = reader.take(bytes);
    }
    if (!reader.ok() || values[0].size() != 1) return false;
    switch (values[0][0]) {
        case 's':
            // SET of one of them is the transaction's, whatever else it says, and none can be RESET.
            if (values[1].starts_with("transaction_")) return true;
            if (values[1] == "temp_buffers") pins.add(PinReasons::TempBuffers);
            settings.set(to_lower(values[1]), values[2]);
            return true;
        case 'c':
            // pg_settings has it too once its extension is loaded, and only if the session has set it.
            if (!null && settings.find(values[1]) == nullptr) settings.set(values[1], values[2]);
            return true;
        case 'a':
            settings.set(session_authorization, values[1]);
            return true;
        case 'l':
            pins.add(PinReasons::Listens);
            return true;
        case 'h':
            pins.add(PinReasons::HeldCursor);
            return true;
        case 'q':
            if (sql_statements.put(values[1], values[2])) return true;
            [[fallthrough]];
        case 'p':
            pins.add(PinReasons::Prepared);
            own_names.add(std::string{values[1]});
            return true;
        case 't':
            pins.add(PinReasons::Temporary);
            return true;
        case 'k':
            pins.add(PinReasons::AdvisoryLock);
            return true;
        default:
            return false;
    }
}

}  // namespace pgxc::pooler
