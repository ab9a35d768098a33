#include "pooler/expected_answers.h"

#include <algorithm>
#include <utility>

namespace pgxc::pooler {
namespace {

/// Entries that were answered and still lie in front of those that were not.
constexpr std::size_t max_answered_kept = 1024;

}  // namespace

const ExpectedAnswers::Entry* ExpectedAnswers::answered(Entry::Kind kind) {
    compact();
    if (empty() || entries_[head_].kind != kind || entries_[head_].unit != units_done_ + 1) return nullptr;
    return &entries_[head_++];
}

std::vector<ExpectedAnswers::Entry> ExpectedAnswers::failed(std::size_t units) {
    std::vector<Entry> skipped;
    units_done_ += units;
    while (!own_units_.empty() && own_units_.front() <= units_done_) own_units_.erase(own_units_.begin());
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

void ExpectedAnswers::syncs_eaten(std::size_t count) {
    const auto bring_forward = [this, count](std::uint64_t& unit) {
        if (unit > units_done_ + 1) unit = std::max(unit - count, units_done_ + 1);
    };
    for (std::size_t at = head_; at < entries_.size(); ++at) bring_forward(entries_[at].unit);
    for (std::uint64_t& unit : own_units_) bring_forward(unit);
    units_sent_ -= std::min<std::uint64_t>(count, units_sent_ - units_done_);
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

bool ExpectedAnswers::earlier_name(std::string_view client_name) const {
    return std::any_of(first(), entries_.end(), [&](const Entry& entry) {
        return entry.unit <= units_sent_ && entry.for_client && entry.client_name == client_name;
    });
}

bool ExpectedAnswers::earlier_statement(const Statement* statement) const {
    return std::any_of(first(), entries_.end(), [&](const Entry& entry) {
        return entry.unit <= units_sent_ && entry.statement.get() == statement;
    });
}

bool ExpectedAnswers::earlier_unnamed() const {
    const auto newest = std::find_if(entries_.rbegin(), std::make_reverse_iterator(first()),
                                     [](const Entry& entry) { return entry.unnamed; });
    return newest != std::make_reverse_iterator(first()) && newest->unit <= units_sent_;
}

bool ExpectedAnswers::any_unnamed() const {
    return std::any_of(first(), entries_.end(), [](const Entry& entry) { return entry.unnamed; });
}

void ExpectedAnswers::compact() {
    if (empty()) {
        // Mostly one entry is sent and answered: the memory stays, nothing moves.
        entries_.clear();
        head_ = 0;
    } else if (head_ >= max_answered_kept && head_ >= entries_.size() / 2) {
        // Of a client that always has more under way.
        entries_.erase(entries_.begin(), first());
        head_ = 0;
    }
}

}  // namespace pgxc::pooler
