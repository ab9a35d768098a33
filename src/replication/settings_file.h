#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pgxc::replication {

/// A line of a settings file that means something to the server.
struct SettingsItem {
    enum class Kind { Setting, Include, IncludeIfExists, IncludeDir };
    Kind kind = Kind::Setting;
    std::string name;      // as written; compare with same_setting()
    std::string value;     // quotes and escapes removed
    std::size_t line = 0;  // 1-based
    friend bool operator==(const SettingsItem&, const SettingsItem&) = default;
};

/// Compares setting names as the server does: ASCII letters without case (guc_name_compare).
[[nodiscard]] bool same_setting(std::string_view a, std::string_view b);

/// The value in single quotes, so that the server's scanner reads back exactly this value. A zero byte can't
/// be written in these files and ends the value.
[[nodiscard]] std::string quote_setting_value(std::string_view value);

/// The text of a postgresql.conf, postgresql.auto.conf or recovery.conf (all have guc-file.l's syntax), read
/// as the server reads it and edited line by line: what isn't asked for stays as it is, to the byte. Pure: no
/// files.
class SettingsFile {
  public:
    /// `file_name` is only for messages. A text above limits::max_settings_file_bytes is refused (F0000).
    /// Lines with a syntax error don't fail the parsing, because the other lines can still be read: see
    /// error().
    [[nodiscard]] static Result<SettingsFile> parse(std::string text, std::string file_name);

    [[nodiscard]] const std::string& text() const { return text_; }
    [[nodiscard]] const std::string& file_name() const { return file_name_; }
    /// Settings and include directives, in the order of the file. Includes are not followed.
    [[nodiscard]] const std::vector<SettingsItem>& items() const { return items_; }
    /// The first syntax error (F0000, names file and line), or nullptr. The server would not start with it.
    [[nodiscard]] const Error* error() const { return error_ ? &*error_ : nullptr; }

    /// The line that decides in this file: the last one of that name.
    [[nodiscard]] std::optional<SettingsItem> get(std::string_view name) const;

    /// Changes the value on the last line of that name, keeping everything around the value, or appends a
    /// line. Earlier lines of the same name stay: the server ignores them already, and an administrator may
    /// want them. Refuses (22023) what is no name of a setting, and values with a newline or a zero byte,
    /// which ALTER SYSTEM refuses as well because it could not write them back.
    [[nodiscard]] Status set(std::string_view name, std::string_view value);

    /// Puts a '#' before every line of that name. Tells how many there were.
    std::size_t comment_out(std::string_view name);

    /// Deletes every line of that name. Tells how many there were.
    std::size_t remove(std::string_view name);

  private:
    // Where an item is in text_: [line_begin, line_end) with the newline, and the value with its quotes.
    struct Place {
        std::size_t line_begin;
        std::size_t line_end;
        std::size_t value_begin;
        std::size_t value_length;
    };

    SettingsFile(std::string text, std::string file_name);
    void read();
    [[nodiscard]] std::optional<std::size_t> last_index(std::string_view name) const;

    std::string text_;
    std::string file_name_;
    std::vector<SettingsItem> items_;
    std::vector<Place> places_;  // parallel to items_
    std::optional<Error> error_;
};

}  // namespace pgxc::replication
