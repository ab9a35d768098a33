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

class Resolver::Request final : public Handle::Target {
  public:
    Request(std::function<void()> to_do, std::function<void()> when_done)
        : job(std::move(to_do)), done(std::move(when_done)) {}
    void cancel() override { done = nullptr; }
    /// From the loop, once.
    void finish() {
        if (done) std::exchange(done, nullptr)();
    }

    std::function<void()> job;   // the thread's, once it has been asked
    std::function<void()> done;  // the loop's thread only
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

Resolver::Resolver(Loop& loop) : loop_(loop), queue_(std::make_shared<Queue>()) {}

Resolver::~Resolver() {
    queue_->close();
}

std::optional<SocketAddress> Resolver::without_lookup(const std::string& host, std::uint16_t port) {
    if (host.starts_with('/')) return SocketAddress::unix_socket(host + "/.s.PGSQL." + std::to_string(port));
    return SocketAddress::from_literal(host, port);
}

Handle Resolver::resolve(const std::string& host, std::uint16_t port, Callback callback) {
    if (const auto known = without_lookup(host, port)) {
        auto request = std::make_shared<Request>(nullptr, [callback = std::move(callback), known] {
            callback(std::vector<SocketAddress>{*known});
        });
        loop_.post([request] { request->finish(); });
        return Handle{std::move(request)};
    }
    auto answer = std::make_shared<std::optional<Answer>>();
    return run([host, port, answer] { answer->emplace(look_up_host(host, port)); },
               [callback = std::move(callback), answer] { callback(std::move(**answer)); });
}

Handle Resolver::run(std::function<void()> job, std::function<void()> done) {
    auto request = std::make_shared<Request>(std::move(job), std::move(done));
    if (!queue_->started) {
        auto watch = loop_.watch_readable(queue_->wake_fd(), [this] { collect(); });
        if (!watch) {
            // Without descriptors nothing else goes on either: late is better than never.
            loop_.post([request] {
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
