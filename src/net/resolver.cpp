#include "net/resolver.h"

#include <netdb.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

namespace pgxc::net {

Result<std::vector<SocketAddress>> look_up_host(const std::string& host, std::uint16_t port) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV;
    addrinfo* list = nullptr;
    const int failed = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
    if (failed != 0) {
        return Error{sqlstate::unable_to_connect,
                     "could not translate host name \"" + host + "\" to address: " + ::gai_strerror(failed)};
    }
    std::vector<SocketAddress> addresses;
    for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
        SocketAddress address;
        if (entry->ai_addrlen > sizeof address.storage) continue;
        std::memcpy(&address.storage, entry->ai_addr, entry->ai_addrlen);
        address.length = entry->ai_addrlen;
        addresses.push_back(address);
    }
    ::freeaddrinfo(list);
    return addresses;
}

class Resolver::Asker final : public Handle::Target {
  public:
    explicit Asker(Callback callback) : callback_(std::move(callback)) {}
    void cancel() override { callback_ = nullptr; }
    [[nodiscard]] bool has_gone() const { return callback_ == nullptr; }
    void tell(const Answer& answer) {
        if (callback_) std::exchange(callback_, nullptr)(answer);
    }

  private:
    Callback callback_;
};

class Resolver::Request final : public Handle::Target {
  public:
    Request(std::weak_ptr<Queue> queue, std::function<void()> to_do, std::function<void()> when_done)
        : job(std::move(to_do)), done(std::move(when_done)), queue_(std::move(queue)) {}
    void cancel() override;
    /// From the loop, once.
    void finish() {
        if (done) std::exchange(done, nullptr)();
    }

    std::function<void()> job;   // the thread's, once it has been asked
    std::function<void()> done;  // the loop's thread only

  private:
    std::weak_ptr<Queue> queue_;
};

class Resolver::Queue {
  public:
    Queue() : wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
    [[nodiscard]] int wake_fd() const { return wake_.get(); }

    void ask(const std::shared_ptr<Request>& request) {
        const std::lock_guard lock{mutex_};
        asked_.push_back(request);
        changed_.notify_one();
    }
    /// Unless it has begun.
    void take_back(const Request& request) {
        const std::lock_guard lock{mutex_};
        std::erase_if(asked_, [&](const auto& asked) { return asked.get() == &request; });
    }
    void close() {
        const std::lock_guard lock{mutex_};
        closed_ = true;
        asked_.clear();
        changed_.notify_one();
    }
    std::vector<std::shared_ptr<Request>> take_done() {
        std::uint64_t count = 0;
        (void)!::read(wake_.get(), &count, sizeof count);
        const std::lock_guard lock{mutex_};
        return std::exchange(done_, {});
    }

    void work() {
        std::unique_lock lock{mutex_};
        for (;;) {
            changed_.wait(lock, [this] { return closed_ || !asked_.empty(); });
            if (closed_) return;
            auto request = std::move(asked_.front());
            asked_.pop_front();
            lock.unlock();
            request->job();
            request->job = nullptr;  // what it holds is destroyed here, not in the loop's thread
            lock.lock();
            if (closed_) return;
            done_.push_back(std::move(request));
            const std::uint64_t one = 1;
            (void)!::write(wake_.get(), &one, sizeof one);
        }
    }

    bool started = false;  // the loop's thread only

  private:
    UniqueFd wake_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::shared_ptr<Request>> asked_;
    std::vector<std::shared_ptr<Request>> done_;
    bool closed_ = false;
};

void Resolver::Request::cancel() {
    if (!done) return;
    done = nullptr;
    if (const auto queue = queue_.lock()) queue->take_back(*this);
}

Resolver::Resolver(Loop& loop) : loop_(loop), queue_(std::make_shared<Queue>()) {}

Resolver::~Resolver() {
    queue_->close();
}

std::optional<SocketAddress> Resolver::without_lookup(const std::string& host, std::uint16_t port) {
    if (host.starts_with('/')) return SocketAddress::unix_socket(host + "/.s.PGSQL." + std::to_string(port));
    return SocketAddress::from_literal(host, port);
}

Handle Resolver::resolve(const std::string& host, std::uint16_t port, Callback callback) {
    const TimePoint now = Clock::now();
    std::erase_if(names_, [now](const auto& entry) {
        const Name& name = entry.second;
        return name.answer && now - name.answered_at >= answer_is_good_for;
    });
    auto asker = std::make_shared<Asker>(std::move(callback));
    const Key key{host, port};
    std::optional<Answer> known;
    if (const auto address = without_lookup(host, port)) {
        known = std::vector<SocketAddress>{*address};
    } else {
        Name& name = names_[key];
        if (!name.look_up) name.look_up = look_up(key);
        std::erase_if(name.askers, [](const auto& other) { return other->has_gone(); });
        if (!name.answer) name.askers.push_back(asker);
        known = name.answer;
    }
    if (known) loop_.post([asker, answer = std::move(*known)] { asker->tell(answer); });
    return Handle{std::move(asker)};
}

Handle Resolver::look_up(const Key& key) {
    auto answer = std::make_shared<std::optional<Answer>>();
    return run([key, answer] { answer->emplace(look_up_host(key.first, key.second)); },
               [this, key, answer] { looked_up(key, **answer); });
}

void Resolver::looked_up(const Key& key, const Answer& answer) {
    const auto found = names_.find(key);
    const auto askers = std::exchange(found->second.askers, {});
    if (answer.ok()) {
        found->second.answer = answer;
        found->second.answered_at = Clock::now();
    } else {
        names_.erase(found);
    }
    for (const auto& asker : askers) asker->tell(answer);
}

Handle Resolver::run(std::function<void()> job, std::function<void()> done) {
    auto request = std::make_shared<Request>(queue_, std::move(job), std::move(done));
    if (!queue_->started) {
        auto watch = loop_.watch_readable(queue_->wake_fd(), [this] { collect(); });
        if (!watch) {
            // Without descriptors nothing else goes on either: late is better than never.
            loop_.post([request] {
                if (!request->done) return;
                request->job();
                request->finish();
            });
            return Handle{std::move(request)};
        }
        watch_ = std::move(*watch);
        sigset_t all;
        sigset_t before;
        sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before);
        std::thread{[queue = queue_] { queue->work(); }}.detach();
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
        queue_->started = true;
    }
    queue_->ask(request);
    return Handle{std::move(request)};
}

void Resolver::collect() {
    for (const auto& request : queue_->take_done()) request->finish();
}

}  // namespace pgxc::net
