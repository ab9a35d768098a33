#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "catalog/node.h"

/// What the statements of the grammar say, one struct for each. Addresses are as they were written: the
/// procedures check them, because how many and of what form depends on the catalog.
namespace pgxc::parser {

/// REGISTER ... SLAVE and CREATE ... SLAVE.
struct RegisterSlave {
    NodeKey node;
    std::vector<std::string> addresses;
    NodeId master;
    Replication replication = Replication::None;  // None: not said, so the master is asked
    friend bool operator==(const RegisterSlave&, const RegisterSlave&) = default;
};

/// REGISTER ... MASTER.
struct RegisterMaster {
    NodeKey node;
    std::vector<std::string> addresses;
    friend bool operator==(const RegisterMaster&, const RegisterMaster&) = default;
};

/// ALTER ... SLAVE n PROMOTE TO MASTER.
struct PromoteSlave {
    NodeKey node;
    std::optional<std::string> address;  // 'host:port', ':port' or 'host:'
    bool with_restart = false;
    bool force = false;
    friend bool operator==(const PromoteSlave&, const PromoteSlave&) = default;
};

/// ALTER ... SLAVE n REPLICATION TO ...
struct SetSlaveReplication {
    NodeKey node;
    Replication replication = Replication::Asynchronous;
    friend bool operator==(const SetSlaveReplication&, const SetSlaveReplication&) = default;
};

/// ALTER ... SLAVE n ID TO k.
struct SetSlaveId {
    NodeKey node;
    NodeId new_id;
    friend bool operator==(const SetSlaveId&, const SetSlaveId&) = default;
};

/// ALTER ... SLAVE n ON MASTER m.
struct SetSlaveMaster {
    NodeKey node;
    NodeId master;
    friend bool operator==(const SetSlaveMaster&, const SetSlaveMaster&) = default;
};

/// DROP ... SLAVE n and UNREGISTER ... SLAVE n.
struct DropSlave {
    NodeKey node;
    friend bool operator==(const DropSlave&, const DropSlave&) = default;
};

/// DROP ... MASTER n and UNREGISTER ... MASTER n.
struct DropMaster {
    NodeKey node;
    friend bool operator==(const DropMaster&, const DropMaster&) = default;
};

using Action = std::variant<RegisterSlave, RegisterMaster, PromoteSlave, SetSlaveReplication, SetSlaveId,
                            SetSlaveMaster, DropSlave, DropMaster>;

struct Statement {
    Action action;
    /// Where it stands in the text, in bytes, as PostgreSQL's RawStmt has it: from the end of the `;` before
    /// it (0 for the first), with a length of 0 where no `;` follows.
    std::size_t location = 0;
    std::size_t length = 0;
};

}  // namespace pgxc::parser
