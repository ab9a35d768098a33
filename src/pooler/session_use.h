#pragma once

#include <cstdint>
#include <string_view>

/// What statements leave behind in their server session, so that the client must stay with it. Pure. Careful:
/// where the text doesn't tell, it counts as leaving something.
namespace pgxc::pooler {

/// A set of bits: what a text may do.
struct SessionUse {
    enum Bit : std::uint8_t {
        SetsSession = 1,     // SET that outlives the transaction, of a setting that isn't followed
        MakesTemporary = 2,  // names something temporary
        HoldsCursor = 4,     // WITH HOLD
        LocksSession = 8,    // a session advisory lock
        CallsSetConfig = 16,
        Unreadable = 32,  // longer than what is looked at
        Keeps = 64,       // LISTEN, LOAD, PREPARE, DISCARD, RESET, DO, CALL as first word
        Calls = 128,  // CALL of somebody else's procedure: ours (and our statements, whose tag is CALL too)
                      // leave nothing behind
    };
    std::uint8_t bits = 0;
    [[nodiscard]] bool has(Bit bit) const { return (bits & bit) != 0; }
    void add(SessionUse other) { bits |= other.bits; }
    [[nodiscard]] bool any() const { return bits != 0; }
};

[[nodiscard]] SessionUse read_session_use(std::string_view sql, bool whole);

/// Why a client must be pinned after a text was sent, whatever becomes of it; empty = it needn't.
[[nodiscard]] std::string_view pin_reason_when_sent(SessionUse use);
/// Why a client must be pinned after a statement of that tag succeeded, given what all texts of its
/// transaction may do; empty = it needn't.
[[nodiscard]] std::string_view pin_reason_when_done(std::string_view tag, SessionUse use);

}  // namespace pgxc::pooler
