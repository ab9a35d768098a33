#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "replication/promotion_plan.h"
#include "replication/server_files.h"

/// Does the part of a promotion that needs files and pg_ctl, on a server of this host.
///
/// The files are edited, the server is stopped and started again; a start that fails is undone. What is being
/// done is written down beforehand in <data_directory>/pgxc_ha.restart (the journal: the old text of every
/// file), so that a coordinator that died in the middle leaves nothing that another can't undo or repeat.
namespace pgxc::replication {

struct RestartOptions {
    /// For people and for the next decider: who does this and why (node, epoch, claim). Kept in the journal.
    std::string intent;
    /// How long a fast stop may take. Then it is made an immediate one, which takes as long again at most:
    /// for a slave that is safe, because all WAL that it has acknowledged is flushed.
    Millis stop_timeout{10'000};
    /// How long the start may take, until the server takes connections.
    Millis start_timeout{60'000};
};

/// A restart as a state machine that never blocks for longer than a few fsyncs. The caller waits until
/// event_fd() is readable or next_wakeup() has come, calls advance(), and before each pg_ctl checks its
/// claim:
///
///     auto restart = RestartPromotion::prepare(server, plan, options);         // locks, journal, edits
///     files for (;;) {
///         switch (restart->phase()) {
///             case Phase::ReadyToStop:  claim ? restart->stop(now) : restart->abandon(now); break;
///             case Phase::ReadyToStart: claim ? restart->start(now) : restart->abandon(now); break;
///             case Phase::Done:   ...   case Phase::Failed: restart->error() ...
///             default: co_await (event_fd readable or next_wakeup); restart->advance(now);
///         }
///     }
class RestartPromotion {
  public:
    enum class Phase : std::uint8_t {
        ReadyToStop,   // files edited, server still runs with the old ones in memory
        Stopping,      // pg_ctl stop has been asked for
        ReadyToStart,  // the server is down, the new files are there
        Starting,      // pg_ctl is starting it
        RollingBack,   // something failed: the old files are back, the server is (stopped and) started with
                       // them
        Done,          // up, on the wanted port; the journal is gone
        Failed,        // error() tells what failed and what state things are in now; the journal is gone
    };

    /// Takes the lock on the data directory (held as long as this object lives), undoes what a decider that
    /// died has left, checks that this can work (owner, pg_ctl, port free, is a slave), writes the journal,
    /// edits the files. On an Error the files are as before and the server hasn't been touched.
    [[nodiscard]] static Result<RestartPromotion> prepare(ServerFiles server, const PromotionPlan& plan,
                                                          RestartOptions options);

    RestartPromotion(RestartPromotion&&) noexcept;
    RestartPromotion& operator=(RestartPromotion&&) noexcept;
    ~RestartPromotion();

    [[nodiscard]] Phase phase() const;
    [[nodiscard]] const Error& error() const;
    [[nodiscard]] int event_fd() const;
    [[nodiscard]] std::optional<TimePoint> next_wakeup() const;

    void stop(TimePoint now);   // in ReadyToStop
    void start(TimePoint now);  // in ReadyToStart
    /// In ReadyToStop or ReadyToStart: puts the files back, and the server too if it was stopped.
    void abandon(TimePoint now);
    /// Goes as far as it can without waiting. May be called at any time.
    void advance(TimePoint now);

  private:
    struct State;
    explicit RestartPromotion(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

/// Could prepare() edit the files that this plan changes? Writes each new text beside its file, as prepare()
/// would, and removes it again: what is refused (permissions, a full disk, a syntax error in the file) is
/// known before anything is begun. Whether the port is free is another question.
[[nodiscard]] Status check_restart(const ServerFiles& server, const PromotionPlan& plan);

/// Is anything listening where this server would, if it were restarted on that port? 55006 if so.
[[nodiscard]] Status check_port_is_free(const PostmasterPid& postmaster, std::uint16_t port);

/// The same, blocking, for tools and tests. `before_pg_ctl` is called before each pg_ctl; its Error abandons.
[[nodiscard]] Status run_restart_promotion(ServerFiles server, const PromotionPlan& plan,
                                           RestartOptions options,
                                           const std::function<Status()>& before_pg_ctl);

}  // namespace pgxc::replication
