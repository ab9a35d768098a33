#pragma once

#include <functional>
#include <utility>

#include "net/loop.h"

namespace pgxc::net {

/// One of several who wait for the same answer: it is told once, and not after its handle is gone.
template <class Answer>
class Asker final : public Handle::Target {
  public:
    using Callback = std::function<void(const Answer&)>;
    explicit Asker(Callback callback) : callback_(std::move(callback)) {}
    void cancel() override { callback_ = nullptr; }
    [[nodiscard]] bool has_gone() const { return callback_ == nullptr; }
    void tell(const Answer& answer) {
        if (callback_) std::exchange(callback_, nullptr)(answer);
    }

  private:
    Callback callback_;
};

}  // namespace pgxc::net
