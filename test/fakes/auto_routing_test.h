#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fakes/pooler_test.h"
#include "pooler/statement_class.h"

namespace pgxc::pooler {

/// Knows statements by their first word.
class FirstWord final : public StatementClassifier {
  public:
    Classification classify(std::string_view sql, const SqlDialect& dialect) override {
        ++asked;
        strings = dialect.standard_conforming_strings;
        if (sql.find("; ") != std::string_view::npos) return {StatementClass::Unknown, "several"};
        if (sql.starts_with("select now")) return {StatementClass::ReadWithTime, "time"};
        if (sql.starts_with("select")) return {StatementClass::Read, "reads"};
        if (sql.starts_with("begin isolation")) return {StatementClass::MasterOnly, "strict"};
        if (sql.starts_with("begin") || sql.starts_with("start")) return {StatementClass::Begin, "begins"};
        if (sql.starts_with("commit") || sql.starts_with("rollback")) return {StatementClass::End, "ends"};
        if (sql.starts_with("insert")) return {StatementClass::Write, "writes"};
        return {StatementClass::Unknown, "unknown"};
    }
    int asked = 0;
    bool strings = true;
};

using Queries = std::vector<std::string>;

/// Clients with pgxc.read_routing = auto of a pooler in front of a master and a slave.
class AutoRoutingTest : public PoolerTest {
  protected:
    void SetUp() override {
        auto& settings = environment.settings_now;
        settings.failover_hold = Millis{2000};
        settings.read_routing = ReadRouting::Auto;
        environment.classifier_now = &classifier;
        slave.in_recovery = true;
        show();
    }
    void show(bool paused = false, int epoch = 1) {
        NodeView of_master = master_at(master, epoch);
        of_master.paused = paused;
        PoolerTest::show({of_master, slave_at(slave)});
    }
    /// So that it is known what sessions begin with, and where the master is.
    std::unique_ptr<fakes::Client> login_known() {
        auto client = login();
        run(*client, "begin");
        run(*client, "rollback");
        EXPECT_TRUE(until([&] { return master.questions > 0; }));
        settle();
        forget();
        return client;
    }
    void forget() {
        for (fakes::Server* server : {&master, &slave})
            for (auto& backend : server->backends) backend->queries.clear();
    }

    FirstWord classifier;
    fakes::Server master{loop};
    fakes::Server slave{loop};
};

}  // namespace pgxc::pooler
