#pragma once

#include <optional>
#include <string_view>
#include <vector>

/// A client that sets client_min_messages to error or above is sent no warning, so neither the one by which a
/// server says that a commit is on no synchronous slave (F19). So the server keeps a lower level, and what
/// the client doesn't want to hear is held back here. Pure.
namespace pgxc::pooler {

/// One statement that sets client_min_messages.
struct MinMessagesSet {
    bool quiet = false;  // error, fatal or panic
    bool reset = false;  // back to what the login asked for
    bool local = false;  // SET LOCAL
};
/// Reads a text that is a single SET or RESET of it; nullopt for everything else.
[[nodiscard]] std::optional<MinMessagesSet> read_min_messages(std::string_view sql);

/// Where a text sets it to a quiet level: those values, with their quotes. SET, also among several
/// statements, and set_config() in a query; not what a function or a role is to set later.
[[nodiscard]] std::vector<std::string_view> quiet_values(std::string_view sql);

/// error, fatal or panic, in any case.
[[nodiscard]] bool is_quiet_level(std::string_view level);

/// What the server is told in place of a quiet level, filled up with blanks to that many characters: the
/// longest that is never longer than what it stands for.
inline constexpr std::string_view loud_level = "info";

/// Whether a session is quiet now, through its transactions.
class QuietLevel {
  public:
    void logged_in(bool quiet) { login_ = session_ = quiet; }
    /// The statement was sent; done() tells that it succeeded.
    void sent(const MinMessagesSet& set) { pending_ = set; }
    void done(bool in_block);
    /// A text in which it can't be followed set it to a quiet level: found() tells what came of that.
    void sent_unseen() { unseen_ = true; }
    /// What the server says of its session, after a transaction; nullopt: it has set nothing.
    void found(std::optional<std::string_view> level);
    void discard_all() {
        session_ = login_;
        block_.reset();
        local_.reset();
    }
    void transaction_ended(bool committed);
    [[nodiscard]] bool quiet() const { return local_.value_or(block_.value_or(session_)); }
    [[nodiscard]] bool pending() const { return pending_.has_value(); }

  private:
    std::optional<MinMessagesSet> pending_;
    std::optional<bool> block_;  // set in the transaction that runs
    std::optional<bool> local_;
    bool session_ = false;
    bool login_ = false;
    bool unseen_ = false;
};

}  // namespace pgxc::pooler
