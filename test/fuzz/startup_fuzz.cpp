#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/limits.h"
#include "wire/passfile.h"
#include "wire/startup.h"

namespace {

using namespace pgxc::wire;

void require(bool holds) {
    if (!holds) std::abort();
}

void check(const StartupMessage& message) {
    require(!message.user.empty() && !message.database.empty());
    for (const auto& [name, value] : message.own_settings) require(name.starts_with("pgxc."));
    // What is sent on holds nothing of ours and otherwise the same settings.
    const std::vector<Setting> parameters = {{"options", message.options}};
    Buffer out;
    put_startup_message(out, message.user, message.database, parameters);
    const auto again = parse_startup_packet(out);
    if (out.size() > pgxc::limits::max_startup_bytes + 4) return;
    require(again.ok());
    const auto& forwarded = std::get<StartupMessage>(*again);
    require(forwarded.own_settings.empty());
    require(forwarded.options == message.options);
    require(forwarded.options_settings == message.options_settings);
    require(forwarded.user == message.user);
    if (message.wants_negotiation()) put_negotiate_protocol_version(out, message);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (const auto bytes = startup_packet_bytes(text); bytes.ok() && bytes->has_value()) {
        require(**bytes >= 8 && **bytes <= pgxc::limits::max_startup_bytes + 4);
        if (const auto packet = parse_startup_packet(text.substr(0, **bytes)); packet.ok())
            if (const auto* message = std::get_if<StartupMessage>(&*packet)) check(*message);
    }
    // The same bytes as the options of a well-formed packet, and as a password file.
    if (size < pgxc::limits::max_startup_bytes / 2 && text.find('\0') == std::string_view::npos) {
        Buffer out;
        const std::vector<Setting> parameters = {{"options", std::string(text)}};
        put_startup_message(out, "user", "", parameters);
        const auto packet = parse_startup_packet(out);
        require(packet.ok());
        check(std::get<StartupMessage>(*packet));
        for (const auto& argument : split_options(text)) {
            const auto once = split_options(escape_option(argument.text));
            require(argument.text.empty() ? once.empty() : once.size() == 1 && once[0].text == argument.text);
        }
    }
    (void)find_password(text, "localhost", 5432, "app", "alice");
    return 0;
}
