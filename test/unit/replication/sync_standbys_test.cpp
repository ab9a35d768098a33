#include "replication/sync_standbys.h"

#include <gtest/gtest.h>

namespace pgxc {
namespace {

TEST(StandbyName, HasTypeIdAndEpoch) {
    EXPECT_EQ(standby_name({NodeType::Datanode, NodeId{3}}, Epoch{0}), "pgxc_d_3_e0");
    EXPECT_EQ(standby_name({NodeType::Coordinator, NodeId{3}}, Epoch{12}), "pgxc_c_3_e12");
}

TEST(StandbyName, FitsIntoANameOfTheServer) {
    // A slot name and an application_name are cut at NAMEDATALEN - 1 = 63 bytes.
    const std::string longest =
        standby_name({NodeType::Coordinator, NodeId{std::numeric_limits<std::int32_t>::max()}},
                     Epoch{std::numeric_limits<std::int64_t>::max()});
    EXPECT_LE(longest.size(), 63U);
    // Characters that a slot name may have, and that need no quotes in synchronous_standby_names.
    EXPECT_EQ(longest.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_"), std::string::npos);
}

TEST(SynchronousStandbyNames, ListsThem) {
    EXPECT_EQ(synchronous_standby_names(1, {"a"}), "ANY 1 (a)");
    EXPECT_EQ(synchronous_standby_names(2, {"a", "b", "c"}), "ANY 2 (a, b, c)");
}

TEST(SynchronousStandbyNames, NobodyToWaitForIsTheEmptyValue) {
    EXPECT_EQ(synchronous_standby_names(0, {"a"}), "");
    EXPECT_EQ(synchronous_standby_names(-1, {"a"}), "");
    EXPECT_EQ(synchronous_standby_names(0, {}), "");
    EXPECT_EQ(synchronous_standby_names(1, {}), "");
}

TEST(NobodyNames, WaitForANameOfTheCluster) {
    EXPECT_EQ(nobody_name("0a1b2c3d"), "pgxc_nobody_0a1b2c3d");
    EXPECT_EQ(nobody_standby_names("0a1b2c3d"), "ANY 1 (pgxc_nobody_0a1b2c3d)");
}

}  // namespace
}  // namespace pgxc
