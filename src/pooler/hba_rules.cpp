#include "pooler/hba_rules.h"

#include <algorithm>

#include "base/log.h"
#include "net/host_names.h"
#include "pooler/setting_set.h"

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
    if (token.pattern) return token.pattern->match(database).matched() ? Fit::Yes : Fit::No;
    return token.text == database ? Fit::Yes : Fit::No;
}

Fit role_word(const HbaToken& token, const std::string& user, const HbaFacts& facts) {
    if (!token.quoted && token.text.starts_with('+')) return membership(facts, user, token.text.substr(1));
    if (token.pattern) return token.pattern->match(user).matched() ? Fit::Yes : Fit::No;
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

/// run_ifaddr_callback(): where an interface has no mask that says anything, only its own address fits.
bool in_network_of(const std::vector<std::uint8_t>& client, const InterfaceAddress& own) {
    const bool says_something =
        own.mask.size() == own.address.size() &&
        std::any_of(own.mask.begin(), own.mask.end(), [](std::uint8_t byte) { return byte != 0; });
    return says_something ? in_network(client, own.address, own.mask) : client == own.address;
}

bool address_matches(const HbaRule& rule, const std::vector<std::uint8_t>& client, const HbaFacts& facts) {
    switch (rule.address_kind) {
        case HbaAddress::Any:
        case HbaAddress::HostName:  // looked at when all else fits
            return true;
        case HbaAddress::Netmask:
            return in_network(client, rule.address, rule.mask);
        case HbaAddress::SameHost:
        case HbaAddress::SameNet: {
            const auto interfaces = facts.interfaces();
            return std::any_of(interfaces.begin(), interfaces.end(), [&](const InterfaceAddress& own) {
                if (rule.address_kind == HbaAddress::SameHost) return own.address == client;
                return in_network_of(client, own);
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

/// hostname_match(): case counts in no name; ".domain" fits what ends in it.
bool host_name_matches(const std::string& pattern, const std::string& name) {
    const std::string wanted = to_lower(pattern);
    const std::string actual = to_lower(name);
    if (!wanted.starts_with('.')) return wanted == actual;
    return actual.size() >= wanted.size() && actual.ends_with(wanted);
}

/// check_ident_usermap(). Unknown: the line can't be read, so that those behind it don't count.
Fit ident_line_fits(const IdentRule& rule, const std::string& system_user, const std::string& user,
                    const HbaFacts& facts) {
    HbaToken wanted = rule.user;
    if (rule.system_user.pattern) {
        const auto match = rule.system_user.pattern->match(system_user);
        if (!match.matched()) return match.outcome == Pattern::Outcome::Failed ? Fit::Unknown : Fit::No;
        if (const auto at = wanted.text.find("\\1"); at != std::string::npos) {
            if (!match.group) {
                log_warning(
                    "pg_ident.conf line " + std::to_string(rule.line) +
                    ": the regular expression has no subexpressions as requested by backreference \"" +
                    wanted.text + "\"");
                return Fit::Unknown;
            }
            // What came from outside is never a keyword.
            wanted = {wanted.text.replace(at, 2, *match.group), true, nullptr};
        }
    } else if (rule.system_user.text != system_user) {
        return Fit::No;
    }
    // Membership that can't be looked up is none, as in the server where a role isn't there.
    return role_word(wanted, user, facts) == Fit::Yes ? Fit::Yes : Fit::No;
}

}  // namespace

bool ident_matches(const std::vector<IdentRule>& rules, const std::string& map,
                   const std::string& system_user, const std::string& user, const HbaFacts& facts) {
    if (map.empty()) return system_user == user;
    for (const IdentRule& rule : rules) {
        if (rule.map != map) continue;
        const Fit fit = ident_line_fits(rule, system_user, user, facts);
        if (fit != Fit::No) return fit == Fit::Yes;
    }
    return false;
}

AuthRule match_rules(const std::vector<HbaRule>& rules, const ClientAddress& from,
                     const std::string& database, const std::string& user, const HbaFacts& facts) {
    const std::vector<std::uint8_t> client = net::plain_address(from.address);
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
        if (rule.address_kind == HbaAddress::HostName) {
            if (!from.host_name) return {AuthMethod::NeedsHostName, rule.method_name, where};
            if (!from.host_name->confirmed || !host_name_matches(rule.host_name, from.host_name->name))
                continue;
        }
        return {rule.method, rule.method_name, where, rule.client_cert, rule.map, rule.certificate_dn};
    }
    return {AuthMethod::Reject, "reject", "no line of pg_hba.conf matches"};
}

}  // namespace pgxc::pooler
