#include "wire/startup.h"

#include <algorithm>

#include "base/limits.h"
#include "wire/framing.h"

namespace pgxc::wire {
namespace {

/// The server cuts longer names (NAMEDATALEN - 1).
constexpr std::size_t max_name_bytes = 63;

constexpr std::string_view own_prefix = "pgxc.";
constexpr std::string_view protocol_option_prefix = "_pq_.";

/// Switches of process_postgres_switches (postgres.c) that take an argument, and those that don't.
constexpr std::string_view switches_with_argument = "BcCDdfhkNprStvW-";
constexpr std::string_view switches_alone = "bEeFijlnOPsT";

constexpr bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\v' || c == '\f' || c == '\r';
}

constexpr char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

std::string lower(std::string_view text) {
    std::string result(text);
    std::transform(result.begin(), result.end(), result.begin(), [](char c) { return lower(c); });
    return result;
}

/// Setting names are the same whatever their case (guc.c, guc_name_compare: ASCII only).
bool same_name(std::string_view a, std::string_view b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](char x, char y) { return lower(x) == lower(y); });
}

bool is_own(std::string_view name) {
    return same_name(name.substr(0, own_prefix.size()), own_prefix);
}

Error invalid(std::string message) {
    return {sqlstate::protocol_violation, std::move(message)};
}

/// parse_bool() of the server: any case, unique prefixes.
std::optional<bool> parse_bool(std::string_view text) {
    const std::string value = lower(text);
    const auto prefix_of = [&value](std::string_view word, std::size_t least) {
        return value.size() >= least && word.substr(0, value.size()) == value;
    };
    if (prefix_of("true", 1) || prefix_of("yes", 1) || value == "on" || value == "1") return true;
    if (prefix_of("false", 1) || prefix_of("no", 1) || prefix_of("off", 2) || value == "0") return false;
    return std::nullopt;
}

/// Takes `options` apart as getopt does for process_postgres_switches: our own settings leave it, the rest
/// stays as the client wrote it.
class OptionsReader {
  public:
    OptionsReader(std::string_view options, StartupMessage& message)
        : options_(options), arguments_(split_options(options)), message_(message) {}

    void read() {
        while (next_ < arguments_.size()) read_argument();
        message_.options = stripped_ ? kept_ : std::string(options_);
    }

  private:
    void read_argument() {
        const std::size_t first = next_++;
        const std::string& text = arguments_[first].text;
        if (text.size() < 2 || text[0] != '-' || text == "--") {
            // Not a switch, or the end of switches: the server refuses what follows.
            message_.options_have_switches = true;
            if (text == "--") next_ = arguments_.size();
            keep(first, next_ - 1);
            return;
        }
        for (std::size_t at = 1; at < text.size(); ++at) {
            const char letter = text[at];
            if (switches_alone.find(letter) != std::string_view::npos) {
                message_.options_have_switches = true;
                continue;
            }
            if (switches_with_argument.find(letter) == std::string_view::npos)
                break;  // unknown: the server says so
            std::string_view argument = std::string_view(text).substr(at + 1);
            if (argument.empty() && next_ < arguments_.size()) argument = arguments_[next_++].text;
            if (letter != 'c' && letter != '-') break;
            if (!read_setting(argument)) break;
            strip(std::string_view(text).substr(0, at));
            return;
        }
        keep(first, next_ - 1);
    }

    /// True if it was one of ours.
    bool read_setting(std::string_view argument) {
        const auto equals = argument.find('=');
        if (equals == std::string_view::npos) {
            message_.options_have_switches = true;  // "requires a value", the server says
            return false;
        }
        std::string name(argument.substr(0, equals));
        std::replace(name.begin(), name.end(), '-', '_');  // ParseLongOption
        const std::string value(argument.substr(equals + 1));
        if (is_own(name)) {
            message_.own_settings.emplace_back(lower(name), value);
            return true;
        }
        message_.options_settings.emplace_back(std::move(name), value);
        return false;
    }

    void append(std::string_view text) {
        if (!kept_.empty()) kept_.push_back(' ');
        kept_.append(text);
    }
    void keep(std::size_t first, std::size_t last) {
        if (!is_setting(first)) message_.options_have_switches = true;
        const std::size_t begin = arguments_[first].begin;
        append(options_.substr(begin, arguments_[last].end - begin));
    }
    /// Leaves an argument out, but for what stands before its setting.
    void strip(std::string_view before) {
        stripped_ = true;
        if (before.size() > 1) append(escape_option(before));  // "-E" of "-Ecpgxc.node=1"
    }
    /// Is the argument a plain setting, -c or --?
    [[nodiscard]] bool is_setting(std::size_t first) const {
        const std::string& text = arguments_[first].text;
        return text.size() >= 2 && text[0] == '-' && (text[1] == 'c' || text[1] == '-');
    }

    std::string_view options_;
    std::vector<OptionArgument> arguments_;
    StartupMessage& message_;
    std::size_t next_ = 0;
    std::string kept_;
    bool stripped_ = false;
};

Status read_parameter(std::string_view name, std::string_view value, StartupMessage& message,
                      std::string_view& options) {
    if (name == "database") {
        message.database = value;
    } else if (name == "user") {
        message.user = value;
    } else if (name == "options") {
        options = value;
    } else if (name == "replication") {
        if (value == "database") {
            message.replication = ReplicationRequest::Database;
        } else if (const auto on = parse_bool(value)) {
            message.replication = *on ? ReplicationRequest::Physical : ReplicationRequest::None;
        } else {
            return Error(sqlstate::invalid_parameter_value,
                         "invalid value for parameter \"replication\": \"" + std::string(value) + "\"",
                         R"(Valid values are: "false", 0, "true", 1, "database".)");
        }
    } else if (name.starts_with(protocol_option_prefix)) {
        message.unknown_protocol_options.emplace_back(name);
    } else if (is_own(name)) {
        message.own_settings.emplace_back(lower(name), value);
    } else {
        message.parameters.emplace_back(name, value);
    }
    return {};
}

Result<StartupPacket> parse_startup_message(std::uint32_t version, BodyReader reader) {
    StartupMessage message;
    message.minor = static_cast<std::uint16_t>(version);
    std::string_view options;
    while (true) {
        const auto name = reader.cstring();
        if (!reader.ok()) break;
        if (name.empty()) break;
        const auto value = reader.cstring();
        if (!reader.ok()) break;
        if (auto status = read_parameter(name, value, message, options); !status)
            return std::move(status).error();
    }
    if (!reader.done()) return invalid("invalid startup packet layout: expected terminator as last byte");
    if (message.user.empty())
        return Error(sqlstate::invalid_authorization, "no PostgreSQL user name specified in startup packet");
    if (message.database.empty()) message.database = message.user;
    if (message.user.size() > max_name_bytes) message.user.resize(max_name_bytes);
    if (message.database.size() > max_name_bytes) message.database.resize(max_name_bytes);

    // Settings of `options` come first, parameters of the packet over them (postinit.c,
    // process_startup_options).
    std::vector<Setting> from_parameters;
    from_parameters.swap(message.own_settings);
    OptionsReader(options, message).read();
    for (auto& setting : from_parameters) message.own_settings.push_back(std::move(setting));
    return StartupPacket(std::move(message));
}

/// Appends a packet without type byte: length, code, and what `body` appends.
template <class Body>
void put_packet(Buffer& out, std::uint32_t code, Body body) {
    const std::size_t start = out.size();
    put_u32(out, 0);
    put_u32(out, code);
    body();
    Buffer length;
    put_u32(length, static_cast<std::uint32_t>(out.size() - start));
    out.replace(start, length.size(), length);
}

}  // namespace

std::optional<std::string_view> StartupMessage::own(std::string_view name) const {
    for (auto it = own_settings.rbegin(); it != own_settings.rend(); ++it)
        if (same_name(it->first, name)) return it->second;
    return std::nullopt;
}

std::optional<std::string_view> StartupMessage::setting(std::string_view name) const {
    for (const auto* settings : {&parameters, &options_settings})
        for (auto it = settings->rbegin(); it != settings->rend(); ++it)
            if (same_name(it->first, name)) return it->second;
    return std::nullopt;
}

Result<std::optional<std::size_t>> startup_packet_bytes(Bytes buffer) {
    if (buffer.size() < 4) return std::optional<std::size_t>{};
    const std::size_t bytes = get_u32(buffer.data());
    // The limit counts without the length word (ProcessStartupPacket).
    if (bytes < 8 || bytes - 4 > limits::max_startup_bytes)
        return invalid("invalid length of startup packet");
    return std::optional<std::size_t>{bytes};
}

Result<StartupPacket> parse_startup_packet(Bytes packet) {
    auto bytes = startup_packet_bytes(packet);
    if (!bytes) return std::move(bytes).error();
    if (!bytes->has_value() || **bytes != packet.size()) return invalid("incomplete startup packet");
    BodyReader reader(packet.substr(4));
    const std::uint32_t code = reader.u32();
    switch (code) {
        case cancel_request_code: {
            CancelRequest request;
            request.pid = reader.u32();
            request.secret = reader.u32();
            if (!reader.done()) return invalid("invalid length of startup packet");
            return StartupPacket(request);
        }
        case ssl_request_code:
            return StartupPacket(SslRequest{});
        case gssenc_request_code:
            return StartupPacket(GssEncRequest{});
        default:
            break;
    }
    if (code >> 16U != 3)
        return Error(sqlstate::feature_not_supported,
                     "unsupported frontend protocol " + std::to_string(code >> 16U) + "." +
                         std::to_string(code & 0xFFFFU) + ": server supports 3.0 to 3.0");
    return parse_startup_message(code, reader);
}

std::vector<OptionArgument> split_options(std::string_view options) {
    std::vector<OptionArgument> arguments;
    std::size_t at = 0;
    while (true) {
        while (at < options.size() && is_space(options[at])) ++at;
        if (at == options.size()) return arguments;
        OptionArgument argument;
        argument.begin = at;
        bool escaped = false;
        for (; at < options.size() && (escaped || !is_space(options[at])); ++at) {
            if (!escaped && options[at] == '\\') {
                escaped = true;
            } else {
                escaped = false;
                argument.text.push_back(options[at]);
            }
        }
        argument.end = at;
        arguments.push_back(std::move(argument));
    }
}

std::string escape_option(std::string_view text) {
    std::string escaped;
    for (const char c : text) {
        if (is_space(c) || c == '\\') escaped.push_back('\\');
        escaped.push_back(c);
    }
    return escaped;
}

void put_startup_message(Buffer& out, std::string_view user, std::string_view database,
                         std::span<const Setting> parameters) {
    put_packet(out, protocol_3_0, [&] {
        const auto put_pair = [&out](std::string_view name, std::string_view value) {
            put_cstring(out, name);
            put_cstring(out, value);
        };
        put_pair("user", user);
        if (!database.empty()) put_pair("database", database);
        for (const auto& [name, value] : parameters) put_pair(name, value);
        put_u8(out, 0);
    });
}

void put_ssl_request(Buffer& out) {
    put_packet(out, ssl_request_code, [] {});
}

void put_cancel_request(Buffer& out, const CancelRequest& request) {
    put_packet(out, cancel_request_code, [&] {
        put_u32(out, request.pid);
        put_u32(out, request.secret);
    });
}

void put_negotiate_protocol_version(Buffer& out, const StartupMessage& startup) {
    Buffer body;
    put_u32(body, protocol_3_0);  // the whole number, as the server's SendNegotiateProtocolVersion does
    put_u32(body, static_cast<std::uint32_t>(startup.unknown_protocol_options.size()));
    for (const auto& name : startup.unknown_protocol_options) put_cstring(body, name);
    put_u8(out, static_cast<std::uint8_t>(BackendMessage::NegotiateProtocolVersion));
    put_u32(out, static_cast<std::uint32_t>(body.size() + 4));
    out.append(body);
}

}  // namespace pgxc::wire
