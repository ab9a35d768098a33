#pragma once

#include <cstddef>
#include <cstdint>

#include "catalog/cluster_view.h"
#include "pooler/router.h"

namespace pgxc::pooler {

/// Up to which position of a group's master a read must see, as far as one pooler worker knows (its own
/// clients' commits only). Pure. Cautious: a position is known only when the master was asked for it after
/// the last commit had been reported to its client.
class CausalPosition {
  public:
    /// Something was sent to the master that may commit, and its answer isn't there yet.
    void commit_begins() { ++running_; }
    /// It was answered, or nobody will hear its answer. Before the client is told.
    void commit_ends() {
        --running_;
        moved_ = true;
    }

    /// Takes over what a view says of the master (nullptr: it isn't there). Called for every view and from
    /// time to time; `now` is on the clock of NodeView::last_seen.
    void observe(const NodeView* master, WallTime now);
    [[nodiscard]] CausalBound bound() const;

  private:
    std::size_t running_ = 0;
    bool moved_ = true;  // since the last call of observe()
    bool known_ = false;
    Lsn position_;
    Epoch epoch_;
    // While it isn't known: all commits were over at since_. The first answer that came after it may be to a
    // question that was asked before; the second one can't be, since the monitor asks one at a time.
    WallTime since_;
    WallTime last_answer_;
    unsigned answers_ = 0;
};

}  // namespace pgxc::pooler
