// The arbiter's record from any text: an Error or a record that makes sense, never an exception; what is read
// is written and read again as the same.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "replication/failover_policy.h"
#include "replication/record.h"

namespace {

void require(bool holds) {
    if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const auto record = pgxc::record_from_json(text);
    if (!record.ok()) {
        require(record.error().sqlstate == "XX001" && !record.error().message.empty());
        return 0;
    }
    const auto again = pgxc::record_from_json(pgxc::to_json(*record));
    require(again.ok() && *again == *record);

    // What deciding relies on.
    require(!record->configurations.empty() && record->master.port != 0 && !record->master.host.empty());
    std::vector<pgxc::HostPort> all;
    bool somebody_everywhere = true;
    for (const pgxc::Configuration& configuration : record->configurations) {
        const std::size_t needed = configuration.fences_needed();
        require(configuration.slaves.empty() ? configuration.k == 0
                                             : needed >= 1 && needed <= configuration.slaves.size());
        somebody_everywhere = somebody_everywhere && !configuration.slaves.empty();
        for (const pgxc::Member& member : configuration.slaves)
            require(configuration.find(member.address) == &member);
    }
    for (const pgxc::Member& member : record->all_members()) all.push_back(member.address);
    require(pgxc::enough_fenced(*record, all).ok() == somebody_everywhere);
    require(!pgxc::enough_fenced(*record, {}).ok());
    return 0;
}
