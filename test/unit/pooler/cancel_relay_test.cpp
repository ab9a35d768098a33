#include "pooler/cancel_relay.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "fakes/fake_peers.h"

namespace pgxc::pooler {
namespace {

TEST(CancelRelay, HandsARequestToTheWorkerThatItNames) {
    std::string directory = (std::filesystem::temp_directory_path() / "pgxc_cancel_XXXXXX").string();
    ASSERT_NE(::mkdtemp(directory.data()), nullptr);
    {
        net::Loop loop;
        std::vector<CancelKey> at0;
        std::vector<CancelKey> at1;
        auto worker0 =
            CancelRelay::listen(loop, directory, 6667, 0, [&](CancelKey key) { at0.push_back(key); });
        auto worker1 =
            CancelRelay::listen(loop, directory, 6667, 1, [&](CancelKey key) { at1.push_back(key); });
        ASSERT_TRUE(worker0.ok() && worker1.ok());
        (*worker0)->send(1, {4, 5});
        (*worker0)->send(7, {1, 1});  // nobody: lost, and no harm
        EXPECT_TRUE(fakes::run_until(loop, [&] { return at1.size() == 1; }));
        EXPECT_EQ(at1[0], (CancelKey{4, 5}));
        EXPECT_TRUE(at0.empty());
    }
    EXPECT_TRUE(std::filesystem::is_empty(directory));
    std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace pgxc::pooler
