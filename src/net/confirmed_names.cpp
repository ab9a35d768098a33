#include "net/confirmed_names.h"

#include <algorithm>
#include <utility>

namespace pgxc::net {
namespace {

/// What one owner has as a rule.
ConfirmedNames::Address host_of(const ConfirmedNames::Address& address) {
    constexpr std::size_t network_bytes = 8;
    const ConfirmedNames::Address plain = plain_address(address);
    if (plain.size() <= network_bytes) return plain;
    return {plain.begin(), plain.begin() + network_bytes};
}

}  // namespace

ConfirmedNames::ConfirmedNames(Loop& loop, LookUp look_up)
    : loop_(loop), look_up_(std::move(look_up)), threads_(loop, most_threads) {}

ConfirmedNames::~ConfirmedNames() = default;

Handle ConfirmedNames::ask(const Address& address, Callback callback) {
    forget_old(Clock::now());
    auto asker = std::make_shared<Asker<Answer>>(std::move(callback));
    const auto [place, added] = names_.try_emplace(address);
    Name& name = place->second;
    if (name.answer) {
        loop_.post([asker, answer = name.answer] { asker->tell(answer); });
        return Handle{std::move(asker)};
    }
    if (added) waiting_.push_back(address);
    std::erase_if(name.askers, [](const auto& other) { return other->has_gone(); });
    name.askers.push_back(asker);
    begin_some();
    return Handle{std::move(asker)};
}

void ConfirmedNames::forget_old(TimePoint now) {
    while (!answered_.empty()) {
        const auto oldest = names_.find(answered_.front());
        if (answered_.size() <= max_known && now - oldest->second.answered_at < answer_is_good_for) return;
        names_.erase(oldest);
        answered_.pop_front();
    }
}

void ConfirmedNames::begin_some() {
    for (auto at = waiting_.begin(); at != waiting_.end() && busy_.size() < most_threads;) {
        const auto place = names_.find(*at);
        Name& name = place->second;
        std::erase_if(name.askers, [](const auto& asker) { return asker->has_gone(); });
        if (name.askers.empty()) {
            names_.erase(place);
            at = waiting_.erase(at);
            continue;
        }
        if (!busy_.insert(host_of(*at)).second) {
            ++at;
            continue;
        }
        const Address address = std::move(*at);
        at = waiting_.erase(at);
        auto answer = std::make_shared<Answer>();
        name.look_up = threads_.run([answer, address, look_up = look_up_] { *answer = look_up(address); },
                                    [this, answer, address] { looked_up(address, *answer); });
    }
}

void ConfirmedNames::looked_up(const Address& address, const Answer& answer) {
    busy_.erase(host_of(address));
    const auto place = names_.find(address);
    const auto askers = std::exchange(place->second.askers, {});
    if (answer) {
        place->second.answer = answer;
        place->second.answered_at = Clock::now();
        answered_.push_back(address);
    } else {
        names_.erase(place);
    }
    begin_some();
    for (const auto& asker : askers) asker->tell(answer);
}

}  // namespace pgxc::net
