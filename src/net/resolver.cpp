#include "net/resolver.h"

#include <netdb.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <cstring>
#include <list>
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
    Request(std::weak_ptr<Queue> queue, std::function<void()> to_do, std::function<void()> when_done)
        : job(std::move(to_do)), done(std::move(when_done)), queue_(std::move(queue)) {}
    void cancel() override;
    /// An exception must not leave the thread: who waits finds no result.
    void work() {
        try {
            job();
        } catch (...) {
        }
        job = nullptr;  // what it holds is destroyed here, not in the loop's thread
    }
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
    explicit Queue(int most_threads)
        : most_threads_(most_threads), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
    [[nodiscard]] int wake_fd() const { return wake_.get(); }

    /// False: there is no thread, and none can be started.
    [[nodiscard]] static bool ask(const std::shared_ptr<Queue>& queue,
                                  const std::shared_ptr<Request>& request) {
        const std::lock_guard lock{queue->mutex_};
        if (queue->asked_.size() >= queue->idle_ && queue->threads_ < queue->most_threads_) {
            if (start_thread(queue)) {
                ++queue->threads_;
                ++queue->idle_;
            } else if (queue->threads_ == 0) {
                return false;
            }
        }
        queue->asked_.push_back(request);
        queue->changed_.notify_one();
        return true;
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
        changed_.notify_all();
    }
    std::list<std::shared_ptr<Request>> take_done() {
        std::uint64_t count = 0;
        (void)!::read(wake_.get(), &count, sizeof count);
        const std::lock_guard lock{mutex_};
        return std::exchange(done_, {});
    }

  private:
    /// A new thread inherits the mask: signals belong to the thread that knows PostgreSQL's handlers.
    [[nodiscard]] static bool start_thread(const std::shared_ptr<Queue>& queue) {
        sigset_t all;
        sigset_t before;
        sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before);
        bool started = true;
        try {
            std::thread{[queue] { queue->work(); }}.detach();
        } catch (const std::exception&) {
            started = false;
        }
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return started;
    }

    void work() {
        std::list<std::shared_ptr<Request>> mine;  // moved from list to list: that needs no memory
        std::unique_lock lock{mutex_};
        for (;;) {
            changed_.wait(lock, [this] { return closed_ || !asked_.empty(); });
            if (closed_) return;
            mine.splice(mine.end(), asked_, asked_.begin());
            --idle_;
            lock.unlock();
            mine.front()->work();
            lock.lock();
            ++idle_;
            if (closed_) return;
            done_.splice(done_.end(), mine);
            const std::uint64_t one = 1;
            (void)!::write(wake_.get(), &one, sizeof one);
        }
    }

    const int most_threads_;
    UniqueFd wake_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::list<std::shared_ptr<Request>> asked_;
    std::list<std::shared_ptr<Request>> done_;
    int threads_ = 0;
    std::size_t idle_ = 0;  // of the threads
    bool closed_ = false;
};

void Resolver::Request::cancel() {
    if (!done) return;
    done = nullptr;
    if (const auto queue = queue_.lock()) queue->take_back(*this);
}

Resolver::Resolver(Loop& loop, int most_threads)
    : loop_(loop), queue_(std::make_shared<Queue>(most_threads)) {}

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
    auto asker = std::make_shared<Asker<Answer>>(std::move(callback));
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
               [this, key, answer] {
                   if (!*answer)
                       answer->emplace(Error{
                           sqlstate::unable_to_connect,
                           "could not look up host name \"" + key.first + "\": no memory or thread for it"});
                   looked_up(key, **answer);
               });
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
    if (!watched_) {
        auto watch = loop_.watch_readable(queue_->wake_fd(), [this] { collect(); });
        if (!watch) {
            // Without descriptors nothing else goes on either: late is better than never.
            loop_.post([request] {
                if (!request->done) return;
                request->work();
                request->finish();
            });
            return Handle{std::move(request)};
        }
        watch_ = std::move(*watch);
        watched_ = true;
    }
    if (!Queue::ask(queue_, request)) loop_.post([request] { request->finish(); });
    return Handle{std::move(request)};
}

void Resolver::collect() {
    for (const auto& request : queue_->take_done()) request->finish();
}

}  // namespace pgxc::net
