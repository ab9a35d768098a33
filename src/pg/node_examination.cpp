#include "pg/node_examination.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "catalog/topology_rules.h"
#include "pg/boundary.h"
#include "pg/guc.h"
#include "replication/node_check.h"
#include "replication/promotion_plan.h"
#include "replication/registration_rules.h"
#include "replication/server_restart.h"
#include "replication/sync_standbys.h"

extern "C" {
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
}

namespace pgxc {
namespace {

/// Registering is no race: a server that is slow to log in gets this long, or pgxc.probe_timeout if that is
/// more.
constexpr Millis examination_timeout{5'000};
/// A slave that has just started is asked again for so long before "does not stream" is the answer, and so
/// often.
constexpr Millis streaming_timeout{5'000};
constexpr Millis streaming_interval{100};

/// Runs the server's interrupt processing between two slices of waiting; keeps what it raised.
struct Interruption {
    std::optional<Error> error;
    static bool check(void* context) {
        Status status = pg_call([] { CHECK_FOR_INTERRUPTS(); });
        if (status) return false;
        static_cast<Interruption*>(context)->error = std::move(status).error();
        return true;
    }
};

/// Waits for the time between two questions, or for an interrupt.
Status pause() {
    return pg_call([] {
        (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, streaming_interval.count(),
                        PG_WAIT_EXTENSION);
        ResetLatch(MyLatch);
        CHECK_FOR_INTERRUPTS();
    });
}

struct Question {
    NodeKey key;
    HostPort address;
};

Result<std::vector<Result<NodeFacts>>> ask(const std::vector<Question>& questions) {
    const NodeLogin login{guc::node_user(), guc::node_database(), guc::node_conninfo()};
    std::vector<HostPort> addresses;
    addresses.reserve(questions.size());
    for (const Question& question : questions) addresses.push_back(question.address);
    Interruption interruption;
    auto answers = examine_nodes(addresses, login, std::max(examination_timeout, guc::probe_timeout()),
                                 &Interruption::check, &interruption);
    if (interruption.error) return std::move(*interruption.error);
    return answers;
}

/// A failure that matters, with the node it is about.
Error about(const Question& question, Error error) {
    error.message = question.key.to_string() + ": " + error.message;
    if (error.sqlstate == sqlstate::unable_to_connect)
        error.hint =
            "Start it, check its address, or register it before it is up with SET pgxc.check_nodes = off.";
    return error;
}

/// Does one of the nodes asked from `first` on lead to the same server? Those that don't answer can't tell.
Status check_not_registered(const NodeFacts& facts, const Question& fresh,
                            const std::vector<Question>& questions,
                            const std::vector<Result<NodeFacts>>& answers, std::size_t first) {
    for (std::size_t i = first; i < questions.size(); ++i) {
        if (!answers[i] || !same_server(facts, *answers[i])) continue;
        return Error{sqlstate::unique_violation,
                     fresh.address.to_string() + " leads to the same server as " +
                         questions[i].key.to_string() + " (" + questions[i].address.to_string() + ")",
                     "A server is registered once. Name the address of another server, or drop " +
                         questions[i].key.to_string() + " first."};
    }
    return {};
}

SlaveCandidate candidate_of(const Topology& topology, const Question& slave, const NodeFacts& slave_facts,
                            const Question& master, const NodeFacts& master_facts) {
    SlaveCandidate candidate;
    candidate.slave = slave.key;
    candidate.slave_address = slave.address;
    candidate.slave_facts = slave_facts;
    candidate.master = master.key;
    candidate.master_address = master.address;
    candidate.master_is_slave = !topology.find(master.key)->is_master();
    candidate.master_facts = master_facts;
    if (const Node* top = topology.top_master_of(master.key))
        candidate.counting_name = standby_name(slave.key, top->epoch);
    if (slave_facts.server_version_num < replication::first_with_reloadable_stream) {
        const ServerPlace place{slave_facts.data_directory, {}};
        Status can = can_restart_slave(place, slave.address, slave_facts.server_version_num,
                                       slave_facts.system_identifier);
        if (!can) candidate.files_out_of_reach = std::move(can).error();
    }
    const HostPort stream_source{slave_facts.upstream_host, slave_facts.upstream_port};
    candidate.leads_to_master = leads_to(stream_source, slave.address, master.address);
    if (candidate.leads_to_master) return candidate;
    for (const Node& node : topology.nodes()) {
        if (node.key == slave.key || node.key == master.key) continue;
        if (!leads_to(stream_source, slave.address, node.address)) continue;
        candidate.leads_to_other = node.key;
        break;
    }
    return candidate;
}

}  // namespace

Status examine_new_master(const Topology& topology, NodeKey key, const HostPort& address) {
    std::vector<Question> questions{{key, address}};
    for (const NodeType type : {NodeType::Coordinator, NodeType::Datanode})
        for (const Node* master : topology.masters(type)) questions.push_back({master->key, master->address});
    auto answers = ask(questions);
    if (!answers) return std::move(answers).error();
    if (!answers->front()) return about(questions[0], answers->front().error());
    const NodeFacts& facts = *answers->front();
    if (Status fit = check_master(key, address, facts); !fit) return fit;
    return check_not_registered(facts, questions[0], questions, *answers, 1);
}

Result<Replication> examine_new_slave(const Topology& topology, NodeKey key, const HostPort& address,
                                      NodeKey master, Replication wanted) {
    const Node* upstream = topology.find(master);
    if (upstream == nullptr) return Error{sqlstate::internal_error, master.to_string() + " does not exist"};
    std::vector<Question> questions{{key, address}, {master, upstream->address}};
    // Another copy of the same data can only be in the same group.
    const Node* top = topology.top_master_of(master);
    for (const Node& node : topology.nodes())
        if (node.key != key && node.key != master && topology.top_master_of(node.key) == top)
            questions.push_back({node.key, node.address});

    const TimePoint deadline = Clock::now() + streaming_timeout;
    for (;;) {
        auto answers = ask(questions);
        if (!answers) return std::move(answers).error();
        for (const std::size_t needed : {0, 1})
            if (!(*answers)[needed]) return about(questions[needed], (*answers)[needed].error());
        const SlaveCandidate candidate =
            candidate_of(topology, questions[0], *(*answers)[0], questions[1], *(*answers)[1]);
        if (Status fit = check_slave(candidate); !fit) {
            // Before 12 only a connection of its WAL receiver tells where it streams from.
            const NodeFacts& slave = candidate.slave_facts;
            const bool may_connect_yet =
                slave.server_version_num < replication::first_without_recovery_conf && slave.in_recovery &&
                slave.upstream_host.empty() && slave.upstream_port == 0;
            if (!may_connect_yet || Clock::now() >= deadline) return std::move(fit).error();
            if (Status waited = pause(); !waited) return std::move(waited).error();
            continue;
        }
        if (Status once = check_not_registered(candidate.slave_facts, questions[0], questions, *answers, 2);
            !once)
            return std::move(once).error();
        questions.resize(2);
        Status streaming = check_streaming(candidate);
        if (streaming && wanted == Replication::None && candidate.master_is_slave)
            wanted = Replication::Asynchronous;
        if (streaming) {
            const Replication replication =
                wanted == Replication::None ? replication_seen(candidate) : wanted;
            if (replication == Replication::Synchronous)
                if (Status fit = check_synchronous(candidate); !fit) return std::move(fit).error();
            for (const Error& warning : registration_warnings(candidate, replication))
                report(WARNING, warning);
            return replication;
        }
        if (Clock::now() >= deadline) return std::move(streaming).error();
        if (Status waited = pause(); !waited) return std::move(waited).error();
    }
}

Status examine_new_parent(const Topology& topology, NodeKey slave, NodeKey master) {
    const Node* below = topology.find(slave);
    const Node* above = topology.find(master);
    if (below == nullptr || above == nullptr)
        return Error{sqlstate::internal_error, "a node is not in the catalog"};
    const std::vector<Question> questions{{slave, below->address}, {master, above->address}};
    auto answers = ask(questions);
    if (!answers) return std::move(answers).error();
    for (std::size_t i = 0; i < questions.size(); ++i)
        if (!(*answers)[i]) return about(questions[i], (*answers)[i].error());
    return check_new_master(
        candidate_of(topology, questions[0], *(*answers)[0], questions[1], *(*answers)[1]));
}

}  // namespace pgxc
