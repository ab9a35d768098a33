#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pooler/environment.h"

/// The matching of pg_hba.conf, as hba.c:check_hba() does it, over lines that the server's own parser has
/// read.
namespace pgxc::pooler {

/// The first word of a line.
enum class HbaConnection : std::uint8_t { Local, Host, HostSsl, HostNoSsl, HostGss, HostNoGss };

/// What the address column asks.
enum class HbaAddress : std::uint8_t {
    Any,       // all, or a local line
    Netmask,   // address and mask
    SameHost,  // one of this host's own addresses
    SameNet,   // any network that this host is in
    HostName,  // a name, or ".domain" for all names in it
};

/// A regular expression, compiled by the server's own engine.
class Pattern {
  public:
    enum class Outcome : std::uint8_t {
        No,
        Yes,
        Failed,  // it could not be found out
    };
    struct Match {
        Outcome outcome = Outcome::No;
        std::optional<std::string> group{};  // what its first parenthesis stands for
        [[nodiscard]] bool matched() const { return outcome == Outcome::Yes; }
    };
    virtual ~Pattern() = default;
    [[nodiscard]] virtual Match match(const std::string& text) const = 0;
};

struct HbaToken {
    std::string text;
    bool quoted = false;                       // a quoted word is never a keyword
    std::shared_ptr<const Pattern> pattern{};  // a word that begins with a slash
};

struct HbaRule {
    int line = 0;
    HbaConnection connection = HbaConnection::Local;
    std::vector<HbaToken> databases;
    std::vector<HbaToken> roles;
    HbaAddress address_kind = HbaAddress::Any;
    std::vector<std::uint8_t> address;  // 4 or 16 bytes, network order
    std::vector<std::uint8_t> mask;     // as long as address
    AuthMethod method = AuthMethod::Reject;
    std::string method_name;
    std::string host_name;  // for HbaAddress::HostName
    ClientCert client_cert = ClientCert::NotAsked;
    std::string map;
    bool certificate_dn = false;
};

/// A line of pg_ident.conf.
struct IdentRule {
    int line = 0;
    std::string map;
    HbaToken system_user;
    HbaToken user;  // before 16 never a keyword: quoted
};

/// An address of this host with its netmask.
struct InterfaceAddress {
    std::vector<std::uint8_t> address;
    std::vector<std::uint8_t> mask;
};

/// What matching needs to know beyond the file; asked only when a line makes it necessary.
struct HbaFacts {
    /// Is `user` a member of `role`, directly or not, or the same? False where either doesn't exist; nullopt
    /// where the catalog could not be asked: then whom the rest of the line fits is refused.
    std::function<std::optional<bool>(const std::string& user, const std::string& role)> is_member;
    std::function<std::vector<InterfaceAddress>()> interfaces;
};

/// The first rule that matches, or the implicit reject. NeedsHostName if that depends on the client's host
/// name, which `from` doesn't have yet.
[[nodiscard]] AuthRule match_rules(const std::vector<HbaRule>& rules, const ClientAddress& from,
                                   const std::string& database, const std::string& user,
                                   const HbaFacts& facts);

/// Does a line of that map (check_usermap) let the system user be the role? An empty map: if both are the
/// same. A line whose regular expression fails ends the search: nobody is let in.
[[nodiscard]] bool ident_matches(const std::vector<IdentRule>& rules, const std::string& map,
                                 const std::string& system_user, const std::string& user,
                                 const HbaFacts& facts);

}  // namespace pgxc::pooler
