#include "pooler/hba_rules.h"

#include <algorithm>
#include <array>

namespace pgxc::pooler {
namespace {

bool is_keyword(const HbaToken& token, std::string_view word) {
    return !token.quoted && token.text == word;
}

/// Whether the words of a line fit a client, `Unknown` where the catalog could not be asked.
enum class Fit : std::uint8_t { No, Yes, Unknown };

Fit membership(const HbaFacts& facts, const std::string& user, const std::string& role) {
    const std::optional<bool> member = facts.is_member(user, role);
    if (!member) return Fit::Unknown;
    return *member ? Fit::Yes : Fit::No;
}

Fit database_word(const HbaToken& token, const std::string& database, const std::string& user,
                  const HbaFacts& facts) {
    if (is_keyword(token, "all")) return Fit::Yes;
    if (is_keyword(token, "sameuser")) return database == user ? Fit::Yes : Fit::No;
    if (is_keyword(token, "samerole") || is_keyword(token, "samegroup"))
        return membership(facts, user, database);
    // The pooler has no replication connections; a database of that name is written in quotes.
    if (is_keyword(token, "replication")) return Fit::No;
    return token.text == database ? Fit::Yes : Fit::No;
}

Fit role_word(const HbaToken& token, const std::string& user, const HbaFacts& facts) {
    if (!token.quoted && token.text.starts_with('+')) return membership(facts, user, token.text.substr(1));
    return token.text == user || is_keyword(token, "all") ? Fit::Yes : Fit::No;
}

/// One word that fits is enough; one that can't be known spoils a line that doesn't fit otherwise.
template <class Judge>
Fit any_word(const std::vector<HbaToken>& tokens, Judge judge) {
    Fit fit = Fit::No;
    for (const HbaToken& token : tokens) {
        const Fit one = judge(token);
        if (one == Fit::Yes) return Fit::Yes;
        if (one == Fit::Unknown) fit = Fit::Unknown;
    }
    return fit;
}

bool in_network(const std::vector<std::uint8_t>& client, const std::vector<std::uint8_t>& address,
                const std::vector<std::uint8_t>& mask) {
    if (client.size() != address.size() || client.size() != mask.size() || client.empty()) return false;
    for (std::size_t i = 0; i < client.size(); ++i)
        if (((client[i] ^ address[i]) & mask[i]) != 0) return false;
    return true;
}

bool address_matches(const HbaRule& rule, const std::vector<std::uint8_t>& client, const HbaFacts& facts) {
    switch (rule.address_kind) {
        case HbaAddress::Any:
        case HbaAddress::HostName:  // the rule's beyond_us says so: the client is refused there
            return true;
        case HbaAddress::Netmask:
            return in_network(client, rule.address, rule.mask);
        case HbaAddress::SameHost:
        case HbaAddress::SameNet: {
            const auto interfaces = facts.interfaces();
            return std::any_of(interfaces.begin(), interfaces.end(), [&](const InterfaceAddress& own) {
                if (rule.address_kind == HbaAddress::SameHost) return own.address == client;
                return in_network(client, own.address, own.mask);
            });
        }
    }
    return false;
}

bool connection_matches(const HbaRule& rule, const ClientAddress& from) {
    switch (rule.connection) {
        case HbaConnection::Local:
            return from.is_unix;
        case HbaConnection::Host:
        case HbaConnection::HostNoGss:
            return !from.is_unix;
        case HbaConnection::HostSsl:
            return !from.is_unix && from.tls;
        case HbaConnection::HostNoSsl:
            return !from.is_unix && !from.tls;
        case HbaConnection::HostGss:  // the pooler doesn't offer GSS encryption
            return false;
    }
    return false;
}

/// An IPv4 client that came through an IPv6 socket is an IPv4 client.
std::vector<std::uint8_t> plain_address(const std::vector<std::uint8_t>& address) {
    constexpr std::array<std::uint8_t, 12> mapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
    if (address.size() == 16 && std::equal(mapped.begin(), mapped.end(), address.begin()))
        return {address.begin() + mapped.size(), address.end()};
    return address;
}

}  // namespace

AuthRule match_rules(const std::vector<HbaRule>& rules, const ClientAddress& from,
                     const std::string& database, const std::string& user, const HbaFacts& facts) {
    const std::vector<std::uint8_t> client = plain_address(from.address);
    for (const HbaRule& rule : rules) {
        // The cheap questions first: membership costs a look into the catalog.
        if (!connection_matches(rule, from) || !address_matches(rule, client, facts)) continue;
        const Fit by_database = any_word(rule.databases, [&](const HbaToken& token) {
            return database_word(token, database, user, facts);
        });
        if (by_database == Fit::No) continue;
        const Fit by_role =
            any_word(rule.roles, [&](const HbaToken& token) { return role_word(token, user, facts); });
        if (by_role == Fit::No) continue;
        const std::string where = "pg_hba.conf line " + std::to_string(rule.line);
        if (by_database == Fit::Unknown || by_role == Fit::Unknown)
            return {AuthMethod::Unsupported, "a role membership that could not be looked up", where};
        if (!rule.beyond_us.empty()) return {AuthMethod::Unsupported, rule.beyond_us, where};
        return {rule.method, rule.method_name, where};
    }
    return {AuthMethod::Reject, "reject", "no line of pg_hba.conf matches"};
}

}  // namespace pgxc::pooler
