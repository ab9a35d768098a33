#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

/// What a statement is, as far as its text tells (pgxc.read_routing = auto). A raw parse knows words, not
/// what they stand for: whether a relation is a view that writes, or what an unknown function does, is not in
/// the text. Where that matters it says Unknown; where it can't even be asked (a view, an operator), the
/// slave's refusal to write is what corrects it.
namespace pgxc::pooler {

enum class StatementClass : std::uint8_t {
    Read,          // only reads: a slave gives the same answer
    ReadWithTime,  // the same, but shows when its transaction began: not in a block that may move to the
                   // master
    Begin,         // begins a block that may move: neither its access mode nor a strict isolation is named
    End,           // COMMIT or ROLLBACK of a whole block, without a next one
    MasterOnly,    // would do on a slave, but mean something else there
    Write,
    Unknown,
};
[[nodiscard]] std::string_view to_word(StatementClass kind);
/// Of several things that one text or pipeline does, the one with the highest badness is what all of it
/// counts as. A begin or end is less than what is for the master: together with anything else it is no block
/// that could move.
[[nodiscard]] int badness(StatementClass kind);

struct Classification {
    StatementClass kind = StatementClass::Unknown;
    std::string_view reason;  // a literal
};

/// How a client's texts are to be read.
struct SqlDialect {
    bool standard_conforming_strings = true;
    /// The client's encoding may have the bytes of quotes and backslashes inside of characters (SJIS, BIG5,
    /// GBK, UHC, GB18030, JOHAB): beyond ASCII nothing can be told (F26).
    bool hides_quotes = false;
};

/// A text longer than that is not parsed, and Unknown.
inline constexpr std::size_t max_classified_bytes = 16 * 1024;

class StatementClassifier {
  public:
    virtual ~StatementClassifier() = default;
    /// Of a whole text, which may be several statements.
    [[nodiscard]] virtual Classification classify(std::string_view sql, const SqlDialect& dialect) = 0;
};

/// What a session keeps must be kept at the master, though the statement itself only reads.
[[nodiscard]] Classification with_session_use(Classification what, std::string_view sql);

/// Remembers the newest answers, so that a text that comes again isn't parsed again.
class ClassifierCache {
  public:
    explicit ClassifierCache(StatementClassifier* classifier, std::size_t entries = 2048)
        : classifier_(classifier), limit_(entries) {}
    [[nodiscard]] Classification classify(std::string_view sql, const SqlDialect& dialect);
    /// A slave refused that text because it writes, whatever it looks like.
    void learn_write(std::string_view sql, const SqlDialect& dialect);
    [[nodiscard]] std::size_t size() const { return known_.size(); }
    [[nodiscard]] std::uint64_t parsed() const { return parsed_; }

  private:
    /// Longer ones would fill the memory, and are rarely repeated.
    static constexpr std::size_t max_text = 2048;

    struct Hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
    };
    using Table = std::unordered_map<std::string, Classification, Hash, std::equal_to<>>;
    [[nodiscard]] Classification* find(std::string_view key);
    void remember(std::string_view key, Classification answer);

    StatementClassifier* classifier_;  // nullptr: nothing is known
    std::size_t limit_;
    // Two generations: when the newer is full it becomes the older, whose entries are dropped unless they
    // were asked for meanwhile.
    Table known_;
    Table older_;
    std::uint64_t parsed_ = 0;
};

/// True for client encodings in which the bytes of a character may be those of a quote or a backslash.
[[nodiscard]] bool encoding_hides_quotes(std::string_view encoding);

}  // namespace pgxc::pooler
