#pragma once

#include <memory>
#include <string>

#include "net/tls.h"
#include "pooler/environment.h"

namespace pgxc {

/// A setting of the server as SHOW tells it; empty where this version has none of that name.
[[nodiscard]] std::string server_setting(const char* name);

/// TLS towards clients by the server's own ssl_* settings; nullptr with ssl = off. `at_start`: the passphrase
/// command may be run in any case, later only with ssl_passphrase_command_supports_reload.
[[nodiscard]] Result<std::shared_ptr<const net::TlsContext>> read_server_tls(bool at_start);

/// TLS towards nodes by the ssl options of pgxc.node_conninfo; what isn't there is libpq's default: its
/// environment variables, then the files in ~/.postgresql.
[[nodiscard]] pooler::NodeTls read_node_tls(const std::string& conninfo);

}  // namespace pgxc
