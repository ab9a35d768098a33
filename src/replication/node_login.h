#pragma once

#include <string>

namespace pgxc {

/// How a coordinator logs in to a node for control: pgxc.node_user, pgxc.node_database, pgxc.node_conninfo.
struct NodeLogin {
    std::string user = "postgres";
    std::string database = "postgres";
    std::string conninfo;  // more libpq options; never host, port, user or dbname
};

}  // namespace pgxc
