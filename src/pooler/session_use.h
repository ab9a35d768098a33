#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// What statements may leave behind in their server session. Pure. Careful: where the text doesn't tell, it
/// counts as leaving something; what really is left, the server is asked when the transaction is over
/// (session_probe.h).
namespace pgxc::pooler {

/// A set of bits: what a text may do.
struct SessionUse {
    enum Bit : std::uint32_t {
        SetsSession = 1U << 0U,     // SET that outlives the transaction, RESET, or a text that can't be read
        MakesTemporary = 1U << 1U,  // makes something temporary
        HoldsCursor = 1U << 2U,     // WITH HOLD
        LocksSession = 1U << 3U,    // a session advisory lock
        CallsSetConfig = 1U << 4U,  // and not just for the transaction
        Unreadable = 1U << 5U,      // longer than what is looked at
        Keeps = 1U << 6U,           // LISTEN, LOAD, PREPARE, DISCARD, RESET, DO, CALL as first word
        Calls = 1U << 7U,           // DO, or CALL of somebody else's procedure
        SetsUnknown = 1U << 8U,     // set_config() of a setting whose name isn't plain from the text
        Seeds = 1U << 9U,           // setseed()
        NamesStatements = 1U << 10U,  // SQL that names prepared statements: EXECUTE, DEALLOCATE, their view
        Releases = 1U << 11U,         // may end what pins: UNLISTEN, DROP, CLOSE, DEALLOCATE, unlocking ...
        Prepares = 1U << 12U,         // PREPARE
        Several = 1U << 13U,          // several statements in one text, or one that can't be read
        FollowedOnly = 1U << 14U,     // SET of a setting that the server reports: nothing else is needed
        ReadsSequence = 1U << 15U,    // currval(), lastval(): what this session did before
        SeesStatements = 1U << 17U,   // reads pg_prepared_statements
        MovesSequence = 1U << 16U,    // may draw a value that those tell of
        Awaited = 1U << 18U,          // DISCARD ALL, PREPARE, DEALLOCATE, RESET: what follows needs to know
        Sets = 1U << 19U,             // may set something, if only for its transaction
        RunsCode = 1U << 20U,         // DO, or CALL of somebody else's procedure: may commit, and then fail
        OfDatabase = 1U << 21U,       // DROP, ALTER or CREATE DATABASE: may want one for itself
    };
    std::uint32_t bits = 0;
    [[nodiscard]] bool has(std::uint32_t any_of) const { return (bits & any_of) != 0; }
    void add(SessionUse other) { bits |= other.bits; }
    [[nodiscard]] bool any() const { return bits != 0; }
};

[[nodiscard]] SessionUse read_session_use(std::string_view sql, bool whole);

/// What is to be asked for when the transaction is over, after a statement of that tag succeeded, given what
/// all texts of its transaction may do. Nothing for most.
[[nodiscard]] SessionUse left_when_done(std::string_view tag, SessionUse use);
/// May it leave behind what a slave must not be left to keep? (What a cursor that is held keeps there is told
/// when it is made, and no slave hands out values of sequences.)
[[nodiscard]] inline bool keeps_at_master(SessionUse use) {
    constexpr std::uint32_t elsewhere =
        SessionUse::HoldsCursor | SessionUse::MovesSequence | SessionUse::Sets;
    return (use.bits & ~elsewhere) != 0;
}
/// Would it hold its client to the server connection?
[[nodiscard]] inline bool pins_client(SessionUse use) {
    return use.has(SessionUse::HoldsCursor | SessionUse::LocksSession | SessionUse::Seeds |
                   SessionUse::SetsUnknown | SessionUse::ReadsSequence);
}
/// The same, for what outlives even an error of its statement.
[[nodiscard]] SessionUse left_when_sent(SessionUse use);

/// Of a text that may set something: something by which the server reads other texts (parse_context)?
[[nodiscard]] bool may_change_reading(std::string_view sql, SessionUse use);

/// Names of settings of extensions and of the application's own ("a.b") that a text sets for the session:
/// pg_settings doesn't show them all.
void add_custom_settings(std::string_view sql, std::vector<std::string>& names);

}  // namespace pgxc::pooler
