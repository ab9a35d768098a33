#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pg/guc.h"
#include "pg/shared_state.h"
#include "pg/statement_classifier.h"
#include "pooler/environment.h"
#include "pooler/hba_rules.h"

namespace pgxc {

[[nodiscard]] pooler::ReadRouting routing_of(guc::Routing routing);

/// What the pooler asks of the server it lives in. One per pooler process, used from its loop only.
class PoolerEnvironment final : public pooler::Environment {
  public:
    explicit PoolerEnvironment(int worker);

    /// Reads settings, pg_hba.conf, pg_ident.conf and the certificates again. Where one of the files has an
    /// error, what was read of it before stays in force.
    void reload();

    [[nodiscard]] const pooler::Settings& settings() const override { return settings_; }
    [[nodiscard]] int worker_index() const override { return worker_; }
    [[nodiscard]] pooler::AuthRule match_hba(const pooler::ClientAddress& from, const std::string& database,
                                             const std::string& user) override;
    [[nodiscard]] bool maps_to(const std::string& map, const std::string& system_user,
                               const std::string& user) override;
    [[nodiscard]] std::shared_ptr<const net::TlsContext> tls() override { return tls_; }
    [[nodiscard]] pooler::NodeTls node_tls() override { return node_tls_; }
    [[nodiscard]] Result<pooler::RoleInfo> role(const std::string& user) override;
    [[nodiscard]] std::string mock_nonce() override;
    [[nodiscard]] bool strong_random(std::uint8_t* out, std::size_t bytes) override;
    [[nodiscard]] std::optional<std::string> saslprep(const std::string& text) override;
    [[nodiscard]] std::vector<std::pair<std::string, std::string>> default_parameters() override;

    [[nodiscard]] std::shared_ptr<const ClusterView> current() override { return view_.current(); }
    void view_taken(Generation generation) override { note_view_taken(worker_, generation); }
    [[nodiscard]] pooler::StatementClassifier* classifier() override { return classifier_.get(); }
    [[nodiscard]] pooler::CausalRecord* causal_record(NodeKey group) override {
        return shared_causal_record(group);
    }
    void report_in_use(NodeKey group, std::uint32_t transactions) override {
        report_group_in_use(worker_, group, transactions);
    }
    void leave_database(NodeKey node, const std::string& database) override {
        ask_poolers_to_leave_database(worker_, node, database);
    }
    void report(NodeKey node, Epoch epoch, TrafficFailure failure) override {
        report_traffic_failure(node, epoch, failure);
    }
    void publish(const std::vector<pooler::PoolRow>& pools,
                 const std::vector<pooler::ClientRow>& clients) override {
        publish_pooler_rows(worker_, pools, clients);
    }
    void publish_statistics(const std::vector<pooler::ServerRow>& servers,
                            const std::vector<pooler::PoolStatsRow>& pools) override {
        publish_pooler_statistics(worker_, servers, pools, resets_seen_);
    }
    [[nodiscard]] std::uint64_t statistics_resets() const override {
        return resets_seen_ = pooler_statistics_resets();
    }

  private:
    void read_settings();
    void read_rules();
    void read_tls();

    int worker_;
    int most_clients_;  // pgxc.max_client_connections, less where the limit of open files is too low for it
    pooler::Settings settings_;
    std::vector<pooler::HbaRule> rules_;
    std::vector<pooler::IdentRule> ident_rules_;
    std::shared_ptr<const net::TlsContext> tls_;
    pooler::NodeTls node_tls_;
    bool started_ = false;
    mutable std::uint64_t resets_seen_ = 0;
    pooler::HbaFacts facts_;
    SharedClusterView view_;
    std::unique_ptr<pooler::StatementClassifier> classifier_;
    std::string encoding_;  // of pgxc.database: what a client is told before its first server connection
};

}  // namespace pgxc
