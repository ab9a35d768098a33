#include "replication/restart_promotion.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "replication/durable_file.h"
#include "replication/pg_ctl.h"
#include "replication/restart_journal.h"
#include "unit/replication/temporary_directory.h"

/// The machine against a pg_ctl that is a script: it plays a server that is a `sleep` working in the data
/// directory. (The real one: test/cluster/restart_promotion_test.py.)
namespace pgxc::replication {
namespace {

using Phase = RestartPromotion::Phase;

class RestartPromotionTest : public ::testing::Test {
  protected:
    void SetUp() override {
        std::filesystem::create_directories(data_ + "/global");
        std::filesystem::create_directories(bin_);
        write_text(data_ + "/PG_VERSION", "15\n");
        write_text(data_ + "/global/pg_control", "12345678rest");
        write_text(conf_, original_conf);
        write_text(auto_conf_, original_auto_conf);
        write_text(data_ + "/standby.signal", "");
        write_text(bin_ + "/pg_ctl", pg_ctl_script);
        ::chmod((bin_ + "/pg_ctl").c_str(), 0755);
        start_fake_server(5433);
    }

    void TearDown() override {
        if (const auto server = running_postmaster(data_)) ::kill(server->pid, SIGKILL);
    }

    // The start of the fake pg_ctl reads the port from the file in which it is effective, as a server would.
    void start_fake_server(int port) {
        const auto result = run(start_command(files_as_given(), data_ + "/log", Millis{5000}), Millis{20000});
        ASSERT_TRUE(result.ok() && result->succeeded()) << (result ? result->output : result.error().message);
        ASSERT_EQ(running_postmaster(data_)->port, port);
    }

    ServerFiles files_as_given() {
        ServerFiles server;
        server.data_directory = data_;
        server.config_file = conf_;
        server.bin_directory = bin_;
        server.arguments = {bin_ + "/postgres", "-D", data_};
        return server;
    }

    ServerFiles inspected() {
        auto server = inspect_server(data_, conf_);
        EXPECT_TRUE(server.ok());
        server->bin_directory = bin_;  // the process is a sleep
        server->arguments = {bin_ + "/postgres", "-D", data_};
        return *server;
    }

    PromotionPlan plan_to(std::uint16_t port, bool restore_command = false) {
        PromotionFacts facts;
        facts.node = "datanode 3";
        facts.server_version_num = 150000;
        facts.with_restart = true;
        facts.listens_on_port = 5433;
        facts.wanted_port = port;
        facts.has_restore_command = restore_command;
        facts.files_reachable = true;
        auto plan = plan_promotion(facts);
        EXPECT_TRUE(plan.ok());
        return *plan;
    }

    static RestartOptions options(Millis stop_timeout = Millis{20'000}) {
        RestartOptions result;
        result.intent = "epoch 5 of datanode 1: datanode 3 \xe9";
        result.stop_timeout = stop_timeout;
        result.start_timeout = Millis{5000};
        return result;
    }

    Status restart_to(std::uint16_t port, bool restore_command = false,
                      const RestartOptions& with = options()) {
        return run_restart_promotion(inspected(), plan_to(port, restore_command), with,
                                     [] { return Status{}; });
    }

    void expect_files_restored() {
        EXPECT_EQ(text_of(conf_), original_conf);
        EXPECT_EQ(text_of(auto_conf_), original_auto_conf);
        EXPECT_TRUE(std::filesystem::exists(data_ + "/standby.signal"));
        EXPECT_FALSE(std::filesystem::exists(data_ + "/recovery.signal"));
        expect_no_journal();
    }

    void expect_no_journal() {
        const auto unfinished = unfinished_restart(data_);
        ASSERT_TRUE(unfinished.ok());
        EXPECT_FALSE(*unfinished);
    }

    // What pg_ctl does next time; each word is a file that the script looks for.
    void script(const std::string& behaviour) { write_text(data_ + "/fake_" + behaviour, ""); }

    std::string calls() { return text_of(data_ + "/fake_calls"); }

    static constexpr const char* original_conf = "# main\nport = 5432\t# b\xe9\nx = 1\n";
    static constexpr const char* original_auto_conf =
        "# Do not edit\nport = '5433'\nprimary_conninfo = 'host=h'\n";
    static constexpr const char* pg_ctl_script = R"(#!/bin/sh
action=$1
data=$3
echo "$*" >> $data/fake_calls
pid=$(head -n 1 $data/postmaster.pid 2>/dev/null)
case $action in
stop)
    if [ -e $data/fake_stop_fails ]; then echo "cannot stop"; exit 1; fi
    case "$*" in
    *fast*) [ -e $data/fake_ignores_fast ] && exit 0 ;;
    esac
    if [ -e $data/fake_ignores_all ]; then exit 0; fi
    rm -f $data/postmaster.pid
    kill -9 $pid ;;
restart)
    while [ $# -gt 0 ]; do [ "$1" = -l ] && log=$2; shift; done
    port=$(sed -n 's/^port = .\{0,1\}\([0-9]*\).*/\1/p' $data/../etc/postgresql.conf $data/postgresql.auto.conf | tail -n 1)
    echo "starting on port $port" >> $log
    if [ -e $data/fake_fails_on_$port ]; then
        echo "FATAL:  no such luck" >> $log
        echo "pg_ctl: could not start server"
        exit 1
    fi
    if [ -e $data/fake_promotes ]; then rm -f $data/recovery.signal; fi
    if [ -e $data/fake_promotes_and_fails ]; then rm -f $data/recovery.signal; exit 1; fi
    [ -e $data/fake_other_port ] && port=7777
    cd $data
    sleep 600 >>$log 2>&1 &
    printf '%s\n%s\n1\n%s\n\n\n\nready   \n' $! $data $port > postmaster.tmp
    cp postmaster.tmp postmaster.pid
    # A real one sleeps 100 ms between two looks: whoever waits for its exit only is slow.
    [ -e $data/fake_lingers ] && exec sleep 600
    exit 0 ;;
esac
)";

    TemporaryDirectory directory_;
    std::string data_ = directory_ / "data";
    std::string bin_ = directory_ / "bin";
    std::string conf_ = prepare_etc();
    std::string auto_conf_ = directory_ / "data/postgresql.auto.conf";

  private:
    std::string prepare_etc() {
        std::filesystem::create_directories(directory_ / "etc");
        return directory_ / "etc/postgresql.conf";
    }
};

TEST_F(RestartPromotionTest, TakesOverThePort) {
    const pid_t old_pid = running_postmaster(data_)->pid;
    const auto done = restart_to(6001);
    ASSERT_TRUE(done.ok()) << done.error().message << done.error().detail;
    const auto server = running_postmaster(data_);
    ASSERT_TRUE(server);
    EXPECT_EQ(server->port, 6001);
    EXPECT_NE(server->pid, old_pid);
    // Changed where it is effective and nowhere else.
    EXPECT_EQ(text_of(conf_), original_conf);
    EXPECT_EQ(text_of(auto_conf_), "# Do not edit\nport = '6001'\nprimary_conninfo = 'host=h'\n");
    EXPECT_TRUE(std::filesystem::exists(data_ + "/standby.signal"));
    expect_no_journal();
    EXPECT_NE(calls().find("stop -D " + data_ + " -m fast -W"), std::string::npos);
}

TEST_F(RestartPromotionTest, DoesNotWaitForPgCtlOnceTheServerIsReady) {
    script("lingers");
    EXPECT_TRUE(restart_to(6002).ok());
    EXPECT_TRUE(running_postmaster(data_));
}

TEST_F(RestartPromotionTest, AFailedStartPutsEverythingBack) {
    script("fails_on_6003");
    const auto done = restart_to(6003, true);
    ASSERT_FALSE(done.ok());
    EXPECT_EQ(done.error().sqlstate, sqlstate::object_not_in_prerequisite_state);
    EXPECT_NE(done.error().message.find("did not start on port 6003"), std::string::npos)
        << done.error().message;
    EXPECT_NE(done.error().detail.find("pg_ctl: could not start server"), std::string::npos);
    EXPECT_NE(done.error().detail.find("FATAL:  no such luck"), std::string::npos);
    EXPECT_NE(done.error().detail.find("runs again on port 5433"), std::string::npos) << done.error().detail;
    expect_files_restored();
    EXPECT_EQ(running_postmaster(data_)->port, 5433);
}

TEST_F(RestartPromotionTest, SaysSoWhereTheOldFilesDoNotStartEither) {
    script("fails_on_6004");
    script("fails_on_5433");
    const auto done = restart_to(6004);
    ASSERT_FALSE(done.ok());
    EXPECT_NE(done.error().detail.find("does not start with them either"), std::string::npos);
    EXPECT_NE(done.error().hint.find("pg_ctl start"), std::string::npos);
    expect_files_restored();
    EXPECT_FALSE(running_postmaster(data_));
}

TEST_F(RestartPromotionTest, AServerOnTheWrongPortIsTakenBack) {
    script("other_port");
    const auto done = restart_to(6005);
    ASSERT_FALSE(done.ok());
    EXPECT_NE(done.error().message.find("came up on port 7777"), std::string::npos);
    expect_files_restored();
    EXPECT_TRUE(running_postmaster(data_));
}

TEST_F(RestartPromotionTest, ReplacesTheSignalFile) {
    const auto done = restart_to(6006, true);
    ASSERT_TRUE(done.ok());
    EXPECT_FALSE(std::filesystem::exists(data_ + "/standby.signal"));
    EXPECT_TRUE(std::filesystem::exists(data_ + "/recovery.signal"));
    expect_no_journal();
}

TEST_F(RestartPromotionTest, NeverMakesAMasterASlaveAgain) {
    script("promotes_and_fails");
    const auto done = restart_to(6007, true);
    ASSERT_FALSE(done.ok());
    EXPECT_NE(done.error().detail.find("is a master"), std::string::npos) << done.error().detail;
    EXPECT_FALSE(std::filesystem::exists(data_ + "/standby.signal"));
    EXPECT_NE(text_of(auto_conf_), original_auto_conf);
    expect_no_journal();
}

TEST_F(RestartPromotionTest, AStopThatFailsChangesNothing) {
    script("stop_fails");
    const pid_t old_pid = running_postmaster(data_)->pid;
    const auto done = restart_to(6008);
    ASSERT_FALSE(done.ok());
    EXPECT_NE(done.error().detail.find("cannot stop"), std::string::npos);
    EXPECT_NE(done.error().detail.find("restored"), std::string::npos);
    expect_files_restored();
    EXPECT_EQ(running_postmaster(data_)->pid, old_pid);
}

TEST_F(RestartPromotionTest, AStopThatHangsIsMadeImmediate) {
    script("ignores_fast");
    EXPECT_TRUE(restart_to(6009, false, options(Millis{3'000})).ok());
    EXPECT_NE(calls().find("-m immediate"), std::string::npos);
}

TEST_F(RestartPromotionTest, AServerThatNeverStopsIsReported) {
    script("ignores_all");
    const auto done = restart_to(6010, false, options(Millis{300}));
    ASSERT_FALSE(done.ok());
    EXPECT_NE(done.error().message.find("does not stop"), std::string::npos);
    expect_files_restored();
}

TEST_F(RestartPromotionTest, ALostClaimStopsItAtEveryPoint) {
    const pid_t old_pid = running_postmaster(data_)->pid;
    const Error lost(sqlstate::lock_not_available, "claim lost");
    auto done = run_restart_promotion(inspected(), plan_to(6011), options(), [&] { return Status(lost); });
    ASSERT_FALSE(done.ok());
    EXPECT_NE(done.error().message.find("abandoned"), std::string::npos);
    expect_files_restored();
    EXPECT_EQ(running_postmaster(data_)->pid, old_pid);

    int asked = 0;
    done = run_restart_promotion(inspected(), plan_to(6011), options(),
                                 [&] { return ++asked == 1 ? Status{} : Status(lost); });
    ASSERT_FALSE(done.ok());
    EXPECT_EQ(asked, 2);
    expect_files_restored();
    EXPECT_EQ(running_postmaster(data_)->port, 5433);  // as a slave, on its old port
}

TEST_F(RestartPromotionTest, OneDeciderAtATime) {
    const auto first = RestartPromotion::prepare(inspected(), plan_to(6012), options());
    ASSERT_TRUE(first.ok());
    const auto second = RestartPromotion::prepare(inspected(), plan_to(6012), options());
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().sqlstate, sqlstate::lock_not_available);
    EXPECT_EQ(undo_unfinished_restart(data_).error().sqlstate, sqlstate::lock_not_available);
}

TEST_F(RestartPromotionTest, ADeadDecidersWorkIsSeenAndUndone) {
    { ASSERT_TRUE(RestartPromotion::prepare(inspected(), plan_to(6013, true), options()).ok()); }
    EXPECT_NE(text_of(auto_conf_), original_auto_conf);
    EXPECT_FALSE(std::filesystem::exists(data_ + "/standby.signal"));
    EXPECT_EQ(*unfinished_restart(data_), options().intent);
    // Somebody's ALTER SYSTEM in between must survive.
    ASSERT_TRUE(undo_unfinished_restart(data_).ok());
    expect_files_restored();
    EXPECT_TRUE(undo_unfinished_restart(data_).ok());
}

TEST_F(RestartPromotionTest, UndoingKeepsWhatOthersChangedMeanwhile) {
    { ASSERT_TRUE(RestartPromotion::prepare(inspected(), plan_to(6014), options()).ok()); }
    write_text(auto_conf_, text_of(auto_conf_) + "work_mem = '8MB'\n");
    ASSERT_TRUE(undo_unfinished_restart(data_).ok());
    EXPECT_EQ(text_of(auto_conf_), std::string(original_auto_conf) + "work_mem = '8MB'\n");

    { ASSERT_TRUE(RestartPromotion::prepare(inspected(), plan_to(6014), options()).ok()); }
    write_text(auto_conf_, "port = 9999\n");
    ASSERT_TRUE(undo_unfinished_restart(data_).ok());
    EXPECT_EQ(text_of(auto_conf_), "port = 9999\n");
}

TEST_F(RestartPromotionTest, TakesSettingsOutAndPutsThemBack) {
    // As before PostgreSQL 12, whose recovery.conf knows no empty primary_conninfo.
    const std::string recovery_conf = data_ + "/recovery.conf";
    const std::string original = "# mine\nstandby_mode = 'on'\r\nprimary_conninfo = 'host=h password=x'\n";
    write_text(recovery_conf, original);
    write_text(data_ + "/PG_VERSION", "11\n");
    PromotionFacts facts;
    facts.node = "datanode 3";
    facts.server_version_num = 110000;
    facts.listens_on_port = 5433;
    facts.files_reachable = true;
    const auto plan = plan_stream_restart(facts, {{"primary_conninfo", std::nullopt}});
    ASSERT_TRUE(plan.ok());
    ASSERT_TRUE(check_restart(inspected(), *plan).ok());
    EXPECT_EQ(text_of(recovery_conf), original);
    expect_no_journal();
    const std::string cut = "# mine\nstandby_mode = 'on'\r\nrecovery_target_timeline = 'latest'\n";
    { ASSERT_TRUE(RestartPromotion::prepare(inspected(), *plan, options()).ok()); }
    EXPECT_EQ(text_of(recovery_conf), cut);
    ASSERT_TRUE(undo_unfinished_restart(data_).ok());
    EXPECT_EQ(text_of(recovery_conf), original);
    // What somebody else has changed meanwhile stays.
    { ASSERT_TRUE(RestartPromotion::prepare(inspected(), *plan, options()).ok()); }
    write_text(recovery_conf, text_of(recovery_conf) + "restore_command = 'false'\n");
    ASSERT_TRUE(undo_unfinished_restart(data_).ok());
    EXPECT_EQ(text_of(recovery_conf),
              "# mine\nstandby_mode = 'on'\r\nrestore_command = 'false'\n"
              "primary_conninfo = 'host=h password=x'\n");
    write_text(recovery_conf, original);
    ASSERT_TRUE(run_restart_promotion(inspected(), *plan, options(), [] { return Status{}; }).ok());
    EXPECT_EQ(text_of(recovery_conf), cut);
    expect_no_journal();
}

TEST_F(RestartPromotionTest, WhatCanNotBeEditedIsKnownBefore) {
    ASSERT_TRUE(check_restart(inspected(), plan_to(6013)).ok());
    write_text(conf_, "port = = 1\n");
    auto refused = check_restart(inspected(), plan_to(6013));
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().sqlstate, sqlstate::config_file_error);
    write_text(conf_, original_conf);
    struct rlimit old {};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
    struct rlimit small = old;
    small.rlim_cur = 10;  // the disk is full, as far as a test can have it
    const auto handler = ::signal(SIGXFSZ, SIG_IGN);
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    refused = check_restart(inspected(), plan_to(6013));
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
    ::signal(SIGXFSZ, handler);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().sqlstate, sqlstate::configuration_limit_exceeded);
    EXPECT_NE(refused.error().hint, "");
    expect_files_restored();
    for (const auto& entry : std::filesystem::directory_iterator(data_))
        EXPECT_EQ(entry.path().filename().string().find(".pgxc-"), std::string::npos) << entry.path();
}

TEST_F(RestartPromotionTest, TheNextDeciderRepeatsIt) {
    { ASSERT_TRUE(RestartPromotion::prepare(inspected(), plan_to(6015), options()).ok()); }
    ASSERT_TRUE(restart_to(6016).ok());
    EXPECT_EQ(text_of(auto_conf_), "# Do not edit\nport = '6016'\nprimary_conninfo = 'host=h'\n");
    // Also where the first one had stopped the server already.
    {
        auto restart = RestartPromotion::prepare(inspected(), plan_to(6017), options());
        ASSERT_TRUE(restart.ok());
        restart->stop(Clock::now());
        while (restart->phase() == Phase::Stopping) {
            pollfd event{restart->event_fd(), POLLIN, 0};
            ::poll(&event, 1, 1000);
            restart->advance(Clock::now());
        }
        ASSERT_EQ(restart->phase(), Phase::ReadyToStart);
    }
    ASSERT_FALSE(running_postmaster(data_));
    ASSERT_TRUE(restart_to(6018).ok());
    EXPECT_EQ(running_postmaster(data_)->port, 6018);
}

TEST_F(RestartPromotionTest, ADoneRestartIsNotUndone) {
    {
        auto restart = RestartPromotion::prepare(inspected(), plan_to(6019), options());
        ASSERT_TRUE(restart.ok());
    }
    // The decider died between the start and the removal of the journal.
    const std::string edited = text_of(auto_conf_);
    ::kill(running_postmaster(data_)->pid, SIGKILL);
    std::filesystem::remove(data_ + "/postmaster.pid");
    start_fake_server(6019);
    ASSERT_TRUE(undo_unfinished_restart(data_).ok());
    EXPECT_EQ(text_of(auto_conf_), edited);
    expect_no_journal();
}

TEST_F(RestartPromotionTest, ABrokenJournalIsForAPerson) {
    write_text(data_ + "/pgxc_ha.restart", "{\"version\": 1");
    const auto unfinished = unfinished_restart(data_);
    ASSERT_FALSE(unfinished.ok());
    EXPECT_EQ(unfinished.error().sqlstate, sqlstate::config_file_error);
    EXPECT_FALSE(restart_to(6020).ok());
    EXPECT_EQ(text_of(auto_conf_), original_auto_conf);
}

TEST_F(RestartPromotionTest, RefusesBeforeAnythingIsTouched) {
    const auto refused = [&](const ServerFiles& server) {
        const auto restart = RestartPromotion::prepare(server, plan_to(6021), options());
        EXPECT_FALSE(restart.ok());
        expect_files_restored();
        return restart.ok() ? Error{} : restart.error();
    };
    auto server = inspected();
    server.owner = ::geteuid() + 1;
    auto error = refused(server);
    EXPECT_EQ(error.sqlstate, sqlstate::insufficient_privilege);
    EXPECT_NE(error.hint.find("pg_ctl restart -D " + data_), std::string::npos);

    server = inspected();
    server.bin_directory = "/nowhere";
    EXPECT_EQ(refused(server).sqlstate, sqlstate::undefined_file);

    server = inspected();
    server.arguments.insert(server.arguments.end(), {"-c", "config_file=postgresql.conf"});
    EXPECT_EQ(refused(server).sqlstate, sqlstate::object_not_in_prerequisite_state);

    PromotionPlan without_restart;
    EXPECT_FALSE(RestartPromotion::prepare(inspected(), without_restart, options()).ok());

    std::filesystem::remove(data_ + "/standby.signal");
    EXPECT_EQ(RestartPromotion::prepare(inspected(), plan_to(6021), options()).error().sqlstate,
              sqlstate::object_not_in_prerequisite_state);
    write_text(data_ + "/standby.signal", "");

    write_text(conf_, "port = 5432\nsyntax error here !\n");
    const auto broken = RestartPromotion::prepare(inspected(), plan_to(6021), options());
    ASSERT_FALSE(broken.ok());
    EXPECT_EQ(broken.error().sqlstate, sqlstate::config_file_error);
    EXPECT_EQ(text_of(auto_conf_), original_auto_conf);
    expect_no_journal();
}

TEST_F(RestartPromotionTest, RefusesAPortInUse) {
    auto server = inspected();
    server.postmaster->listen_address = "127.0.0.1";
    const UniqueFd listener(::socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(listener.get(), 1), 0);
    socklen_t length = sizeof address;
    ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    const auto restart = RestartPromotion::prepare(server, plan_to(ntohs(address.sin_port)), options());
    ASSERT_FALSE(restart.ok());
    EXPECT_EQ(restart.error().sqlstate, sqlstate::object_in_use);
    expect_files_restored();
}

// PostgreSQL takes the zombie of a killed master, not reaped yet, for a living owner of the socket.
TEST_F(RestartPromotionTest, ADeadMastersSocketLockIsCleared) {
    Command command;
    command.arguments = {"/bin/true"};
    auto ended = ChildProcess::start(std::move(command), Clock::now() + Millis{20000});
    ASSERT_TRUE(ended.ok());
    pollfd event{ended->event_fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&event, 1, 20000), 1);  // a zombie from here on, since nobody has asked for its status
    auto server = inspected();
    server.postmaster->socket_directory = directory_.path();
    const std::string socket = directory_ / ".s.PGSQL.6023";
    const auto lock_text = [&](pid_t pid) { return std::to_string(pid) + "\n/d\n1\n6023\n/s\n"; };

    write_text(socket, "");
    write_text(socket + ".lock", lock_text(::getpid()));
    ASSERT_TRUE(run_restart_promotion(server, plan_to(6023), options(), [] { return Status{}; }).ok());
    EXPECT_TRUE(std::filesystem::exists(socket + ".lock"));  // that one lives: the server will say so

    server = inspected();
    server.postmaster->socket_directory = directory_.path();
    write_text(socket + ".lock", lock_text(ended->pid()));
    ASSERT_TRUE(run_restart_promotion(server, plan_to(6023), options(), [] { return Status{}; }).ok());
    EXPECT_FALSE(std::filesystem::exists(socket + ".lock"));
    EXPECT_FALSE(std::filesystem::exists(socket));
}

TEST_F(RestartPromotionTest, AnIncludedFileElsewhereIsLeftAlone) {
    write_text(directory_ / "shared.conf", "port = 5432\n");
    write_text(conf_, "include '" + (directory_ / "shared.conf") + "'\n");
    write_text(auto_conf_, "");
    const auto restart = RestartPromotion::prepare(inspected(), plan_to(6022), options());
    ASSERT_TRUE(restart.ok()) << restart.error().message;
    EXPECT_EQ(text_of(directory_ / "shared.conf"), "port = 5432\n");
    EXPECT_EQ(text_of(conf_), "include '" + (directory_ / "shared.conf") + "'\nport = 6022\n");
}

TEST(PgCtlTest, StartsTheServerAsItWasStarted) {
    ServerFiles server;
    server.data_directory = "/srv/it's";
    server.config_file = "/srv/it's/postgresql.conf";
    server.bin_directory = "/opt/bin";
    server.arguments = {"/opt/bin/postgres", "-D", "relative", "-c", "a=$HOME `x` \"y\" 'z'"};
    server.environment = {"TZ=UTC", "PGDATA=/old", "PG_GRANDPARENT_PID=1", "PG_OOM_ADJUST_FILE=/x"};
    auto command = start_command(server, "/log", Millis{1500});
    EXPECT_EQ(command.arguments,
              (std::vector<std::string>{"/opt/bin/pg_ctl", "restart", "-D", "/srv/it's", "-m", "fast", "-w",
                                        "-t", "2", "-l", "/log", "-p", "/opt/bin/postgres", "-o",
                                        "'-c' 'a=$HOME `x` \"y\" '\\''z'\\''' '-D' '/srv/it'\\''s'"}));
    EXPECT_EQ(command.environment, (std::vector<std::string>{"TZ=UTC", "PG_OOM_ADJUST_FILE=/x"}));

    server.arguments = {"/opt/bin/postgres", "-D", "/etc/pg/15", "-p", "5"};
    EXPECT_EQ(start_command(server, "/log", Millis{1}).arguments.back(), "'-D' '/etc/pg/15' '-p' '5'");
    server.arguments = {"/opt/bin/postgres"};
    server.config_file = "/etc/pg/15/postgresql.conf";
    EXPECT_EQ(start_command(server, "/log", Millis{1}).arguments.back(),
              "'-D' '/srv/it'\\''s' '-c' 'config_file=/etc/pg/15/postgresql.conf'");
    EXPECT_EQ(promote_command(server).arguments,
              (std::vector<std::string>{"/opt/bin/pg_ctl", "promote", "-D", "/srv/it's", "-W"}));
    EXPECT_FALSE(is_safe_in_double_quotes("a$b"));
    EXPECT_TRUE(is_safe_in_double_quotes("/var/lib/post gres"));
}

}  // namespace
}  // namespace pgxc::replication
