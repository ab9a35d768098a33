#pragma once

#include <cstdint>
#include <string_view>

/// What the first words of an SQL text tell. Strict: whatever isn't plainly one of the known forms is Other
/// or Unknown, which is the careful answer for every user of it.
namespace pgxc::wire {

/// One token of the little that is needed here: words, and single characters for all else.
struct SqlToken {
    enum class Kind : std::uint8_t { End, Word, Quoted, String, Number, Symbol, Unknown } kind = Kind::End;
    std::string_view text;  // as written; of Quoted and String without the quotes
    /// A word, whatever its case. `lower` must be lower case.
    [[nodiscard]] bool is(std::string_view lower) const {
        return kind == Kind::Word && text.size() == lower.size() && same_word(lower);
    }
    [[nodiscard]] bool is_symbol(char c) const { return kind == Kind::Symbol && text[0] == c; }

  private:
    [[nodiscard]] bool same_word(std::string_view lower) const;
};

/// Does it stand anywhere in the text, whatever its case? `lower_part` isn't empty.
[[nodiscard]] bool mentions(std::string_view text, std::string_view lower_part);

/// Cuts tokens off the front of a text, skipping white space and comments (nested ones too). What it can't
/// read with certainty (doubled quotes, escapes, dollar quotes, an unfinished comment) is Unknown.
class SqlScanner {
  public:
    explicit SqlScanner(std::string_view sql) : rest_(sql) {}
    [[nodiscard]] SqlToken next();
    [[nodiscard]] std::string_view rest() const { return rest_; }

  private:
    bool skip_blank();
    std::string_view rest_;
};

/// The text has at most one statement: no ';' but at its end. A ';' in a string or comment counts too, which
/// errs on the careful side.
[[nodiscard]] bool is_single(std::string_view sql);

/// How a single statement touches the transaction.
enum class TransactionControl : std::uint8_t {
    None,       // a single statement that isn't transaction control
    Begin,      // BEGIN, START TRANSACTION
    Commit,     // COMMIT, END; also AND CHAIN
    Rollback,   // ROLLBACK, ABORT; also AND CHAIN; not ROLLBACK TO
    Prepare,    // PREPARE TRANSACTION
    Savepoint,  // SAVEPOINT, RELEASE, ROLLBACK TO
    Other,      // COMMIT PREPARED, ROLLBACK PREPARED
    Unknown,    // several statements in one text, or not readable with certainty
};

/// The access mode that a BEGIN, START TRANSACTION or SET TRANSACTION names.
enum class AccessMode : std::uint8_t { Unspecified, ReadOnly, ReadWrite };
enum class IsolationLevel : std::uint8_t {
    Unspecified,
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable
};

struct StatementHead {
    TransactionControl control = TransactionControl::None;
    AccessMode access = AccessMode::Unspecified;             // of Begin
    IsolationLevel isolation = IsolationLevel::Unspecified;  // of Begin
    bool chains = false;                                     // AND CHAIN, of Commit and Rollback
};

/// Looks at a whole text. "begin; select 1" is Unknown; an empty text is None.
[[nodiscard]] StatementHead read_statement_head(std::string_view sql);

/// Could this text, run inside an explicit transaction block, commit it? False only where it certainly
/// doesn't.
[[nodiscard]] bool may_commit_block(std::string_view sql);

}  // namespace pgxc::wire
