#include "pooler/hba_rules.h"

#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>

namespace pgxc::pooler {
namespace {

using Bytes = std::vector<std::uint8_t>;

HbaRule rule(int line, HbaConnection connection, const std::string& database, const std::string& role,
             AuthMethod method) {
    HbaRule made;
    made.line = line;
    made.connection = connection;
    made.databases = {{database, false}};
    made.roles = {{role, false}};
    made.method = method;
    made.method_name = method == AuthMethod::Trust    ? "trust"
                       : method == AuthMethod::Reject ? "reject"
                                                      : "scram-sha-256";
    return made;
}

HbaRule host(int line, Bytes address, Bytes mask, AuthMethod method) {
    HbaRule made = rule(line, HbaConnection::Host, "all", "all", method);
    made.address_kind = HbaAddress::Netmask;
    made.address = std::move(address);
    made.mask = std::move(mask);
    return made;
}

ClientAddress tcp(Bytes address, bool tls = false) {
    ClientAddress from;
    from.address = std::move(address);
    from.port = 40000;
    from.tls = tls;
    return from;
}

ClientAddress local() {
    ClientAddress from;
    from.is_unix = true;
    return from;
}

/// Members by role; no interfaces.
HbaFacts facts(std::map<std::string, std::set<std::string>> members = {}) {
    HbaFacts made;
    made.is_member = [members](const std::string& user, const std::string& role) -> std::optional<bool> {
        const auto at = members.find(role);
        return user == role || (at != members.end() && at->second.contains(user));
    };
    made.interfaces = [] { return std::vector<InterfaceAddress>{{{10, 1, 2, 3}, {255, 255, 0, 0}}}; };
    return made;
}

const Bytes loopback = {127, 0, 0, 1};
const Bytes all_ones = {255, 255, 255, 255};

TEST(HbaRules, NothingMatchesNothing) {
    const AuthRule found = match_rules({}, local(), "db", "me", facts());
    EXPECT_EQ(found.method, AuthMethod::Reject);
    EXPECT_EQ(found.where, "no line of pg_hba.conf matches");
}

TEST(HbaRules, TheFirstLineThatMatchesDecides) {
    const std::vector<HbaRule> rules = {host(3, loopback, all_ones, AuthMethod::Reject),
                                        host(4, {127, 0, 0, 0}, {255, 0, 0, 0}, AuthMethod::Trust)};
    EXPECT_EQ(match_rules(rules, tcp(loopback), "db", "me", facts()).where, "pg_hba.conf line 3");
    const AuthRule second = match_rules(rules, tcp({127, 0, 0, 2}), "db", "me", facts());
    EXPECT_EQ(second.where, "pg_hba.conf line 4");
    EXPECT_EQ(second.method, AuthMethod::Trust);
    EXPECT_EQ(second.method_name, "trust");
    EXPECT_EQ(match_rules(rules, tcp({128, 0, 0, 1}), "db", "me", facts()).method, AuthMethod::Reject);
}

TEST(HbaRules, LocalAndHostLinesDontMix) {
    const std::vector<HbaRule> rules = {rule(1, HbaConnection::Local, "all", "all", AuthMethod::Trust)};
    EXPECT_EQ(match_rules(rules, local(), "db", "me", facts()).method, AuthMethod::Trust);
    EXPECT_EQ(match_rules(rules, tcp(loopback), "db", "me", facts()).method, AuthMethod::Reject);
    const std::vector<HbaRule> any = {rule(1, HbaConnection::Host, "all", "all", AuthMethod::Trust)};
    EXPECT_EQ(match_rules(any, local(), "db", "me", facts()).method, AuthMethod::Reject);
    EXPECT_EQ(match_rules(any, tcp({8, 8, 8, 8}), "db", "me", facts()).method, AuthMethod::Trust);
}

TEST(HbaRules, TlsDecidesBetweenHostsslAndHostnossl) {
    const std::vector<HbaRule> rules = {
        rule(1, HbaConnection::HostSsl, "all", "all", AuthMethod::ScramSha256),
        rule(2, HbaConnection::HostGss, "all", "all", AuthMethod::Trust),
        rule(3, HbaConnection::HostNoSsl, "all", "all", AuthMethod::Reject)};
    EXPECT_EQ(match_rules(rules, tcp(loopback, true), "db", "me", facts()).where, "pg_hba.conf line 1");
    EXPECT_EQ(match_rules(rules, tcp(loopback, false), "db", "me", facts()).where, "pg_hba.conf line 3");
    const std::vector<HbaRule> no_gss = {rule(1, HbaConnection::HostNoGss, "all", "all", AuthMethod::Trust)};
    EXPECT_EQ(match_rules(no_gss, tcp(loopback, true), "db", "me", facts()).method, AuthMethod::Trust);
}

TEST(HbaRules, Ipv6AndMappedIpv4) {
    Bytes six(16, 0);
    six[15] = 1;
    const std::vector<HbaRule> rules = {host(1, six, Bytes(16, 255), AuthMethod::Trust),
                                        host(2, loopback, all_ones, AuthMethod::ScramSha256)};
    EXPECT_EQ(match_rules(rules, tcp(six), "db", "me", facts()).where, "pg_hba.conf line 1");
    const Bytes mapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 127, 0, 0, 1};
    EXPECT_EQ(match_rules(rules, tcp(mapped), "db", "me", facts()).where, "pg_hba.conf line 2");
    // An IPv4 mask of zero length is no IPv6 network.
    const std::vector<HbaRule> everything = {host(1, {0, 0, 0, 0}, {0, 0, 0, 0}, AuthMethod::Trust)};
    EXPECT_EQ(match_rules(everything, tcp({9, 9, 9, 9}), "db", "me", facts()).method, AuthMethod::Trust);
    EXPECT_EQ(match_rules(everything, tcp(six), "db", "me", facts()).method, AuthMethod::Reject);
    EXPECT_EQ(match_rules(everything, tcp({}), "db", "me", facts()).method, AuthMethod::Reject);
}

TEST(HbaRules, DatabaseWords) {
    const auto method = [](const HbaToken& word, const std::string& database, const std::string& user) {
        HbaRule one = rule(1, HbaConnection::Local, "", "all", AuthMethod::Trust);
        one.databases = {{"other", false}, word};
        return match_rules({one}, local(), database, user, facts({{"app", {"me"}}})).method;
    };
    EXPECT_EQ(method({"app", false}, "app", "me"), AuthMethod::Trust);
    EXPECT_EQ(method({"App", false}, "app", "me"), AuthMethod::Reject);
    EXPECT_EQ(method({"all", false}, "app", "me"), AuthMethod::Trust);
    EXPECT_EQ(method({"all", true}, "app", "me"), AuthMethod::Reject);
    EXPECT_EQ(method({"all", true}, "all", "me"), AuthMethod::Trust);
    EXPECT_EQ(method({"sameuser", false}, "me", "me"), AuthMethod::Trust);
    EXPECT_EQ(method({"sameuser", false}, "app", "me"), AuthMethod::Reject);
    EXPECT_EQ(method({"samerole", false}, "app", "me"), AuthMethod::Trust);
    EXPECT_EQ(method({"samegroup", false}, "app", "you"), AuthMethod::Reject);
    EXPECT_EQ(method({"replication", false}, "replication", "me"), AuthMethod::Reject);
    EXPECT_EQ(method({"replication", true}, "replication", "me"), AuthMethod::Trust);
}

TEST(HbaRules, RoleWords) {
    const auto method = [](const HbaToken& word, const std::string& user) {
        HbaRule one = rule(1, HbaConnection::Local, "all", "", AuthMethod::Trust);
        one.roles = {word};
        return match_rules({one}, local(), "db", user, facts({{"staff", {"me"}}})).method;
    };
    EXPECT_EQ(method({"me", false}, "me"), AuthMethod::Trust);
    EXPECT_EQ(method({"me", false}, "you"), AuthMethod::Reject);
    EXPECT_EQ(method({"+staff", false}, "me"), AuthMethod::Trust);
    EXPECT_EQ(method({"+staff", false}, "staff"), AuthMethod::Trust);
    EXPECT_EQ(method({"+staff", false}, "you"), AuthMethod::Reject);
    EXPECT_EQ(method({"+staff", true}, "me"), AuthMethod::Reject);
    EXPECT_EQ(method({"+staff", true}, "+staff"), AuthMethod::Trust);
    EXPECT_EQ(method({"all", true}, "me"), AuthMethod::Reject);
}

TEST(HbaRules, OwnAddressesAndNetworks) {
    HbaRule same_host = rule(1, HbaConnection::Host, "all", "all", AuthMethod::Trust);
    same_host.address_kind = HbaAddress::SameHost;
    HbaRule same_net = rule(2, HbaConnection::Host, "all", "all", AuthMethod::ScramSha256);
    same_net.address_kind = HbaAddress::SameNet;
    EXPECT_EQ(match_rules({same_host, same_net}, tcp({10, 1, 2, 3}), "db", "me", facts()).where,
              "pg_hba.conf line 1");
    EXPECT_EQ(match_rules({same_host, same_net}, tcp({10, 1, 9, 9}), "db", "me", facts()).where,
              "pg_hba.conf line 2");
    EXPECT_EQ(match_rules({same_host, same_net}, tcp({10, 2, 0, 1}), "db", "me", facts()).method,
              AuthMethod::Reject);
}

TEST(HbaRules, AHostNameIsAskedForOnlyWhereTheLineFits) {
    HbaRule named = rule(1, HbaConnection::Host, "app", "all", AuthMethod::Reject);
    named.address_kind = HbaAddress::HostName;
    named.host_name = "DB.example";
    HbaRule domain = named;
    domain.line = 2;
    domain.host_name = ".example";
    const HbaRule open = rule(3, HbaConnection::Host, "all", "all", AuthMethod::Trust);
    const auto line = [&](const std::string& name, bool confirmed) {
        ClientAddress from = tcp(loopback);
        from.host_name = ClientHostName{name, confirmed};
        return match_rules({named, domain, open}, from, "app", "me", facts()).where;
    };
    EXPECT_EQ(match_rules({named, open}, tcp(loopback), "app", "me", facts()).method,
              AuthMethod::NeedsHostName);
    EXPECT_EQ(match_rules({named, open}, tcp(loopback), "other", "me", facts()).method, AuthMethod::Trust);
    EXPECT_EQ(line("db.EXAMPLE", true), "pg_hba.conf line 1");
    EXPECT_EQ(line("a.example", true), "pg_hba.conf line 2");
    EXPECT_EQ(line("example", true), "pg_hba.conf line 3");
    EXPECT_EQ(line("db.example", false), "pg_hba.conf line 3");
    EXPECT_EQ(line("", false), "pg_hba.conf line 3");
}

TEST(HbaRules, AnInterfaceWithoutAMaskIsANetworkOfItsOwn) {
    HbaRule made = rule(1, HbaConnection::Host, "all", "all", AuthMethod::Trust);
    made.address_kind = HbaAddress::SameNet;
    const auto let_in = [&](const Bytes& mask, const Bytes& client) {
        HbaFacts now = facts();
        now.interfaces = [&] { return std::vector<InterfaceAddress>{{{10, 1, 2, 3}, mask}}; };
        return match_rules({made}, tcp(client), "db", "me", now).method == AuthMethod::Trust;
    };
    EXPECT_TRUE(let_in({255, 255, 0, 0}, {10, 1, 9, 9}));
    for (const Bytes& mask : {Bytes{}, Bytes{0, 0, 0, 0}, Bytes(16, 255)}) {
        EXPECT_TRUE(let_in(mask, {10, 1, 2, 3}));
        EXPECT_FALSE(let_in(mask, {10, 1, 2, 4}));
    }
}

class StdPattern final : public Pattern {
  public:
    explicit StdPattern(const std::string& text) : regex_(text) {}
    Match match(const std::string& text) const override {
        std::smatch found;
        if (!std::regex_search(text, found, regex_)) return {};
        Match made{Outcome::Yes};
        if (found.size() > 1) made.group = found[1].str();
        return made;
    }

  private:
    std::regex regex_;
};

class BrokenPattern final : public Pattern {
  public:
    Match match(const std::string&) const override { return {Outcome::Failed}; }
};

HbaToken pattern(const std::string& text) {
    return {"/" + text, false, std::make_shared<StdPattern>(text)};
}

TEST(HbaRules, RegularExpressionsFitDatabasesAndRoles) {
    HbaRule by_pattern = rule(1, HbaConnection::Local, "all", "all", AuthMethod::Trust);
    by_pattern.databases = {pattern("^app_[0-9]+$")};
    by_pattern.roles = {pattern("^me")};
    EXPECT_EQ(match_rules({by_pattern}, local(), "app_7", "me2", facts()).method, AuthMethod::Trust);
    EXPECT_EQ(match_rules({by_pattern}, local(), "app_x", "me2", facts()).method, AuthMethod::Reject);
    EXPECT_EQ(match_rules({by_pattern}, local(), "app_7", "you", facts()).method, AuthMethod::Reject);
}

TEST(HbaRules, WhatALineAsksBesideItsMethodIsPassedOn) {
    HbaRule by_certificate = rule(1, HbaConnection::HostSsl, "all", "all", AuthMethod::Cert);
    by_certificate.client_cert = ClientCert::VerifyFull;
    by_certificate.map = "people";
    by_certificate.certificate_dn = true;
    const AuthRule found = match_rules({by_certificate}, tcp(loopback, true), "db", "me", facts());
    EXPECT_EQ(found.client_cert, ClientCert::VerifyFull);
    EXPECT_EQ(found.map, "people");
    EXPECT_TRUE(found.certificate_dn);
}

IdentRule ident(const std::string& map, HbaToken system_user, HbaToken user) {
    return {1, map, std::move(system_user), std::move(user)};
}

TEST(IdentRules, WithoutAMapTheNamesMustBeEqual) {
    EXPECT_TRUE(ident_matches({}, "", "me", "me", facts()));
    EXPECT_FALSE(ident_matches({}, "", "Me", "me", facts()));
    EXPECT_FALSE(ident_matches({}, "m", "me", "me", facts()));
}

TEST(IdentRules, AnyLineOfTheMapMayFit) {
    const std::vector<IdentRule> rules = {ident("m", {"root", false}, {"admin", true}),
                                          ident("n", {"root", false}, {"other", true}),
                                          ident("m", {"root", false}, {"me", true})};
    EXPECT_TRUE(ident_matches(rules, "m", "root", "me", facts()));
    EXPECT_TRUE(ident_matches(rules, "m", "root", "admin", facts()));
    EXPECT_FALSE(ident_matches(rules, "m", "root", "other", facts()));
    EXPECT_FALSE(ident_matches(rules, "m", "daemon", "me", facts()));
}

TEST(IdentRules, TheFirstParenthesisReplacesItsReference) {
    const std::vector<IdentRule> rules = {ident("m", pattern("^(.*)@example\\.com$"), {"\\1", true}),
                                          ident("n", pattern("^x$"), {"\\1", true}),
                                          ident("o", pattern("^(.*)$"), {"app_\\1", true})};
    EXPECT_TRUE(ident_matches(rules, "m", "me@example.com", "me", facts()));
    EXPECT_FALSE(ident_matches(rules, "m", "me@example.com", "you", facts()));
    EXPECT_FALSE(ident_matches(rules, "m", "me@elsewhere", "me", facts()));
    EXPECT_FALSE(ident_matches(rules, "n", "x", "x", facts()));
    EXPECT_TRUE(ident_matches(rules, "o", "me", "app_me", facts()));
    // What comes from outside is no keyword.
    EXPECT_FALSE(ident_matches(rules, "m", "all@example.com", "me", facts()));
    EXPECT_FALSE(ident_matches(rules, "m", "+staff@example.com", "me", facts({{"staff", {"me"}}})));
}

TEST(IdentRules, ALineThatFailsEndsTheSearch) {
    const IdentRule me = ident("m", {"root", false}, {"me", true});
    const IdentRule no_group = ident("m", pattern("^root$"), {"\\1", true});
    const IdentRule broken = ident("m", {"/x", false, std::make_shared<BrokenPattern>()}, {"you", true});
    const IdentRule elsewhere = ident("n", {"/x", false, std::make_shared<BrokenPattern>()}, {"you", true});
    EXPECT_FALSE(ident_matches({no_group, me}, "m", "root", "me", facts()));
    EXPECT_FALSE(ident_matches({broken, me}, "m", "root", "me", facts()));
    EXPECT_TRUE(ident_matches({me, broken, no_group}, "m", "root", "me", facts()));
    EXPECT_TRUE(ident_matches({elsewhere, me}, "m", "root", "me", facts()));
}

TEST(IdentRules, FromVersion16OnTheRoleMayBeAKeyword) {
    const std::vector<IdentRule> rules = {ident("a", {"root", false}, {"all", false}),
                                          ident("s", {"root", false}, {"+staff", false})};
    EXPECT_TRUE(ident_matches(rules, "a", "root", "anybody", facts()));
    EXPECT_TRUE(ident_matches(rules, "s", "root", "me", facts({{"staff", {"me"}}})));
    EXPECT_FALSE(ident_matches(rules, "s", "root", "you", facts({{"staff", {"me"}}})));
}

TEST(HbaRules, AnUnknownMembershipLetsNobodyPast) {
    const HbaRule banned = rule(1, HbaConnection::Local, "all", "+banned", AuthMethod::Reject);
    const HbaRule open = rule(2, HbaConnection::Local, "all", "all", AuthMethod::Trust);
    HbaFacts blind = facts();
    blind.is_member = [](const std::string&, const std::string&) { return std::optional<bool>{}; };
    EXPECT_EQ(match_rules({banned, open}, local(), "db", "me", blind).method, AuthMethod::Unsupported);
    // Another word of the same line that fits decides without the catalog.
    HbaRule both = banned;
    both.roles.push_back({"me", false});
    EXPECT_EQ(match_rules({both, open}, local(), "db", "me", blind).method, AuthMethod::Reject);
}

TEST(HbaRules, TheCatalogIsAskedOnlyWhereItMatters) {
    HbaFacts strict = facts();
    strict.is_member = [](const std::string&, const std::string&) -> std::optional<bool> {
        ADD_FAILURE() << "asked for a membership that no matching line needs";
        return std::nullopt;
    };
    const std::vector<HbaRule> rules = {rule(1, HbaConnection::Local, "all", "+staff", AuthMethod::Reject),
                                        rule(2, HbaConnection::Host, "other", "+staff", AuthMethod::Reject),
                                        rule(3, HbaConnection::Host, "all", "all", AuthMethod::Trust)};
    EXPECT_EQ(match_rules(rules, tcp(loopback), "db", "me", strict).where, "pg_hba.conf line 3");
}

}  // namespace
}  // namespace pgxc::pooler
