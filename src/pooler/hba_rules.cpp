#include "pooler/hba_rules.h"

#include <algorithm>
#include <array>

namespace pgxc::pooler {
namespace {

bool is_keyword(const HbaToken& token, std::string_view word) {
    return !token.quoted && token.text == word;
}

bool database_matches(const HbaRule& rule, const std::string& database, const std::string& user,
                      const HbaFacts& facts) {
    return std::any_of(rule.databases.begin(), rule.databases.end(), [&](const HbaToken& token) {
        if (is_keyword(token, "all")) return true;
        if (is_keyword(token, "sameuser")) return database == user;
        if (is_keyword(token, "samerole") || is_keyword(token, "samegroup"))
            return facts.is_member(user, database);
        // The pooler has no replication connections; a database of that name is written in quotes.
        if (is_keyword(token, "replication")) return false;
        return token.text == database;
    });
}

bool role_matches(const HbaRule& rule, const std::string& user, const HbaFacts& facts) {
    return std::any_of(rule.roles.begin(), rule.roles.end(), [&](const HbaToken& token) {
        if (!token.quoted && token.text.starts_with('+')) return facts.is_member(user, token.text.substr(1));
        return token.text == user || is_keyword(token, "all");
    });
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
        if (!database_matches(rule, database, user, facts) || !role_matches(rule, user, facts)) continue;
        const std::string where = "pg_hba.conf line " + std::to_string(rule.line);
        if (!rule.beyond_us.empty()) return {AuthMethod::Unsupported, rule.beyond_us, where};
        return {rule.method, rule.method_name, where};
    }
    return {AuthMethod::Reject, "reject", "no line of pg_hba.conf matches"};
}

}  // namespace pgxc::pooler
