#include "pooler/causal_bound.h"

namespace pgxc::pooler {

void CausalPosition::observe(const NodeView* master, WallTime now) {
    const bool answers = master != nullptr && master->node.is_master() && master->state == NodeState::Up &&
                         master->gate == Gate::Open && master->position.known() && master->last_seen;
    if (!answers) {
        moved_ = true;
        return;
    }
    if (moved_ || running_ > 0 || epoch_ != master->node.epoch) {
        moved_ = running_ > 0;
        known_ = false;
        epoch_ = master->node.epoch;
        since_ = now;
        last_answer_ = *master->last_seen;
        answers_ = 0;
        return;
    }
    if (known_ || *master->last_seen == last_answer_ || *master->last_seen <= since_) return;
    last_answer_ = *master->last_seen;
    if (++answers_ < 2) return;
    known_ = true;
    position_ = master->position;
}

CausalBound CausalPosition::bound() const {
    if (!known_ || moved_ || running_ > 0) return {CausalBound::State::Unknown, {}, {}};
    return {CausalBound::State::Known, position_, epoch_};
}

}  // namespace pgxc::pooler
