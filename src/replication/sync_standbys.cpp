#include "replication/sync_standbys.h"

namespace pgxc {

std::string standby_name(NodeKey slave, Epoch epoch) {
    const char type = slave.type == NodeType::Coordinator ? 'c' : 'd';
    return std::string("pgxc_") + type + "_" + std::to_string(slave.id.value()) + "_e" +
           std::to_string(epoch.value());
}

std::string nobody_name(std::string_view cluster_id) {
    return "pgxc_nobody_" + std::string(cluster_id);
}

std::string synchronous_standby_names(int k, const std::vector<std::string>& names) {
    if (k < 1 || names.empty()) return {};
    std::string text = "ANY " + std::to_string(k) + " (";
    for (std::size_t i = 0; i < names.size(); ++i) text += (i == 0 ? "" : ", ") + names[i];
    return text + ")";
}

std::string nobody_standby_names(std::string_view cluster_id) {
    return synchronous_standby_names(1, {nobody_name(cluster_id)});
}

}  // namespace pgxc
