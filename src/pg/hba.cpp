#include "pg/hba.h"

#include <ifaddrs.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <memory>

#include "base/log.h"
#include "pg/auth_pattern.h"
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
using pooler::ClientCert;
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
        case uaPassword:
            return AuthMethod::Password;
        case uaCert:
            return AuthMethod::Cert;
        case uaPeer:
            return AuthMethod::Peer;
        default:
            return AuthMethod::Unsupported;
    }
}

ClientCert client_cert_of(const HbaLine& line) {
    switch (line.clientcert) {
        case clientCertOff:
            return ClientCert::NotAsked;
        case clientCertCA:
            return ClientCert::VerifyCa;
        case clientCertFull:
            break;
    }
    return ClientCert::VerifyFull;
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

Result<HbaToken> to_token(const char* text, bool quoted, bool is_pattern) {
    HbaToken token{text, quoted, nullptr};
    if (!is_pattern) return token;
    auto pattern = make_auth_pattern(token.text.substr(1));
    if (!pattern) return pattern.error();
    token.pattern = std::move(*pattern);
    return token;
}

Result<std::vector<HbaToken>> tokens_of(const List* list) {
    std::vector<HbaToken> tokens;
    const ListCell* cell = nullptr;
    foreach (cell, list) {
        const auto* word = static_cast<const AuthToken*>(lfirst(cell));
        auto token = to_token(word->string, word->quoted, compat::is_regular_expression(word));
        if (!token) return token.error();
        tokens.push_back(std::move(*token));
    }
    return tokens;
}

Result<HbaRule> to_rule(const HbaLine& line) {
    HbaRule rule;
    rule.line = line.linenumber;
    rule.connection = connection_of(line.conntype);
    auto databases = tokens_of(line.databases);
    if (!databases) return databases.error();
    auto roles = tokens_of(line.roles);
    if (!roles) return roles.error();
    rule.databases = std::move(*databases);
    rule.roles = std::move(*roles);
    rule.address_kind = address_kind_of(line);
    if (rule.address_kind == HbaAddress::HostName) rule.host_name = line.hostname;
    if (rule.address_kind == HbaAddress::Netmask) {
        rule.address = address_bytes(reinterpret_cast<const sockaddr*>(&line.addr));
        rule.mask = address_bytes(reinterpret_cast<const sockaddr*>(&line.mask));
    }
    rule.method = method_of(line);
    rule.method_name = hba_authname(line.auth_method);
    rule.client_cert = client_cert_of(line);
    rule.certificate_dn = line.clientcertname == clientCertDN;
    if (line.usermap != nullptr) rule.map = line.usermap;
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

/// A memory context that goes with the scope.
class ScratchContext {
  public:
    ScratchContext() {
        const auto made = pg_call([] {
            return AllocSetContextCreate(TopMemoryContext, "pgxc_ha auth files", ALLOCSET_SMALL_SIZES);
        });
        if (made) context_ = *made;
    }
    ~ScratchContext() {
        MemoryContext const owned = context_;
        if (owned != nullptr) (void)pg_call([owned] { MemoryContextDelete(owned); });
    }
    ScratchContext(const ScratchContext&) = delete;
    ScratchContext& operator=(const ScratchContext&) = delete;

    /// Runs server code with this as the current context.
    template <class Body>
    auto call(Body body) const {
        MemoryContext const context = context_;
        return pg_call([context, body] {
            if (context == nullptr) ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
            MemoryContext const before = MemoryContextSwitchTo(context);
            auto result = body();
            MemoryContextSwitchTo(before);
            return result;
        });
    }

  private:
    MemoryContext context_ = nullptr;
};

/// A line of pg_ident.conf as plain pointers.
struct IdentWords {
    int line;
    const char* map;
    const AuthToken* system_user;
    const AuthToken* user;
};
struct IdentFile {
    IdentWords* lines;
    int count;
    int bad_line;  // 0 = none
    const char* why;
};

/// parse_ident_line() without its regular expressions, whose memory would be lost here.
IdentFile tokenize_ident_file() {
    IdentFile file{};
    List* tokenized = NIL;
    compat::tokenize_hba_file(IdentFileName, &tokenized);
    file.lines = static_cast<IdentWords*>(palloc0(sizeof(IdentWords) * (list_length(tokenized) + 1)));
    ListCell* cell = nullptr;
    foreach (cell, tokenized) {
        const auto* line = static_cast<const TokenizedAuthLine*>(lfirst(cell));
        file.bad_line = line->line_num;
        file.why = line->err_msg;
        if (file.why != nullptr) return file;
        file.why = "a line has a map, a system user and a role";
        if (list_length(line->fields) < 3) return file;
        const AuthToken* words[3];
        for (int i = 0; i < 3; ++i) {
            const auto* field = static_cast<const List*>(list_nth(line->fields, i));
            file.why = "multiple values in ident field";
            if (list_length(field) != 1) return file;
            words[i] = static_cast<const AuthToken*>(linitial(field));
        }
        file.lines[file.count++] = {line->line_num, words[0]->string, words[1], words[2]};
    }
    file.bad_line = 0;
    return file;
}

Error bad_line(const char* file, int line, const std::string& why) {
    return {sqlstate::config_file_error, std::string(file) + " line " + std::to_string(line) + ": " + why};
}

}  // namespace

Result<std::vector<HbaRule>> read_hba_file() {
    const ScratchContext scratch;
    const auto parsed = scratch.call([] { return parse_file(); });
    if (!parsed) return parsed.error();
    if (parsed->bad_line != 0) return bad_line("pg_hba.conf", parsed->bad_line, parsed->why);
    if (parsed->count == 0) return Error{sqlstate::config_file_error, "pg_hba.conf contains no entries"};
    std::vector<HbaRule> rules;
    rules.reserve(static_cast<std::size_t>(parsed->count));
    for (int i = 0; i < parsed->count; ++i) {
        auto rule = to_rule(*parsed->lines[i]);
        if (!rule) return bad_line("pg_hba.conf", parsed->lines[i]->linenumber, rule.error().message);
        rules.push_back(std::move(*rule));
    }
    return rules;
}

Result<std::vector<pooler::IdentRule>> read_ident_file() {
    const ScratchContext scratch;
    const auto file = scratch.call([] { return tokenize_ident_file(); });
    if (!file) return file.error();
    if (file->bad_line != 0) return bad_line("pg_ident.conf", file->bad_line, file->why);
    std::vector<pooler::IdentRule> rules;
    for (int i = 0; i < file->count; ++i) {
        const IdentWords& words = file->lines[i];
        auto system_user = to_token(words.system_user->string, words.system_user->quoted,
                                    words.system_user->string[0] == '/');
        if (!system_user) return bad_line("pg_ident.conf", words.line, system_user.error().message);
        const bool literal =
            !compat::ident_role_may_be_keyword() || strstr(words.user->string, "\\1") != nullptr;
        auto user = to_token(words.user->string, words.user->quoted || literal,
                             !literal && words.user->string[0] == '/');
        if (!user) return bad_line("pg_ident.conf", words.line, user.error().message);
        rules.push_back({words.line, words.map, std::move(*system_user), std::move(*user)});
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
        if (!asked) {
            log_warning("could not look up the membership of role " + user + ": " + asked.error().message);
            return std::nullopt;
        }
        return member;
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
