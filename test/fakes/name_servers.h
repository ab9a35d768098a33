#pragma once

#include <dlfcn.h>
#include <netdb.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"

/// In a test's program that includes this, getaddrinfo() is not the C library's.
namespace pgxc::fakes {

/// Name servers, for the names that a test tells them; other names are for the real ones.
class NameServers {
  public:
    /// Without addresses there is no such name.
    void know(const std::string& name, std::vector<std::string> addresses) {
        const std::lock_guard<std::mutex> lock(mutex_);
        names_[name] = {std::move(addresses), 0};
    }
    /// From now on: are they silent until they are told to answer? How long does each answer take?
    void answer(bool from_now_on, Millis after = {}) {
        const std::lock_guard<std::mutex> lock(mutex_);
        answer_ = from_now_on;
        after_ = after;
        changed_.notify_all();
    }
    [[nodiscard]] int asked(const std::string& name) {
        const std::lock_guard<std::mutex> lock(mutex_);
        return names_[name].asked;
    }
    /// Blocks; nullopt: not their name.
    std::optional<std::vector<std::string>> ask(const std::string& name) {
        std::unique_lock<std::mutex> lock(mutex_);
        const auto found = names_.find(name);
        if (found == names_.end()) return std::nullopt;
        ++found->second.asked;
        const TimePoint ready = Clock::now() + after_;
        while (Clock::now() < ready) changed_.wait_until(lock, ready);
        changed_.wait(lock, [this] { return answer_; });
        return found->second.addresses;
    }

  private:
    struct Name {
        std::vector<std::string> addresses;
        int asked = 0;
    };
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::string, Name> names_;
    bool answer_ = true;
    Millis after_{};
};

/// Never destroyed: a look-up that nobody waits for may outlive the tests.
inline NameServers& name_servers() {
    static auto* them = new NameServers;
    return *them;
}

}  // namespace pgxc::fakes

// Nothing in the sources that include it calls it.
extern "C" [[gnu::used]] inline int getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                                                addrinfo** found) {
    using Function = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
    static const auto real = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, "getaddrinfo"));
    const auto addresses =
        node != nullptr ? pgxc::fakes::name_servers().ask(node) : std::optional<std::vector<std::string>>{};
    if (!addresses) return real(node, service, hints, found);
    if (addresses->empty()) return EAI_NONAME;
    addrinfo** end = found;
    for (const auto& address : *addresses) {
        if (const int failed = real(address.c_str(), service, hints, end); failed != 0) return failed;
        while (*end != nullptr) end = &(*end)->ai_next;
    }
    return 0;
}
