// The settings-file editor on any text: never crashes, and set, comment_out and remove do what they promise.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "replication/settings_file.h"

namespace {

using pgxc::replication::SettingsFile;

void require(bool holds) {
    if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view input(reinterpret_cast<const char*>(data), size);
    // First line: the value to set. Rest: the file.
    const auto newline = input.find('\n');
    const std::string_view value = input.substr(0, newline);
    const std::string text(newline == std::string_view::npos ? std::string_view{} : input.substr(newline + 1));

    auto parsed = SettingsFile::parse(text, "fuzz.conf");
    require(parsed.ok());
    require(parsed->text() == text);
    std::string name = "port";
    for (const auto& item : parsed->items()) {
        require(item.line > 0 && !item.name.empty());
        if (item.kind == pgxc::replication::SettingsItem::Kind::Setting) name = item.name;
    }
    const bool had_error = parsed->error() != nullptr;
    const std::size_t items = parsed->items().size();
    const bool had = parsed->get(name).has_value();

    SettingsFile changed = *parsed;
    if (!changed.set(name, value).ok()) {
        require(value.find('\0') != std::string_view::npos);
        return 0;
    }
    require(changed.get(name)->value == value);
    require((changed.error() != nullptr) == had_error);
    require(changed.items().size() == items + (had ? 0 : 1));
    SettingsFile commented = changed;
    require(commented.comment_out(name) > 0 && !commented.get(name));
    require(changed.remove(name) > 0 && !changed.get(name));
    return 0;
}
