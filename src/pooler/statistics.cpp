#include "pooler/statistics.h"

#include <algorithm>

namespace pgxc::pooler {

void PoolCounters::add(const PoolCounters& other) {
    since_us = since_us == 0 ? other.since_us : std::min(since_us, other.since_us);
    is_master = is_master || other.is_master;
    transactions += other.transactions;
    queries += other.queries;
    errors += other.errors;
    bytes_in += other.bytes_in;
    bytes_out += other.bytes_out;
    query_us += other.query_us;
    wait_us += other.wait_us;
    query_time.add(other.query_time);
    wait_time.add(other.wait_time);
}

}  // namespace pgxc::pooler
