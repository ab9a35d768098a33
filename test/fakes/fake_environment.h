#pragma once

#include <sys/random.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pooler/environment.h"

namespace pgxc::pooler {

/// A server for the pooler to live in, all of whose answers a test sets.
class FakeEnvironment : public Environment {
  public:
    struct Report {
        NodeKey node;
        Epoch epoch;
        TrafficFailure failure;
    };

    Settings settings_now;
    std::shared_ptr<const ClusterView> view = std::make_shared<ClusterView>();
    std::function<AuthRule(const std::string& database, const std::string& user)> hba;
    std::map<std::string, RoleInfo> roles;
    std::vector<Report> reports;
    std::vector<PoolRow> pools;
    std::vector<ClientRow> clients;
    std::vector<ServerRow> servers;
    std::vector<PoolStatsRow> statistics;
    std::uint64_t resets = 0;
    int index = 0;
    StatementClassifier* classifier_now = nullptr;
    NodeTls node_tls_now;
    std::map<NodeKey, std::uint32_t> in_use;
    std::vector<std::pair<NodeKey, std::string>> left;  // what other workers were asked to leave

    /// A datanode that is its group's open master at that address.
    static NodeView master(int id, const std::string& host, std::uint16_t port, int epoch = 1,
                           Gate gate = Gate::Open) {
        NodeView node;
        node.node.key = {NodeType::Datanode, NodeId{id}};
        node.node.address = {host, port};
        node.node.epoch = Epoch{epoch};
        node.state = NodeState::Up;
        node.role_seen = RoleSeen::Master;
        node.gate = gate;
        return node;
    }
    static NodeView slave(int id, int master_id, const std::string& host, std::uint16_t port) {
        NodeView node;
        node.node.key = {NodeType::Datanode, NodeId{id}};
        node.node.address = {host, port};
        node.node.master_id = NodeId{master_id};
        node.node.replication = Replication::Synchronous;
        node.state = NodeState::Up;
        node.role_seen = RoleSeen::Slave;
        node.may_read = true;
        node.lag_bytes = 0;
        return node;
    }
    void show(std::vector<NodeView> nodes) {
        auto next = std::make_shared<ClusterView>();
        next->generation = Generation{view->generation.value() + 1};
        next->nodes = std::move(nodes);
        view = std::move(next);
    }

    std::shared_ptr<const ClusterView> current() override { return view; }
    void report(NodeKey node, Epoch epoch, TrafficFailure failure) override {
        reports.push_back({node, epoch, failure});
    }
    void publish(const std::vector<PoolRow>& pool_rows, const std::vector<ClientRow>& client_rows) override {
        pools = pool_rows;
        clients = client_rows;
    }
    StatementClassifier* classifier() override { return classifier_now; }
    void report_in_use(NodeKey group, std::uint32_t transactions) override { in_use[group] = transactions; }
    void leave_database(NodeKey node, const std::string& database) override {
        left.emplace_back(node, database);
    }
    void publish_statistics(const std::vector<ServerRow>& server_rows,
                            const std::vector<PoolStatsRow>& pool_rows) override {
        servers = server_rows;
        statistics = pool_rows;
    }
    std::uint64_t statistics_resets() const override { return resets; }
    const Settings& settings() const override { return settings_now; }
    int worker_index() const override { return index; }
    AuthRule match_hba(const ClientAddress&, const std::string& database, const std::string& user) override {
        return hba ? hba(database, user) : AuthRule{AuthMethod::Trust, "trust", "pg_hba.conf line 1"};
    }
    NodeTls node_tls() override { return node_tls_now; }
    Result<RoleInfo> role(const std::string& user) override {
        if (roles.empty()) return RoleInfo{true, true, std::nullopt};
        const auto found = roles.find(user);
        return found == roles.end() ? RoleInfo{} : found->second;
    }
    std::string mock_nonce() override { return std::string(32, 'm'); }
    bool strong_random(std::uint8_t* out, std::size_t bytes) override {
        return ::getrandom(out, bytes, 0) == static_cast<ssize_t>(bytes);
    }
    std::optional<std::string> saslprep(const std::string& text) override { return text; }
    std::vector<std::pair<std::string, std::string>> default_parameters() override {
        return {{"server_version", "15.0"}};
    }
};

}  // namespace pgxc::pooler
