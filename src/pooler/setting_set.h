#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pgxc::pooler {

/// Server settings by name (lower case), as a client wants them beyond what a server session starts with.
class SettingSet {
  public:
    using Entry = std::pair<std::string, std::string>;

    [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }
    [[nodiscard]] const std::string* find(std::string_view name) const;
    /// Puts a value in place of an older one of that name.
    void set(std::string_view name, std::string_view value);
    void erase(std::string_view name);
    friend bool operator==(const SettingSet&, const SettingSet&) = default;

  private:
    std::vector<Entry> entries_;  // ordered by name
};

/// Shared, so that the check at each checkout is mostly one comparison of pointers.
using SettingSetRef = std::shared_ptr<const SettingSet>;

/// Gives equal sets one address, so that clients with the same settings are told apart from others by a
/// pointer.
class SettingSetStore {
  public:
    [[nodiscard]] SettingSetRef intern(SettingSet set);

  private:
    std::map<std::vector<SettingSet::Entry>, std::weak_ptr<const SettingSet>> sets_;
    std::size_t sweep_at_ = 64;
};

inline constexpr std::string_view role_setting = "role";
inline constexpr std::string_view session_authorization = "session_authorization";

/// The text of a simple Query that brings a session from one set to another; empty where they are equal.
/// Values go through set_config(), which reads them as a startup packet's are read (a list stays a list);
/// they are in the client encoding of `to`. With `from_unknown` the session may have set more than `from`.
[[nodiscard]] std::string change_settings_sql(const SettingSet& from, const SettingSet& to,
                                              bool from_unknown = false);

/// Has it values whose bytes mean something else under another client_encoding?
[[nodiscard]] bool depends_on_encoding(const SettingSet& settings);

/// Can that change not fail, its values having been in force in a session before, nor be cancelled? Then
/// nobody waits for its answer.
[[nodiscard]] bool change_is_safe(const SettingSet& from, const SettingSet& to);

/// Settings that the server reports (ParameterStatus) and a session may change: those are followed from
/// client to client, and a SET of one needs no pinning. `name` in lower case.
[[nodiscard]] bool is_followed_setting(std::string_view name);
[[nodiscard]] std::string to_lower(std::string_view text);

}  // namespace pgxc::pooler
