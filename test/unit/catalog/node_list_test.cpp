#include "catalog/node_list.h"

#include <gtest/gtest.h>

#include <string>

#include "base/limits.h"

namespace pgxc {
namespace {

std::string message_of(std::string_view text) {
    const auto nodes = parse_node_list(text);
    return nodes ? "" : nodes.error().message;
}

TEST(NodeList, NothingIsNoNode) {
    for (const char* text : {"", " ", "\t\n"}) {
        const auto nodes = parse_node_list(text);
        ASSERT_TRUE(nodes.ok());
        EXPECT_TRUE(nodes->empty());
    }
}

TEST(NodeList, KeepsTheOrderOfTheTextAndIgnoresWhiteSpace) {
    const auto nodes = parse_node_list(" 2 = db2.example:5434 ,1=[::1]:5433\n");
    ASSERT_TRUE(nodes.ok());
    const std::vector<ListedNode> expected = {{NodeId{2}, {"db2.example", 5434}}, {NodeId{1}, {"::1", 5433}}};
    EXPECT_EQ(*nodes, expected);
}

TEST(NodeList, RefusesWhatIsNoEntry) {
    EXPECT_EQ(message_of("1"), "invalid entry \"1\" in a list of nodes: the sign = is missing");
    EXPECT_EQ(message_of("1=h:1,"), "invalid entry \"\" in a list of nodes: it is empty");
    EXPECT_EQ(message_of(",1=h:1"), "invalid entry \"\" in a list of nodes: it is empty");
    EXPECT_EQ(message_of("1=h:1 2=h:2"),
              "invalid node address \"h:1 2=h:2\": more than one colon outside brackets");
    EXPECT_EQ(message_of("1=h"), "invalid node address \"h\": the port is missing");
}

TEST(NodeList, RefusesIdsOutOfRange) {
    for (const char* id : {"0", "-1", "2147483648", "x", "", "1x", "+1"})
        EXPECT_EQ(message_of(std::string(id) + "=h:1"),
                  "invalid entry \"" + std::string(id) +
                      "=h:1\" in a list of nodes: the node id must be a number from 1 to 2147483647");
    EXPECT_TRUE(parse_node_list("2147483647=h:1").ok());
}

TEST(NodeList, RefusesWhatComesTwice) {
    EXPECT_EQ(message_of("1=h:1,1=h:2"),
              "invalid entry \"1=h:2\" in a list of nodes: the node id comes twice");
    EXPECT_EQ(message_of("1=h:1,2=h:1"),
              "invalid entry \"2=h:1\" in a list of nodes: the address comes twice");
}

TEST(NodeList, HasALimit) {
    std::string text;
    for (std::size_t id = 1; id <= limits::max_nodes; ++id)
        text += (id > 1 ? "," : "") + std::to_string(id) + "=h" + std::to_string(id) + ":1";
    const auto full = parse_node_list(text);
    ASSERT_TRUE(full.ok());
    EXPECT_EQ(full->size(), limits::max_nodes);
    const auto more = parse_node_list(text + ",9999=x:1");
    ASSERT_FALSE(more.ok());
    EXPECT_EQ(more.error().sqlstate, sqlstate::configuration_limit_exceeded);
}

TEST(NodeList, EveryRefusalShowsTheForm) {
    for (const char* text : {"1", "x=h:1", "1=h", "1=h:1,1=h:2"}) {
        const auto nodes = parse_node_list(text);
        ASSERT_FALSE(nodes.ok());
        EXPECT_EQ(nodes.error().sqlstate, sqlstate::invalid_parameter_value);
        EXPECT_FALSE(nodes.error().hint.empty());
    }
}

}  // namespace
}  // namespace pgxc
