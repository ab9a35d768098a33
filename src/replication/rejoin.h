#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "replication/lock_session.h"
#include "replication/node_request.h"
#include "replication/record.h"
#include "replication/rejoin_files.h"
#include "replication/rejoin_plan.h"

namespace pgxc {

/// Makes a slave of a replaced master as far as that takes its files and programs (DESIGN 6.4): stops it,
/// rewinds or copies it, gives it a slave's settings, starts it. A coroutine of its own, beside the group's,
/// because pg_rewind and pg_basebackup may take hours, in which the group must be able to fail over. Knows
/// nothing of the catalog: whoever ordered it registers what runs as a slave afterwards.
class Rejoin : public std::enable_shared_from_this<Rejoin> {
  public:
    struct Order {
        FormerMaster former;
        HostPort master;  // of the present epoch
        ServerPlace master_place;
        Epoch epoch;
        std::uint32_t timeline = 0;  // that it writes
        std::uint64_t system_identifier = 0;
        std::string
            nobody_names;      // what it carries in synchronous_standby_names from before its start (rule 8)
        std::string conninfo;  // how slaves log in to masters; host, port and application_name are replaced
        std::string slot;      // on the master; made before the first step that relies on its WAL
        NodeLogin login;
        bool enabled = true;
        bool counted = false;
        bool stream_failed = false;
        Millis probe_timeout{1'000};
        NodeRequest library;  // what to ask our library on its host for, where the files are out of reach
        bool may_ask_library = true;  // this isn't it
    };

    /// `claim_is_newest` is asked directly before each effect (rule 2); `on_change` is called when doing() or
    /// finished() has changed. Neither is called after stop().
    Rejoin(asio::any_io_executor executor, Order order,
           std::function<asio::awaitable<Status>()> claim_is_newest, std::function<void()> on_change);

    void start();
    /// Ends what runs; nothing is begun any more.
    void stop();

    [[nodiscard]] bool finished() const { return finished_; }
    /// It runs as a slave, or was started as one.
    [[nodiscard]] bool succeeded() const { return succeeded_; }
    /// The library on its host was asked to go on.
    [[nodiscard]] bool asked_library() const { return asked_library_; }
    /// Nothing more can be done here: somebody has to, as doing() tells.
    [[nodiscard]] bool left_to_somebody() const { return left_to_somebody_; }
    /// What is being done, or why nothing more is; with the command to type where somebody has to.
    [[nodiscard]] const std::string& doing() const { return doing_; }
    [[nodiscard]] const Order& order() const { return order_; }

  private:
    asio::awaitable<void> run();
    asio::awaitable<void> take_steps();
    asio::awaitable<replication::RejoinFacts> look();
    asio::awaitable<void> look_for_library(replication::RejoinFacts& facts);
    asio::awaitable<Status> ask_library();
    asio::awaitable<void> look_at_running(replication::RejoinFacts& facts);
    asio::awaitable<void> look_at_stopped(replication::RejoinFacts& facts);
    asio::awaitable<Status> take(replication::RejoinStep step);
    asio::awaitable<Status> make_slot();
    asio::awaitable<Status> stop_it(bool immediate);
    asio::awaitable<Status> checkpoint(NodeConnection& master);
    asio::awaitable<Status> rewind();
    asio::awaitable<Status> copy();
    asio::awaitable<Status> put_copy_in_place();
    Status prepare(const std::string& directory);
    asio::awaitable<Status> start_it();

    asio::awaitable<Result<std::unique_ptr<LockSession>>> lock_session();
    /// A session to the new master that is proven to be it.
    asio::awaitable<Result<std::unique_ptr<NodeConnection>>> master_session();
    asio::awaitable<Result<replication::ProcessResult>> run_program(replication::Command command,
                                                                    Millis time_limit);
    [[nodiscard]] std::string source_conninfo() const;
    [[nodiscard]] Status write(replication::RejoinStage stage);
    void say(std::string what);

    asio::any_io_executor executor_;
    Order order_;
    std::function<asio::awaitable<Status>()> claim_is_newest_;
    std::function<void()> on_change_;
    replication::RejoinFiles files_;
    std::optional<replication::ServerFiles> server_;  // as of the newest look
    replication::RejoinFiles::Journal journal_;
    bool restarted_after_rewind_ = false;
    bool stopped_ = false;
    bool finished_ = false;
    bool succeeded_ = false;
    bool asked_library_ = false;
    bool left_to_somebody_ = false;
    std::string doing_;
};

/// The order that a record leads to, for one of its former masters. How slaves log in, what was seen of its
/// stream and whether this is wanted is the caller's to add.
[[nodiscard]] Rejoin::Order rejoin_order(NodeKey group, const Record& record, const FormerMaster& former,
                                         NodeLogin login);

}  // namespace pgxc
