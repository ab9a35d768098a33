#include "replication/record.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

namespace pgxc {
namespace {

using nlohmann::json;

HostPort at(std::uint16_t port) {
    return {"10.0.0.1", port};
}

Configuration configuration(std::int64_t epoch, std::vector<std::uint16_t> ports, int k) {
    Configuration made{Epoch{epoch}, {}, k};
    for (const std::uint16_t port : ports)
        made.slaves.push_back({"pgxc_d_" + std::to_string(port) + "_e" + std::to_string(epoch), at(port)});
    return made;
}

/// A record in which every field differs from its default.
Record sample() {
    Record record = initial_record(at(1), Epoch{4}, "0a1b2c3d", "local");
    record.generation = 17;
    record.claim = 3;
    record.claim_owner = "deadbeef";
    record.epoch = Epoch{5};
    record.timeline = 6;
    record.system_identifier = 18'446'744'073'709'551'615U;
    record.configurations = {configuration(4, {2, 3, 4}, 2), configuration(5, {3, 4}, 1)};
    record.lines = {{at(1).to_string(), 4}, {at(2).to_string(), 5}};
    PendingPromotion pending;
    pending.promoted_id = NodeId{2};
    pending.listens_at = at(2);
    pending.old_master = {"::1", 65535};
    pending.by_restart = true;
    pending.former_alive = true;
    pending.cause = "with \"quotes\", a \\ and a\nline break";
    pending.decided_by = "coordinator 1";
    pending.started_at_us = 1'700'000'000'123'456;
    pending.detect_ms = 0.25;
    pending.decide_ms = 1.5;
    pending.fence_ms = 20.125;
    pending.lost_wal_bytes = -1;
    pending.old_timeline = 4'294'967'295U;
    pending.data_directory = "/data of/slave";
    pending.config_file = "/etc/slave.conf";
    pending.settings_to_restore = {{"recovery_min_apply_delay", "5min"},
                                   {"restore_command", "cp 'a b'/%f %p"}};
    record.pending = pending;
    record.place = {"/data of/master", "/etc/master.conf", true};
    record.to_give_back = {
        {at(3).to_string(), {{"recovery_min_apply_delay", "5min"}, {"primary_slot_name", std::nullopt}}}};
    FormerMaster former;
    former.id = NodeId{7};
    former.address = at(7);
    former.replication = Replication::Synchronous;
    former.place = {"/data/7", "/data/7/postgresql.conf", true};
    former.timeline = 5;
    former.keep_because = "because";
    record.formers = {former};
    record.restarting["10.0.0.3:5433"] = {"/data/3", "/etc/3/postgresql.conf"};
    return record;
}

TEST(Record, SurvivesJson) {
    const auto read = record_from_json(to_json(sample()));
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(*read, sample());
}

TEST(Record, InitialRecordSurvivesJsonAndCountsNobody) {
    const Record first = initial_record(at(1), Epoch{7}, "00000001", "local");
    EXPECT_EQ(first.generation, 1U);
    EXPECT_EQ(first.master, at(1));
    EXPECT_EQ(first.wanted(), (Configuration{Epoch{7}, {}, 0}));
    EXPECT_EQ(first.line_of(at(1)), 7);
    EXPECT_FALSE(first.pending);
    const auto read = record_from_json(to_json(first));
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(*read, first);
}

TEST(Record, ItsRandomNumberTellsWhichRegistrationItBelongsTo) {
    EXPECT_EQ(sample().registration(), Registration{0x0a1b2c3d});
    EXPECT_EQ(initial_record(at(1), Epoch{0}, "ffffffff", "local").registration(), Registration{0xffffffff});
    for (const char* damaged : {"", "0a1b2c3dx", "1a1b2c3d4", "-1"})
        EXPECT_EQ(initial_record(at(1), Epoch{0}, damaged, "local").registration(), Registration{})
            << damaged;
}

TEST(Record, TextThatIsNotUtf8StillReachesTheArbiter) {
    // Servers with an SQL_ASCII database send bytes as they are. A record that can't be written is a failover
    // that never happens.
    Record record = sample();
    record.pending->cause = "caf\xe9";
    const auto read = record_from_json(to_json(record));
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(read->pending->cause, "caf\xef\xbf\xbd");
}

TEST(Record, NamesTheWantedConfigurationLast) {
    EXPECT_EQ(sample().wanted().epoch, Epoch{5});
}

TEST(Record, AllMembersHaveEachAddressOnceUnderItsNewestName) {
    const std::vector<Member> members = sample().all_members();
    ASSERT_EQ(members.size(), 3U);
    EXPECT_EQ(members[0], (Member{"pgxc_d_3_e5", at(3)}));
    EXPECT_EQ(members[1], (Member{"pgxc_d_4_e5", at(4)}));
    EXPECT_EQ(members[2], (Member{"pgxc_d_2_e4", at(2)}));
    EXPECT_TRUE(initial_record(at(1), Epoch{0}, "", "").all_members().empty());
}

TEST(Record, LineOfAnUnknownNodeIsTheCurrentEpoch) {
    EXPECT_EQ(sample().line_of(at(1)), 4);
    EXPECT_EQ(sample().line_of(at(2)), 5);
    EXPECT_EQ(sample().line_of(at(9)), 5);
}

TEST(Configuration, NeedsSoManyFencesThatTheRestCantAcknowledge) {
    for (int slaves = 1; slaves <= 5; ++slaves) {
        for (int k = 1; k <= slaves; ++k) {
            std::vector<std::uint16_t> ports;
            for (int i = 0; i < slaves; ++i) ports.push_back(static_cast<std::uint16_t>(i + 1));
            const auto needed = static_cast<int>(configuration(0, ports, k).fences_needed());
            EXPECT_LT(slaves - needed, k) << "the unfenced ones could acknowledge";
            EXPECT_EQ(slaves - (needed - 1), k) << "one fewer would not do";
        }
    }
}

TEST(Configuration, NamesInForce) {
    EXPECT_EQ(names_in_force(configuration(4, {2, 3}, 2)), "ANY 2 (pgxc_d_2_e4, pgxc_d_3_e4)");
    EXPECT_EQ(names_in_force(configuration(4, {}, 0)), "");
    EXPECT_EQ(configuration(4, {3, 2}, 1).names(), (std::vector<std::string>{"pgxc_d_3_e4", "pgxc_d_2_e4"}));
}

TEST(Configuration, FindsByAddress) {
    const Configuration made = configuration(1, {2, 3}, 1);
    ASSERT_NE(made.find(at(3)), nullptr);
    EXPECT_EQ(made.find(at(3))->name, "pgxc_d_3_e1");
    EXPECT_EQ(made.find(at(4)), nullptr);
    EXPECT_EQ(made.find({"10.0.0.2", 3}), nullptr);
}

void expect_damaged(const std::string& text) {
    const auto read = record_from_json(text);
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_EQ(read.error().sqlstate, "XX001") << text;
    EXPECT_NE(read.error().message, "") << text;
}

TEST(DamagedRecord, TextThatIsNoJson) {
    for (const char* text : {"", " ", "{", "nonsense", "{\"generation\": }", "\xff\xfe", "[", "{}{}"})
        expect_damaged(text);
}

TEST(DamagedRecord, EveryPrefixOfARecord) {
    const std::string whole = to_json(sample());
    for (std::size_t length = 0; length < whole.size(); ++length) expect_damaged(whole.substr(0, length));
}

TEST(DamagedRecord, AnotherKindOfValue) {
    for (const char* text : {"null", "1", "\"text\"", "[]", "{}", "true"}) expect_damaged(text);
}

/// The paths of all members of objects in a JSON value.
void collect_members(const json& value, const json::json_pointer& path,
                     std::vector<json::json_pointer>& found) {
    if (value.is_object()) {
        for (const auto& [key, child] : value.items()) {
            // Free-form maps: any key may be there or not. Records from before the library on datanodes, or
            // before settings were given back, lack those.
            const std::string of = path.to_string();
            if (key != "library" && key != "to_give_back" && !of.starts_with("/to_give_back") &&
                of != "/lines" && of != "/restarting" && of != "/pending/settings_to_restore")
                found.push_back(path / key);
            collect_members(child, path / key, found);
        }
    } else if (value.is_array()) {
        for (std::size_t i = 0; i < value.size(); ++i) collect_members(value[i], path / i, found);
    }
}

TEST(DamagedRecord, EachMissingMember) {
    const json whole = json::parse(to_json(sample()));
    std::vector<json::json_pointer> members;
    collect_members(whole, json::json_pointer(), members);
    ASSERT_GT(members.size(), 40U);
    for (const auto& member : members) {
        json damaged = whole;
        damaged.at(member.parent_pointer()).erase(member.back());
        expect_damaged(damaged.dump());
    }
}

TEST(DamagedRecord, EachMemberOfAWrongType) {
    const json whole = json::parse(to_json(sample()));
    std::vector<json::json_pointer> members;
    collect_members(whole, json::json_pointer(), members);
    const json others[] = {nullptr, true, -1, 1e300, 0.5, "text", json::array({1}), json{{"a", 1}}};
    for (const auto& member : members) {
        for (const json& other : others) {
            const json& was = whole.at(member);
            // What is still a value of that member's type is for the tests below.
            if (was.type() == other.type() || (was.is_number() && other.is_number())) continue;
            if (member.to_string() == "/pending" && other.is_null()) continue;
            json damaged = whole;
            damaged[member] = other;
            expect_damaged(damaged.dump());
        }
    }
}

TEST(DamagedRecord, NumbersThatDontFit) {
    const struct {
        const char* path;
        std::vector<json> values;
    } cases[] = {
        {"/generation", {-1, 0.5, 1e300}},
        {"/claim", {-1, 0.5}},
        {"/timeline", {-1, 4'294'967'296, 0.5}},
        {"/epoch", {-1, 0.5, 9'223'372'036'854'775'808U}},
        {"/master/port", {-1, 0, 65'536, 70'000, 1.5}},
        {"/configurations/0/slaves/0/address/port", {0, 65'536}},
        {"/configurations/0/epoch", {-1, 0.5}},
        {"/configurations/0/k", {4'294'967'298, -4'294'967'294, 1.5}},
        {"/pending/promoted_id", {-1, 0, 2'147'483'648, 0.5}},
        {"/pending/old_timeline", {-1, 4'294'967'296, 0.5}},
        {"/pending/started_at_us", {0.5}},
        {"/lines/10.0.0.1:1", {-1, 0.5}},
    };
    for (const auto& [path, values] : cases) {
        for (const json& value : values) {
            json damaged = json::parse(to_json(sample()));
            damaged.at(json::json_pointer(path)) = value;
            SCOPED_TRACE(path);
            expect_damaged(damaged.dump());
        }
    }
}

TEST(DamagedRecord, SystemIdentifierThatIsNoNumber) {
    for (const char* text : {"", "x", "12x", " 12", "-1", "+1", "18446744073709551616", "0x10"}) {
        json damaged = json::parse(to_json(sample()));
        damaged["system_identifier"] = text;
        expect_damaged(damaged.dump());
    }
}

void expect_implausible(const std::function<void(Record&)>& damage) {
    Record record = sample();
    damage(record);
    expect_damaged(to_json(record));
}

TEST(DamagedRecord, ConfigurationsThatMakeNoSense) {
    expect_implausible([](Record& record) { record.configurations.clear(); });
    expect_implausible([](Record& record) { record.configurations[0].k = 0; });
    expect_implausible([](Record& record) { record.configurations[0].k = -1; });
    expect_implausible([](Record& record) { record.configurations[0].k = 4; });
    expect_implausible([](Record& record) { record.configurations[1].slaves.clear(); });
    expect_implausible([](Record& record) { record.configurations[1] = configuration(5, {}, 1); });
}

TEST(DamagedRecord, OneServerThatCountsTwice) {
    expect_implausible([](Record& record) { record.configurations[0].slaves[1].address = at(2); });
    expect_implausible([](Record& record) {
        record.configurations[0].slaves[1].name = record.configurations[0].slaves[0].name;
    });
}

TEST(DamagedRecord, NamesThatAreNotThere) {
    expect_implausible([](Record& record) { record.configurations[0].slaves[0].name.clear(); });
    expect_implausible([](Record& record) { record.configurations[0].slaves[0].address.host.clear(); });
    expect_implausible([](Record& record) { record.master.host.clear(); });
}

TEST(DamagedRecord, DeepNesting) {
    const std::string deep(100'000, '[');
    expect_damaged(deep);
    expect_damaged(deep + std::string(100'000, ']'));
}

}  // namespace
}  // namespace pgxc
