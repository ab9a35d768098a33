#include "pg/arbiter_local.h"

#include "pg/boundary.h"
#include "pg/guc.h"
#include "pg/node_store_pg.h"
#include "pg/random_hex.h"

namespace pgxc {
namespace {

constexpr std::size_t cluster_id_bytes = 4;

SpiRow key_parameters(NodeKey group) {
    return {std::string(1, static_cast<char>(group.type)), std::to_string(group.id.value())};
}

/// The row exists, but nobody has claimed the group yet: what REGISTER MASTER said is all that there is.
Result<Record> first_record(NodeKey group) {
    auto topology = load_topology();
    if (!topology) return topology.error();
    const Node* master = topology->find(group);
    if (master == nullptr || !master->is_master())
        return Error{sqlstate::undefined_object, group.to_string() + " is not registered as a master"};
    auto id = random_hex(cluster_id_bytes);
    if (!id) return id.error();
    return initial_record(master->address, master->epoch, *id, "local");
}

Result<Record> read_row(NodeKey group) {
    const auto rows = spi_execute(
        "SELECT generation, record FROM pgxc.node_record "
        "WHERE node_type = $1::\"char\" AND node_id = $2::int4",
        key_parameters(group), true);
    if (!rows) return rows.error();
    if (rows->rows.empty())
        return Error{sqlstate::undefined_object, "the arbiter has no record of " + group.to_string(),
                     "A record is made by REGISTER MASTER only: drop the master and register it again."};
    const SpiRow& row = rows->rows.front();
    if (!row[1] || *row[1] == "{}") return first_record(group);
    auto record = record_from_json(*row[1]);
    if (record) record->generation = std::stoull(row[0].value_or("0"));
    return record;
}

/// `local` stands on being the only one who decides.
Status only_coordinator() {
    auto topology = load_topology();
    if (!topology) return topology.error();
    const auto coordinators = topology->masters(NodeType::Coordinator).size();
    if (coordinators > 1)
        return Error{sqlstate::feature_not_supported,
                     "pgxc.arbiter = local serves one coordinator, and the catalog has " +
                         std::to_string(coordinators),
                     "Drop the other coordinators: with several, nothing here promotes or fences."};
    return {};
}

}  // namespace

asio::awaitable<Result<Record>> ArbiterLocal::read(NodeKey group) {
    Result<Record> record = Error{};
    const Status done = in_transaction([&]() -> Status {
        if (Status alone = only_coordinator(); !alone) return alone;
        record = read_row(group);
        return record ? Status{} : Status{record.error()};
    });
    if (!done) co_return done.error();
    co_return record;
}

asio::awaitable<Result<bool>> ArbiterLocal::compare_and_set(NodeKey group, Record next) {
    bool replaced = false;
    const Status done = in_transaction([&]() -> Status {
        if (Status alone = only_coordinator(); !alone) return alone;
        SpiRow parameters = key_parameters(group);
        parameters.emplace_back(std::to_string(next.generation));
        parameters.emplace_back(std::to_string(next.generation - 1));
        parameters.emplace_back(to_json(next));
        const auto updated = spi_execute(
            "UPDATE pgxc.node_record SET generation = $3::int8, record = $5::jsonb "
            "WHERE node_type = $1::\"char\" AND node_id = $2::int4 AND generation = $4::int8",
            parameters);
        if (!updated) return updated.error();
        replaced = updated->processed == 1;
        return {};
    });
    if (!done) co_return done.error();
    co_return replaced;
}

}  // namespace pgxc
