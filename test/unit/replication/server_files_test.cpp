#include "replication/server_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "replication/process_runner.h"
#include "unit/replication/temporary_directory.h"

namespace pgxc::replication {
namespace {

using Settings = std::vector<CommandLineSetting>;

TEST(PostmasterPidTest, ReadsACompleteFile) {
    const auto pid = parse_postmaster_pid(
        "1234\n/srv/pg data\n1700000000\n5433\n/run/postgresql\n127.0.0.1\n  5433001  98304\nready   \n");
    ASSERT_TRUE(pid);
    EXPECT_EQ(*pid, (PostmasterPid{1234, "/srv/pg data", 1700000000, 5433, "/run/postgresql", "127.0.0.1",
                                   PostmasterPid::Status::Ready}));
    EXPECT_TRUE(pid->is_up());
}

TEST(PostmasterPidTest, ReadsAnIncompleteFile) {
    const auto pid = parse_postmaster_pid("1234\n/d\n1700000000\n5433\n\n");
    ASSERT_TRUE(pid);
    EXPECT_EQ(pid->port, 5433);
    EXPECT_EQ(pid->status, PostmasterPid::Status::Unknown);
    EXPECT_FALSE(pid->is_up());
    EXPECT_EQ(parse_postmaster_pid("1\n/d\n1\n1\n\n\n\nstandby \n")->status, PostmasterPid::Status::Standby);
    EXPECT_FALSE(parse_postmaster_pid("1\n/d\n1\n1\n\n\n\nstopping\n")->is_up());
}

TEST(PostmasterPidTest, RefusesOthers) {
    for (const auto* text : {"", "\n", "-55\n/d\n", "abc\n", "99999999999999999999\n", "0\n"}) {
        EXPECT_FALSE(parse_postmaster_pid(text)) << text;
    }
    EXPECT_EQ(parse_postmaster_pid("1\n/d\nx\n70000\n")->port, 0);
}

TEST(PostmasterOptsTest, SplitsAsTheServerWrites) {
    using Args = std::vector<std::string>;
    EXPECT_EQ(parse_postmaster_opts("/usr/bin/postgres\n"), (Args{"/usr/bin/postgres"}));
    EXPECT_EQ(
        parse_postmaster_opts("/my pg/postgres \"-D\" \"/data dir\" \"-c\" \"a=b \"c\" d\" \"\" \"-i\"\n"),
        (Args{"/my pg/postgres", "-D", "/data dir", "-c", "a=b \"c\" d", "", "-i"}));
    EXPECT_EQ(parse_postmaster_opts(""), Args{});
    EXPECT_EQ(parse_postmaster_opts("p \"unfinished"), (Args{"p", "unfinished"}));
}

TEST(CommandLineSettingsTest, KnowsEveryForm) {
    EXPECT_EQ(command_line_settings({"postgres", "-D", "/d", "-p", "5433", "-c", "Log-Min-Messages=debug1",
                                     "--work-mem=1MB", "-k/tmp", "-h", "", "-i", "-F", "-clc=x"}),
              (Settings{{"port", "5433"},
                        {"log_min_messages", "debug1"},
                        {"work_mem", "1MB"},
                        {"unix_socket_directories", "/tmp"},
                        {"listen_addresses", ""},
                        {"listen_addresses", "*"},
                        {"fsync", "off"},
                        {"lc", "x"}}));
    EXPECT_EQ(command_line_settings({"postgres", "-il", "-p5"}),
              (Settings{{"listen_addresses", "*"}, {"ssl", "on"}, {"port", "5"}}));
    EXPECT_EQ(command_line_settings({"postgres", "-D", "-p"}), Settings{});
    EXPECT_EQ(command_line_settings({"postgres", "-p"}), (Settings{{"port", "on"}}));
    EXPECT_EQ(command_line_settings({"postgres"}), Settings{});
    EXPECT_EQ(command_line_settings({}), Settings{});
}

TEST(LocateSettingTest, LastLineWins) {
    const TemporaryDirectory directory;
    const std::string conf = directory / "postgresql.conf";
    const std::string automatic = directory / "postgresql.auto.conf";
    write_text(conf, "port = 1\nport = 2\n");
    EXPECT_EQ(**locate_setting(conf, automatic, "PORT"), (SettingLocation{conf, 2, "2", false}));
    EXPECT_FALSE(*locate_setting(conf, automatic, "work_mem"));
    write_text(automatic, "# x\nport = 3\n");
    EXPECT_EQ(**locate_setting(conf, automatic, "port"), (SettingLocation{automatic, 2, "3", true}));
    EXPECT_EQ(**locate_setting(conf, "", "port"), (SettingLocation{conf, 2, "2", false}));
}

TEST(LocateSettingTest, FollowsIncludes) {
    const TemporaryDirectory directory;
    const std::string conf = directory / "postgresql.conf";
    ASSERT_TRUE(std::filesystem::create_directories(directory / "sub/conf.d"));
    write_text(conf, "port = 1\ninclude 'sub/a.conf'\nwork_mem = '1MB'\ninclude_if_exists 'none.conf'\n");
    write_text(directory / "sub/a.conf", "port = 2\nwork_mem = 2MB\ninclude_dir 'conf.d'\n");
    write_text(directory / "sub/conf.d/10.conf", "port = 10\n");
    write_text(directory / "sub/conf.d/9.conf", "x = 1\nport = 9\n");
    write_text(directory / "sub/conf.d/.hidden.conf", "port = 11\n");
    write_text(directory / "sub/conf.d/zz.conf.bak", "port = 12\n");
    EXPECT_EQ(**locate_setting(conf, "", "port"),
              (SettingLocation{directory / "sub/conf.d/9.conf", 2, "9", false}));
    EXPECT_EQ(**locate_setting(conf, "", "work_mem"), (SettingLocation{conf, 3, "1MB", false}));
}

TEST(LocateSettingTest, FailsWhereTheServerWould) {
    const TemporaryDirectory directory;
    const std::string conf = directory / "postgresql.conf";
    const auto failure = [&](std::string_view text) {
        write_text(conf, text);
        const auto place = locate_setting(conf, "", "port");
        EXPECT_FALSE(place.ok()) << text;
        return place.ok() ? Error{} : place.error();
    };
    EXPECT_EQ(failure("include 'none.conf'\n").sqlstate, sqlstate::undefined_file);
    EXPECT_EQ(failure("include_dir 'none.d'\n").sqlstate, sqlstate::undefined_file);
    EXPECT_EQ(failure("include ''\n").sqlstate, sqlstate::config_file_error);
    EXPECT_EQ(failure("include_dir ' '\n").sqlstate, sqlstate::config_file_error);
    EXPECT_EQ(failure("include 'postgresql.conf'\n").sqlstate, sqlstate::config_file_error);
    EXPECT_EQ(failure("port 5432 5433\n").sqlstate, sqlstate::config_file_error);
    write_text(directory / "other.conf", "include 'postgresql.conf'\n");
    const auto nested = failure("include 'other.conf'\n");
    EXPECT_NE(nested.message.find("nested too deep"), std::string::npos) << nested.message;
    EXPECT_EQ(locate_setting(directory / "none", "", "port").error().sqlstate, sqlstate::undefined_file);
}

TEST(InspectServerTest, TellsWhatIsNotThere) {
    const TemporaryDirectory directory;
    EXPECT_EQ(inspect_server("relative", "").error().sqlstate, sqlstate::invalid_parameter_value);
    const auto missing = inspect_server(directory / "none", "");
    EXPECT_EQ(missing.error().sqlstate, sqlstate::undefined_file);
    EXPECT_FALSE(missing.error().hint.empty());
    EXPECT_EQ(inspect_server(directory.path(), "").error().sqlstate,
              sqlstate::object_not_in_prerequisite_state);
    write_text(directory / "PG_VERSION", "9.6\n");
    EXPECT_EQ(inspect_server(directory.path(), "").error().sqlstate,
              sqlstate::object_not_in_prerequisite_state);
    write_text(directory / "PG_VERSION", "15\n");
    EXPECT_EQ(inspect_server(directory.path(), "").error().sqlstate,
              sqlstate::undefined_file);  // no pg_control
}

// A process that works in the data directory stands for the server.
TEST(InspectServerTest, SeesARunningServerAndADeadOne) {
    const TemporaryDirectory directory;
    write_text(directory / "PG_VERSION", "15\n");
    ASSERT_TRUE(std::filesystem::create_directory(directory / "global"));
    const std::uint64_t identifier = 7123456789012345678;
    write_text(directory / "global/pg_control",
               std::string(reinterpret_cast<const char*>(&identifier), sizeof identifier) + "rest");
    write_text(directory / "postmaster.opts", "/opt/pg/bin/postgres \"-p\" \"7\"\n");
    {
        Command command;
        command.arguments = {"/bin/sleep", "600"};
        command.environment = {"A=b c", "D="};
        command.working_directory = directory.path();
        auto process = ChildProcess::start(command, Clock::now() + Millis{600000});
        ASSERT_TRUE(process.ok());
        write_text(directory / "postmaster.pid",
                   std::to_string(process->pid()) + "\n" + directory.path() + "\n1\n5433\n\n*\n\nready   \n");
        auto server = inspect_server(directory.path(), "/etc/pg/postgresql.conf");
        // It is there before it has become that program.
        const TimePoint deadline = Clock::now() + Millis{60000};
        while (server.ok() && server->arguments.front() != "/bin/sleep" && Clock::now() < deadline) {
            std::this_thread::yield();
            server = inspect_server(directory.path(), "/etc/pg/postgresql.conf");
        }
        ASSERT_TRUE(server.ok()) << server.error().message;
        EXPECT_EQ(server->major_version, 15);
        EXPECT_EQ(server->system_identifier, identifier);
        EXPECT_EQ(server->config_file, "/etc/pg/postgresql.conf");
        EXPECT_EQ(server->owner, ::geteuid());
        ASSERT_TRUE(server->postmaster);
        EXPECT_EQ(server->postmaster->pid, process->pid());
        EXPECT_EQ(server->arguments, (std::vector<std::string>{"/bin/sleep", "600"}));
        EXPECT_EQ(server->environment, (std::vector<std::string>{"A=b c", "D="}));
        EXPECT_TRUE(server->bin_directory.ends_with("/bin"));
        EXPECT_EQ(server->systemd_unit, "");
        // The pid belongs to another program: no server of this directory.
        write_text(directory / "postmaster.pid", std::to_string(::getpid()) + "\n/d\n1\n5433\n");
        EXPECT_FALSE(running_postmaster(directory.path()));
    }
    const auto dead = inspect_server(directory.path(), "");
    ASSERT_TRUE(dead.ok());
    EXPECT_FALSE(dead->postmaster);
    EXPECT_EQ(dead->config_file, directory / "postgresql.conf");
    EXPECT_EQ(dead->arguments, (std::vector<std::string>{"/opt/pg/bin/postgres", "-p", "7"}));
    EXPECT_EQ(dead->bin_directory, "/opt/pg/bin");
}

}  // namespace
}  // namespace pgxc::replication
