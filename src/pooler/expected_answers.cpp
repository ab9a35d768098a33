#include "pooler/expected_answers.h"

#include <utility>

namespace pgxc::pooler {

const ExpectedAnswers::Entry* ExpectedAnswers::answered(Entry::Kind kind) {
    compact();
    if (empty() || entries_[head_].kind != kind || entries_[head_].unit != units_done_ + 1) return nullptr;
    return &entries_[head_++];
}

std::vector<ExpectedAnswers::Entry> ExpectedAnswers::failed() {
    std::vector<Entry> skipped;
    while (!empty() && entries_[head_].unit <= units_done_ + 1)
        skipped.push_back(std::move(entries_[head_++]));
    compact();
    return skipped;
}

std::vector<ExpectedAnswers::Entry> ExpectedAnswers::lost() {
    std::vector<Entry> all;
    while (!empty()) all.push_back(std::move(entries_[head_++]));
    *this = ExpectedAnswers{};
    return all;
}

void ExpectedAnswers::ready() {
    ++units_done_;
    if (!own_units_.empty() && own_units_.front() <= units_done_) own_units_.erase(own_units_.begin());
}

void ExpectedAnswers::settle() {
    units_sent_ = units_done_ = 0;
    own_units_.clear();
    compact();
}

void ExpectedAnswers::compact() {
    // Mostly one entry is sent and answered: the memory stays, nothing moves.
    if (!empty() || entries_.empty()) return;
    entries_.clear();
    head_ = 0;
}

}  // namespace pgxc::pooler
