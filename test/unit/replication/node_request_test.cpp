#include "replication/node_request.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

namespace pgxc {
namespace {

using nlohmann::json;

constexpr std::uint64_t our_system = 7'300'000'000'000'000'001U;

NodeKey group() {
    return {NodeType::Datanode, NodeId{1}};
}

/// Epoch 3: the server at 10.0.0.1:5432 was replaced by the one at 10.0.0.2:5433.
Record replaced() {
    Record record = initial_record({"10.0.0.2", 5433}, Epoch{3}, "0a1b2c3d", "local");
    record.claim = 8;
    record.claim_owner = "deadbeef";
    record.system_identifier = our_system;
    record.timeline = 4;
    FormerMaster former;
    former.id = NodeId{2};
    former.address = {"10.0.0.1", 5432};
    former.place = {"/data/one", "/data/one/postgresql.conf", true};
    former.timeline = 3;
    record.formers = {former};
    return record;
}

OwnServer old_master() {
    OwnServer own;
    own.data_directory = "/data/one";
    own.config_file = "/data/one/postgresql.conf";
    own.port = 5432;
    own.system_identifier = our_system;
    own.timeline = 3;
    return own;
}

/// Epoch 4 is recorded: the server at 10.0.0.1:5432 is restarted on 5433, where the old master runs.
Record being_restarted() {
    Record record = initial_record({"10.0.0.1", 5433}, Epoch{4}, "0a1b2c3d", "local");
    record.claim = 8;
    record.claim_owner = "deadbeef";
    record.system_identifier = our_system;
    PendingPromotion pending;
    pending.promoted_id = NodeId{2};
    pending.listens_at = {"10.0.0.1", 5432};
    pending.old_master = {"10.0.0.1", 5433};
    pending.by_restart = true;
    pending.former_alive = true;
    pending.data_directory = "/data/one";
    record.pending = pending;
    return record;
}

NodeRequest request_for(NodeRequestKind kind, const Record& record) {
    NodeRequest request = node_request(kind, group(), record);
    request.port = record.master.port;
    return request;
}

bool is_first_host(const std::string& host) {
    return host == "10.0.0.1";
}

bool is_no_host(const std::string& /*host*/) {
    return false;
}

TEST(NodeRequest, TakesClaimAndEpochFromTheRecordAndDrawsATicket) {
    const NodeRequest request = node_request(NodeRequestKind::Stop, group(), replaced());
    EXPECT_EQ(request.kind, NodeRequestKind::Stop);
    EXPECT_EQ(request.group, group());
    EXPECT_EQ(request.cluster_id, "0a1b2c3d");
    EXPECT_EQ(request.claim, 8U);
    EXPECT_EQ(request.claim_owner, "deadbeef");
    EXPECT_EQ(request.epoch, Epoch{3});
    EXPECT_FALSE(request.ticket.empty());
    EXPECT_NE(request.ticket, node_request(NodeRequestKind::Stop, group(), replaced()).ticket);
}

TEST(NodeRequest, EveryKindSurvivesJson) {
    for (const auto kind : {NodeRequestKind::CanRestart, NodeRequestKind::Restart, NodeRequestKind::Stop,
                            NodeRequestKind::Rejoin, NodeRequestKind::Forget}) {
        NodeRequest request = node_request(kind, group(), replaced());
        request.claim = 18'446'744'073'709'551'615U;
        request.port = 65535;
        request.stream_failed = true;
        request.time_limit = Millis{12'345};
        const auto read = node_request_from_json(to_json(request));
        ASSERT_TRUE(read.ok()) << read.error().message;
        EXPECT_EQ(*read, request);
    }
}

TEST(NodeRequest, TextThatIsNoRequestIsRefused) {
    const json good = json::parse(to_json(node_request(NodeRequestKind::Restart, group(), replaced())));
    std::vector<std::string> texts{"", "nonsense", "{}", "[]", "null", "7", good.dump() + "x"};
    for (const auto& [name, value] : good.items()) {
        json without = good;
        without.erase(name);
        texts.push_back(without.dump());
        json wrong = good;
        wrong[name] = json::array();
        texts.push_back(wrong.dump());
    }
    const auto with = [&](const char* name, const json& value) {
        json changed = good;
        changed[name] = value;
        texts.push_back(changed.dump());
    };
    with("request", "format");
    with("port", 65536);
    with("port", -1);
    with("group", {{"type", "X"}, {"id", 1}});
    with("group", {{"type", ""}, {"id", 1}});
    with("group", {{"type", "D"}, {"id", -1}});
    with("time_limit_ms", -1);
    for (const std::string& text : texts) {
        const auto read = node_request_from_json(text);
        ASSERT_FALSE(read.ok()) << text;
        EXPECT_EQ(read.error().sqlstate, "22023") << text;
        EXPECT_NE(read.error().message.find("this is no request"), std::string::npos);
    }
}

TEST(NodeAnswer, SurvivesJson) {
    const NodeAnswer good{"1.2", true, Error{}};
    auto read = node_answer_from_json(to_json(good));
    ASSERT_TRUE(read);
    EXPECT_EQ(read->ticket, "1.2");
    EXPECT_TRUE(read->done);
    const NodeAnswer bad{
        "3.4", false,
        Error{sqlstate::object_not_in_prerequisite_state, "what \"it\" is\n", "do this", "because"}};
    read = node_answer_from_json(to_json(bad));
    ASSERT_TRUE(read);
    EXPECT_EQ(*read, bad);
}

TEST(NodeAnswer, AnotherServersOutputDoesNotBreakIt) {
    // A program's message needn't be UTF-8.
    const NodeAnswer bad{"1", false, Error{sqlstate::internal_error, "\xff\xfe"}};
    EXPECT_TRUE(node_answer_from_json(to_json(bad)));
    for (const char* text : {"", "{}", "nonsense", R"({"ticket": 1, "done": true})",
                             R"({"ticket": "1", "done": false})", R"({"ticket": "1", "done": "yes"})"})
        EXPECT_FALSE(node_answer_from_json(text)) << text;
}

TEST(NodeTask, SurvivesJson) {
    NodeTask task;
    task.kind = NodeTask::Kind::Request;
    task.request = node_request(NodeRequestKind::Rejoin, group(), replaced());
    task.server = old_master();
    task.server.timeline = 0;  // what the files tell is asked anew
    task.server.managed_by = "postgresql@15-main.service";
    task.has_restore_command = true;
    task.has_recovery_target = true;
    task.coordinators = {{"10.0.0.9", 5432}, {"::1", 5433}};
    task.coordinator_login = {"control", "app", "password='a b'"};
    task.node_login = {"postgres", "postgres", "sslmode=require"};
    const auto read = node_task_from_json(to_json(task));
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(read->kind, task.kind);
    EXPECT_EQ(read->request, task.request);
    EXPECT_EQ(read->server, task.server);
    EXPECT_TRUE(read->has_restore_command);
    EXPECT_TRUE(read->has_recovery_target);
    EXPECT_EQ(read->coordinators, task.coordinators);
    EXPECT_EQ(read->coordinator_login.user, "control");
    EXPECT_EQ(read->coordinator_login.database, "app");
    EXPECT_EQ(read->coordinator_login.conninfo, "password='a b'");
    EXPECT_EQ(read->node_login.conninfo, "sslmode=require");
    json broken = json::parse(to_json(task));
    for (const int kind : {-1, 3}) {
        broken["kind"] = kind;
        EXPECT_FALSE(node_task_from_json(broken.dump()).ok());
    }
    EXPECT_FALSE(node_task_from_json("").ok());
}

/// The reason why a request doesn't stand; empty: it does.
std::string refusal(NodeRequestKind kind, const Record& record, const Record& now,
                    const OwnServer& own = old_master()) {
    const Status stands = request_stands(request_for(kind, record), own, now);
    if (stands.ok()) return {};
    EXPECT_EQ(stands.error().sqlstate, "55000");
    return stands.error().message;
}

Record with(Record record, const std::function<void(Record&)>& change) {
    change(record);
    return record;
}

TEST(RequestStands, AsLongAsTheRecordSaysTheSame) {
    EXPECT_EQ(refusal(NodeRequestKind::Restart, being_restarted(), being_restarted()), "");
    EXPECT_EQ(refusal(NodeRequestKind::Rejoin, replaced(), replaced()), "");
    OwnServer in_the_way = old_master();
    in_the_way.port = 5433;
    EXPECT_EQ(refusal(NodeRequestKind::Stop, being_restarted(), being_restarted(), in_the_way), "");
    // It has moved to its new port already: a second attempt of the same restart.
    EXPECT_EQ(refusal(NodeRequestKind::Restart, being_restarted(), being_restarted(), in_the_way), "");
}

TEST(RequestStands, NotWhenAnybodyElseDecidesNow) {
    for (const auto kind : {NodeRequestKind::Restart, NodeRequestKind::Stop, NodeRequestKind::Rejoin}) {
        const Record then = kind == NodeRequestKind::Rejoin ? replaced() : being_restarted();
        const auto refused = [&](const std::function<void(Record&)>& change) {
            return refusal(kind, then, with(then, change));
        };
        EXPECT_NE(refused([](Record& r) { r.cluster_id = "ffffffff"; }).find("another cluster"),
                  std::string::npos);
        EXPECT_NE(refused([](Record& r) { r.claim += 1; }).find("claimed anew"), std::string::npos);
        EXPECT_NE(refused([](Record& r) { r.claim_owner = "me"; }).find("claimed anew"), std::string::npos);
        EXPECT_NE(refused([](Record& r) { r.epoch = Epoch{9}; }).find("epoch 9"), std::string::npos);
        EXPECT_NE(refused([](Record& r) { r.system_identifier = 5; }).find("another group"),
                  std::string::npos);
    }
}

TEST(RequestStands, NotWithoutThePromotionThatItBelongsTo) {
    const Record then = being_restarted();
    const auto restart = [&](const std::function<void(Record&)>& change) {
        return refusal(NodeRequestKind::Restart, then, with(then, change));
    };
    EXPECT_NE(restart([](Record& r) { r.pending.reset(); }).find("no promotion by a restart"),
              std::string::npos);
    EXPECT_NE(restart([](Record& r) { r.pending->by_restart = false; }).find("no promotion by a restart"),
              std::string::npos);
    EXPECT_NE(restart([](Record& r) { r.pending->listens_at.port = 6000; }).find("another server"),
              std::string::npos);
    EXPECT_NE(restart([](Record& r) { r.master.port = 6000; }).find("port 6000"), std::string::npos);
    OwnServer in_the_way = old_master();
    in_the_way.port = 5433;
    const auto stop = [&](const std::function<void(Record&)>& change) {
        return refusal(NodeRequestKind::Stop, then, with(then, change), in_the_way);
    };
    EXPECT_NE(stop([](Record& r) { r.pending.reset(); }).find("in the way"), std::string::npos);
    EXPECT_NE(stop([](Record& r) { r.pending->former_alive = false; }).find("in the way"), std::string::npos);
    EXPECT_NE(stop([](Record& r) { r.pending->old_master.port = 6000; }).find("in the way"),
              std::string::npos);
    EXPECT_NE(refusal(NodeRequestKind::Rejoin, then, then).find("under way"), std::string::npos);
}

TEST(OwnEntry, IsOfThisHostPortAndDirectory) {
    ASSERT_TRUE(own_entry(old_master(), replaced(), is_first_host));
    EXPECT_EQ(own_entry(old_master(), replaced(), is_first_host)->id, NodeId{2});
    EXPECT_FALSE(own_entry(old_master(), replaced(), is_no_host));
    const auto found = [](const std::function<void(OwnServer&)>& change) {
        OwnServer own = old_master();
        change(own);
        return own_entry(own, replaced(), is_first_host).has_value();
    };
    EXPECT_FALSE(found([](OwnServer& own) { own.data_directory = "/data/two"; }));
    EXPECT_FALSE(found([](OwnServer& own) { own.port = 6000; }));
    EXPECT_FALSE(found([](OwnServer& own) { own.system_identifier = 5; }));
    // Its port was taken over, and is still in its files.
    EXPECT_TRUE(found([](OwnServer& own) { own.port = 5433; }));
    const Record unknown = with(replaced(), [](Record& r) { r.formers[0].place = {}; });
    EXPECT_TRUE(own_entry(old_master(), unknown, is_first_host));
    const Record nobody = with(replaced(), [](Record& r) { r.formers.clear(); });
    EXPECT_FALSE(own_entry(old_master(), nobody, is_first_host));
}

StartVerdict judged(const Record& record, const OwnServer& own = old_master(),
                    IsLocal is_local = is_first_host) {
    return judge_start(own, {{group(), record}}, is_local);
}

TEST(JudgeStart, ReplacedMasterIsRefusedAndReturns) {
    const StartVerdict verdict = judged(replaced());
    EXPECT_TRUE(verdict.replaced);
    EXPECT_TRUE(verdict.returns);
    EXPECT_EQ(verdict.group, group());
    EXPECT_EQ(verdict.epoch, Epoch{3});
    EXPECT_EQ(verdict.master, (HostPort{"10.0.0.2", 5433}));
    EXPECT_NE(verdict.because.find("timeline 3"), std::string::npos) << verdict.because;
    EXPECT_NE(verdict.because.find("timeline 4"), std::string::npos) << verdict.because;
}

TEST(JudgeStart, WhatNobodyWaitsForIsRefusedAndStays) {
    // Its line is older, and no entry is its own: somebody's copy, or dropped since.
    const StartVerdict alien = judged(replaced(), old_master(), is_no_host);
    EXPECT_TRUE(alien.replaced);
    EXPECT_FALSE(alien.returns);
    // It may hold what nobody else has.
    const StartVerdict kept =
        judged(with(replaced(), [](Record& r) { r.formers[0].keep_because = "look first"; }));
    EXPECT_TRUE(kept.replaced);
    EXPECT_FALSE(kept.returns);
    EXPECT_NE(kept.because.find("look first"), std::string::npos);
}

TEST(JudgeStart, ThePresentMasterStarts) {
    OwnServer master = old_master();
    master.data_directory = "/data/new";
    master.timeline = 4;
    EXPECT_FALSE(judged(replaced(), master).replaced);
    // An old entry for its own place: it was promoted again since.
    OwnServer again = old_master();
    again.timeline = 4;
    EXPECT_FALSE(judged(replaced(), again).replaced);
    EXPECT_FALSE(judged(with(replaced(), [](Record& r) { r.formers.clear(); }), master).replaced);
}

TEST(JudgeStart, WhatIsNotKnownKeepsNobodyFromStarting) {
    EXPECT_FALSE(judge_start(old_master(), {}, is_first_host).replaced);
    OwnServer other = old_master();
    other.system_identifier = 5;
    EXPECT_FALSE(judged(replaced(), other).replaced);
    const Record unseen = with(replaced(), [](Record& r) { r.system_identifier = 0; });
    OwnServer unknown = old_master();
    unknown.system_identifier = 0;
    EXPECT_FALSE(judged(unseen, unknown).replaced);
    const Record no_line = with(replaced(), [](Record& r) {
        r.timeline = 0;
        r.formers.clear();
    });
    EXPECT_FALSE(judged(no_line).replaced);
    OwnServer no_timeline = old_master();
    no_timeline.timeline = 0;
    EXPECT_FALSE(judged(with(replaced(), [](Record& r) { r.formers.clear(); }), no_timeline).replaced);
}

TEST(JudgeStart, DuringAPromotionOnlyTheListedOneIsRefused) {
    // The chosen is restarted, and has no signal file any more.
    EXPECT_FALSE(judged(being_restarted()).replaced);
    const Record pending = with(replaced(), [](Record& r) {
        r.timeline = 0;
        r.pending = PendingPromotion{};
        r.pending->listens_at = {"10.0.0.2", 5433};
    });
    const StartVerdict verdict = judged(pending);
    EXPECT_TRUE(verdict.replaced);
    EXPECT_NE(verdict.because.find("being promoted"), std::string::npos) << verdict.because;
    // The chosen, which has been the master of an earlier epoch at that place.
    const Record chosen = with(pending, [](Record& r) {
        r.pending->listens_at = {"10.0.0.1", 5432};
        r.pending->data_directory = "/data/one";
    });
    EXPECT_FALSE(judged(chosen).replaced);
}

TEST(StartVerdict, SurvivesJson) {
    StartVerdict verdict = judged(replaced());
    verdict.command = "pg_ctl stop -D '/data/one'";
    const auto read = start_verdict_from_json(to_json(verdict));
    ASSERT_TRUE(read.ok()) << read.error().message;
    EXPECT_EQ(*read, verdict);
    for (const char* text : {"", "{}", R"({"replaced": true})", "no coordinator answers"})
        EXPECT_FALSE(start_verdict_from_json(text).ok()) << text;
}

}  // namespace
}  // namespace pgxc
