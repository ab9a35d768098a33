#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "fakes/pooler_test.h"

namespace pgxc::pooler {

/// Clients of a pooler in front of one master.
class SessionTest : public PoolerTest {
  protected:
    void SetUp() override {
        environment.settings_now.failover_hold = Millis{60'000};
        environment.settings_now.login_timeout = Millis{60'000};
        show_master(*server);
    }
    void show_master(const fakes::Server& at, int epoch = 1, Gate gate = Gate::Open) {
        show({master_at(at, epoch, gate)});
    }
    /// A server's on_query: it is gone when it gets that statement.
    static std::function<bool(fakes::Backend&, const std::string&)> die_at(std::string statement) {
        return [statement = std::move(statement)](fakes::Backend& backend, const std::string& sql) {
            if (sql != statement) return false;
            backend.hang_up(true);
            return true;
        };
    }

    std::unique_ptr<fakes::Server> server = std::make_unique<fakes::Server>(loop);
};

/// What the pooler's question about what a session keeps begins with.
inline constexpr std::string_view question = "/* pgxc_ha */";

}  // namespace pgxc::pooler
