#include "pg/hba.h"

#include <ifaddrs.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <memory>

#include "base/log.h"
#include "pg/boundary.h"
#include "pg/pg_compat.h"

extern "C" {
#include "libpq/hba.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/memutils.h"
}

namespace pgxc {
namespace {

using pooler::AuthMethod;
using pooler::HbaAddress;
using pooler::HbaConnection;
using pooler::HbaRule;
using pooler::HbaToken;

std::vector<std::uint8_t> address_bytes(const sockaddr* address) {
    if (address == nullptr) return {};
    if (address->sa_family == AF_INET) {
        const auto* bytes =
            reinterpret_cast<const std::uint8_t*>(&reinterpret_cast<const sockaddr_in*>(address)->sin_addr);
        return {bytes, bytes + 4};
    }
    if (address->sa_family == AF_INET6) {
        const auto* bytes =
            reinterpret_cast<const std::uint8_t*>(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
        return {bytes, bytes + 16};
    }
    return {};
}

HbaConnection connection_of(ConnType type) {
    switch (type) {
        case ctLocal:
            return HbaConnection::Local;
        case ctHost:
            return HbaConnection::Host;
        case ctHostSSL:
            return HbaConnection::HostSsl;
        case ctHostNoSSL:
            return HbaConnection::HostNoSsl;
        case ctHostGSS:
            return HbaConnection::HostGss;
        case ctHostNoGSS:
            return HbaConnection::HostNoGss;
    }
    return HbaConnection::HostGss;
}

AuthMethod method_of(const HbaLine& line) {
    // A client certificate that is asked for beside the method would go unchecked.
    if (line.clientcert != clientCertOff) return AuthMethod::Unsupported;
    switch (line.auth_method) {
        case uaTrust:
            return AuthMethod::Trust;
        case uaReject:
        case uaImplicitReject:
            return AuthMethod::Reject;
        case uaSCRAM:
            return AuthMethod::ScramSha256;
        case uaMD5:
            return AuthMethod::Md5;
        default:
            return AuthMethod::Unsupported;
    }
}

HbaAddress address_kind_of(const HbaLine& line) {
    if (line.conntype == ctLocal) return HbaAddress::Any;
    switch (line.ip_cmp_method) {
        case ipCmpMask:
            return line.hostname != nullptr ? HbaAddress::HostName : HbaAddress::Netmask;
        case ipCmpSameHost:
            return HbaAddress::SameHost;
        case ipCmpSameNet:
            return HbaAddress::SameNet;
        case ipCmpAll:
            return HbaAddress::Any;
    }
    return HbaAddress::HostName;
}

std::vector<HbaToken> tokens_of(const List* list, std::string* beyond_us) {
    std::vector<HbaToken> tokens;
    const ListCell* cell = nullptr;
    foreach (cell, list) {
        const auto* token = static_cast<const AuthToken*>(lfirst(cell));
        if (compat::is_regular_expression(token)) *beyond_us = "a regular expression";
        tokens.push_back({token->string, token->quoted});
    }
    return tokens;
}

HbaRule to_rule(const HbaLine& line) {
    HbaRule rule;
    rule.line = line.linenumber;
    rule.connection = connection_of(line.conntype);
    rule.databases = tokens_of(line.databases, &rule.beyond_us);
    rule.roles = tokens_of(line.roles, &rule.beyond_us);
    rule.address_kind = address_kind_of(line);
    if (rule.address_kind == HbaAddress::HostName)
        rule.beyond_us = std::string("the host name ") + line.hostname;
    if (rule.address_kind == HbaAddress::Netmask) {
        rule.address = address_bytes(reinterpret_cast<const sockaddr*>(&line.addr));
        rule.mask = address_bytes(reinterpret_cast<const sockaddr*>(&line.mask));
    }
    rule.method = method_of(line);
    rule.method_name = hba_authname(line.auth_method);
    if (line.clientcert != clientCertOff) rule.method_name += " with clientcert";
    // The words of a line that can't be judged are judged as fitting everybody.
    if (rule.beyond_us == "a regular expression") rule.databases = rule.roles = {{"all", false}};
    return rule;
}

struct ParsedFile {
    HbaLine** lines;
    int count;
    int bad_line;  // 0 = none
    const char* why;
};

/// Parses into the current memory context. Errors of single lines are told in the result.
ParsedFile parse_file() {
    ParsedFile parsed{};
    List* tokenized = NIL;
    compat::tokenize_hba_file(HbaFileName, &tokenized);
    parsed.lines = static_cast<HbaLine**>(palloc0(sizeof(HbaLine*) * (list_length(tokenized) + 1)));
    ListCell* cell = nullptr;
    foreach (cell, tokenized) {
        auto* line = static_cast<TokenizedAuthLine*>(lfirst(cell));
        // The postmaster complains of the same line at the same level as it reloads: DEBUG1 keeps us from
        // doing so twice.
        HbaLine* rule = line->err_msg == nullptr ? parse_hba_line(line, DEBUG1) : nullptr;
        if (rule == nullptr) {
            parsed.bad_line = line->line_num;
            parsed.why = line->err_msg != nullptr ? line->err_msg : "it can't be parsed";
            return parsed;
        }
        parsed.lines[parsed.count++] = rule;
    }
    return parsed;
}

}  // namespace

Result<std::vector<HbaRule>> read_hba_file() {
    const auto made = pg_call(
        [] { return AllocSetContextCreate(TopMemoryContext, "pgxc_ha pg_hba.conf", ALLOCSET_SMALL_SIZES); });
    if (!made) return made.error();
    MemoryContext const context = *made;
    const auto release = [](MemoryContext owned) { (void)pg_call([owned] { MemoryContextDelete(owned); }); };
    const std::unique_ptr<std::remove_pointer_t<MemoryContext>, decltype(release)> guard(context, release);

    const auto parsed = pg_call([context] {
        MemoryContext const before = MemoryContextSwitchTo(context);
        const ParsedFile file = parse_file();
        MemoryContextSwitchTo(before);
        return file;
    });
    if (!parsed) return parsed.error();
    if (parsed->bad_line != 0)
        return Error{sqlstate::config_file_error,
                     "pg_hba.conf line " + std::to_string(parsed->bad_line) + ": " + parsed->why};
    if (parsed->count == 0) return Error{sqlstate::config_file_error, "pg_hba.conf contains no entries"};

    std::vector<HbaRule> rules;
    rules.reserve(static_cast<std::size_t>(parsed->count));
    for (int i = 0; i < parsed->count; ++i) {
        rules.push_back(to_rule(*parsed->lines[i]));
        if (const HbaRule& rule = rules.back(); !rule.beyond_us.empty())
            log_warning("pg_hba.conf line " + std::to_string(rule.line) + " has " + rule.beyond_us +
                        ": the pooler can't judge that and refuses whomever the rest of the line fits");
    }
    return rules;
}

pooler::HbaFacts server_hba_facts() {
    pooler::HbaFacts facts;
    facts.is_member = [](const std::string& user, const std::string& role) -> std::optional<bool> {
        bool member = false;
        const char* user_name = user.c_str();
        const char* role_name = role.c_str();
        const Status asked = in_transaction([&] {
            return pg_call([&member, user_name, role_name] {
                const Oid user_id = get_role_oid(user_name, true);
                const Oid role_id = get_role_oid(role_name, true);
                // A superuser is not taken for a member of everything: else "+banned ... reject" would catch
                // them all.
                member =
                    OidIsValid(user_id) && OidIsValid(role_id) && is_member_of_role_nosuper(user_id, role_id);
            });
        });
        if (!asked)
            log_warning("could not look up the membership of role " + user + ": " + asked.error().message);
        return asked.ok() && member;
    };
    facts.interfaces = [] {
        std::vector<pooler::InterfaceAddress> found;
        ifaddrs* list = nullptr;
        if (::getifaddrs(&list) != 0) {
            log_warning("could not list the network interfaces");
            return found;
        }
        const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> guard(list, ::freeifaddrs);
        for (const ifaddrs* at = list; at != nullptr; at = at->ifa_next) {
            auto address = address_bytes(at->ifa_addr);
            if (!address.empty()) found.push_back({std::move(address), address_bytes(at->ifa_netmask)});
        }
        return found;
    };
    return facts;
}

}  // namespace pgxc
