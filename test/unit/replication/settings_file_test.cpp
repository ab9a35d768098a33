#include "replication/settings_file.h"

#include <gtest/gtest.h>

#include <random>

#include "base/limits.h"

namespace pgxc::replication {
namespace {

SettingsFile parse(std::string text) {
    auto file = SettingsFile::parse(std::move(text), "test.conf");
    EXPECT_TRUE(file.ok());
    return std::move(*file);
}

std::string value_in(const std::string& text, std::string_view name) {
    const auto file = parse(text);
    EXPECT_EQ(file.error(), nullptr) << file.error()->message;
    const auto item = file.get(name);
    return item ? item->value : "(none)";
}

std::string after_set(const std::string& text, std::string_view name, std::string_view value) {
    auto file = parse(text);
    const auto done = file.set(name, value);
    EXPECT_TRUE(done.ok());
    EXPECT_EQ(file.error(), nullptr);
    EXPECT_EQ(file.get(name)->value, value);
    return file.text();
}

std::string error_in(const std::string& text) {
    const auto file = parse(text);
    return file.error() == nullptr ? "" : file.error()->message;
}

TEST(SettingsFileTest, ReadsEveryFormOfALine) {
    EXPECT_EQ(value_in("port = 5432\n", "port"), "5432");
    EXPECT_EQ(value_in("port 5432", "port"), "5432");
    EXPECT_EQ(value_in("port=5432", "port"), "5432");
    EXPECT_EQ(value_in("\tport\t=\t5432\t# the port\n", "PORT"), "5432");
    EXPECT_EQ(value_in("PORT = 5432\r\n", "port"), "5432");
    EXPECT_EQ(value_in("port'5432'#x", "port"), "5432");
    EXPECT_EQ(value_in("shared_buffers = 128MB", "shared_buffers"), "128MB");
    EXPECT_EQ(value_in("x = 0x1F", "x"), "0x1F");
    EXPECT_EQ(value_in("x = -1", "x"), "-1");
    EXPECT_EQ(value_in("x = +.5e-3", "x"), "+.5e-3");
    EXPECT_EQ(value_in("x = on", "x"), "on");
    EXPECT_EQ(value_in("lc_messages = en_US.UTF-8", "lc_messages"), "en_US.UTF-8");
    EXPECT_EQ(value_in("pgxc.node_id = 3", "PGXC.Node_Id"), "3");
    EXPECT_EQ(value_in("", "port"), "(none)");
    EXPECT_EQ(value_in("#port = 1\n  # port = 2\n", "port"), "(none)");
    EXPECT_EQ(value_in("\n\n   \n\r\nport=1", "port"), "1");
}

TEST(SettingsFileTest, ReadsQuotedValues) {
    EXPECT_EQ(value_in("x = ''", "x"), "");
    EXPECT_EQ(value_in("x = 'a b # c = d'", "x"), "a b # c = d");
    EXPECT_EQ(value_in("x = 'it''s'", "x"), "it's");
    EXPECT_EQ(value_in("x = 'it\\'s'", "x"), "it's");
    EXPECT_EQ(value_in("x = ''''", "x"), "'");
    EXPECT_EQ(value_in("x = 'a\\\\b'", "x"), "a\\b");
    EXPECT_EQ(value_in("x = '\\b\\f\\n\\r\\t\\q'", "x"), "\b\f\n\r\tq");
    EXPECT_EQ(value_in("x = '\\101\\60\\7'", "x"), "A0\a");
    EXPECT_EQ(value_in("x = '\\1019'", "x"), "A9");
    EXPECT_EQ(value_in("x = 'a\\000b'", "x"), "a");  // a C string to the server
    EXPECT_EQ(value_in("x = '\xc3\xa9'", "x"), "\xc3\xa9");
}

TEST(SettingsFileTest, LastLineWins) {
    const auto file = parse("port = 1\nother = 5\nPort = 2\n#port = 3\n");
    const auto item = file.get("port");
    ASSERT_TRUE(item);
    EXPECT_EQ(item->value, "2");
    EXPECT_EQ(item->line, 3U);
    EXPECT_EQ(item->name, "Port");
}

TEST(SettingsFileTest, ReportsIncludesInOrder) {
    const auto file = parse("a = 1\ninclude 'x.conf'\nINCLUDE_IF_EXISTS = y\ninclude_dir 'conf.d'\nb = 2\n");
    ASSERT_EQ(file.items().size(), 5U);
    EXPECT_EQ(file.items()[1], (SettingsItem{SettingsItem::Kind::Include, "include", "x.conf", 2}));
    EXPECT_EQ(file.items()[2],
              (SettingsItem{SettingsItem::Kind::IncludeIfExists, "INCLUDE_IF_EXISTS", "y", 3}));
    EXPECT_EQ(file.items()[3], (SettingsItem{SettingsItem::Kind::IncludeDir, "include_dir", "conf.d", 4}));
    EXPECT_FALSE(file.get("include"));
}

TEST(SettingsFileTest, LocatesSyntaxErrorsAsTheServerDoes) {
    EXPECT_EQ(error_in("a = 1\nport\n"), "syntax error in file \"test.conf\" line 2, near end of line");
    EXPECT_EQ(error_in("port = "), "syntax error in file \"test.conf\" line 1, near end of line");
    EXPECT_EQ(error_in("port = 1 2"), "syntax error in file \"test.conf\" line 1, near token \"2\"");
    EXPECT_EQ(error_in("= 1"), "syntax error in file \"test.conf\" line 1, near token \"=\"");
    EXPECT_EQ(error_in("port == 1"), "syntax error in file \"test.conf\" line 1, near token \"=\"");
    EXPECT_EQ(error_in("x = 'abc\n"), "syntax error in file \"test.conf\" line 1, near token \"'\"");
    EXPECT_EQ(error_in("x = 'abc\\\n'"), "syntax error in file \"test.conf\" line 1, near token \"'\"");
    EXPECT_EQ(error_in("x = 'a''\n"), "syntax error in file \"test.conf\" line 1, near token \"'\"");
    EXPECT_EQ(error_in("5 = 1"), "syntax error in file \"test.conf\" line 1, near token \"5\"");
    EXPECT_EQ(error_in("x = 1e5"), "syntax error in file \"test.conf\" line 1, near token \"5\"");
    EXPECT_EQ(error_in("x = 1.5s"), "syntax error in file \"test.conf\" line 1, near token \"s\"");
    EXPECT_EQ(error_in("x = a.b"), "syntax error in file \"test.conf\" line 1, near token \"a.b\"");
    EXPECT_EQ(error_in("a.b.c = 1"), "syntax error in file \"test.conf\" line 1, near token \"a.b.c\"");
    EXPECT_EQ(error_in("x = \"y\""), "syntax error in file \"test.conf\" line 1, near token \"\"\"");
    EXPECT_NE(error_in(std::string("x = 'a\0b'\n", 10)), "");
    EXPECT_EQ(error_in(std::string("# a\0b\nx = 1\n", 12)), "");
    // The other lines are still read.
    const auto file = parse("a = 1\n???\nb = 2\n");
    EXPECT_EQ(file.error()->sqlstate, sqlstate::config_file_error);
    EXPECT_FALSE(file.error()->hint.empty());
    EXPECT_EQ(file.get("b")->value, "2");
}

TEST(SettingsFileTest, SetChangesOnlyTheValue) {
    EXPECT_EQ(after_set("  port = 5432   # (change requires restart)\r\nx=1", "port", "5433"),
              "  port = 5433   # (change requires restart)\r\nx=1");
    EXPECT_EQ(after_set("port\t5432", "PORT", "5433"), "port\t5433");
    EXPECT_EQ(after_set("port'5432'#c\n", "port", "5433"), "port'5433'#c\n");
    EXPECT_EQ(after_set("port+5\n", "port", "-7"), "port -7\n");
    EXPECT_EQ(after_set("x = on # c\n", "x", "two words"), "x = 'two words' # c\n");
    EXPECT_EQ(after_set("x = 'old' # 'c'\n", "x", "it's\\"), "x = 'it''s\\\\' # 'c'\n");
    EXPECT_EQ(after_set("x = 5\n", "x", ""), "x = ''\n");
}

TEST(SettingsFileTest, SetLeavesEarlierDuplicatesAndComments) {
    EXPECT_EQ(after_set("port = 1\nport = 2\n#port = 3\n", "port", "9"), "port = 1\nport = 9\n#port = 3\n");
}

TEST(SettingsFileTest, SetAppends) {
    EXPECT_EQ(after_set("", "port", "5433"), "port = 5433\n");
    EXPECT_EQ(after_set("#port = 5432\n", "port", "5433"), "#port = 5432\nport = 5433\n");
    EXPECT_EQ(after_set("a = 1", "port", "5433"), "a = 1\nport = 5433\n");
    EXPECT_EQ(after_set("a = 1\r\nb = 2", "x", "y z"), "a = 1\r\nb = 2\r\nx = 'y z'\r\n");
    EXPECT_EQ(after_set("", "pgxc.node", ""), "pgxc.node = ''\n");
    EXPECT_EQ(after_set("", "standby_mode", "off"), "standby_mode = 'off'\n");
}

TEST(SettingsFileTest, SetRefusesWhatTheServerCouldNotKeep) {
    auto file = parse("a = 1\n");
    for (const auto* name : {"", "a b", "5", "include", "Include_Dir", "a.b.c", "a=b", "a'", "#a"}) {
        const auto done = file.set(name, "1");
        ASSERT_FALSE(done.ok()) << name;
        EXPECT_EQ(done.error().sqlstate, sqlstate::invalid_parameter_value);
    }
    EXPECT_FALSE(file.set("b", "x\ny").ok());
    EXPECT_FALSE(file.set("b", std::string_view("x\0y", 3)).ok());
    EXPECT_EQ(file.text(), "a = 1\n");
}

TEST(SettingsFileTest, CommentsOutAndRemovesAllLines) {
    auto file = parse("port = 1\n x=1\n  Port = 2 # c\r\nreport = 5\nport=3");
    EXPECT_EQ(file.comment_out("port"), 3U);
    EXPECT_EQ(file.text(), "#port = 1\n x=1\n#  Port = 2 # c\r\nreport = 5\n#port=3");
    EXPECT_FALSE(file.get("port"));
    EXPECT_EQ(file.comment_out("port"), 0U);

    file = parse("port = 1\n x=1\n  Port = 2 # c\r\nreport = 5\nport=3");
    EXPECT_EQ(file.remove("PORT"), 3U);
    EXPECT_EQ(file.text(), " x=1\nreport = 5\n");
}

TEST(SettingsFileTest, RefusesHugeFiles) {
    const auto file = SettingsFile::parse(std::string(limits::max_settings_file_bytes + 1, '#'), "big.conf");
    ASSERT_FALSE(file.ok());
    EXPECT_EQ(file.error().sqlstate, sqlstate::config_file_error);
    auto full = parse(std::string(limits::max_settings_file_bytes, '#'));
    EXPECT_FALSE(full.set("port", "1").ok());
}

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size();) {
        const auto end = text.find('\n', at);
        const auto next = end == std::string::npos ? text.size() : end + 1;
        lines.push_back(text.substr(at, next - at));
        at = next;
    }
    return lines;
}

// Whatever the file and the value: set() makes get() give the value, and no other line changes.
TEST(SettingsFileTest, PropertySetThenGet) {
    std::mt19937 random(20240611);
    const std::vector<std::string> parts{
        "port", "Port", "x.y",  " ",  "\t", "=",          "5432",     "'a''b'",   "'a\\'b'",
        "#c",   "\n",   "\r\n", "on", "-1", "10MB",       "1.5",      "'",        "include",
        "'d'",  "a/b",  "\\",   "\n", "\n", "port = 1\n", "port 2\n", "x.y='z'\n"};
    const std::string alphabet = "ab5 '\\\"#=\t\r.\xc3-/$`";
    const auto pick = [&random](std::size_t size) { return random() % size; };
    for (int round = 0; round < 20000; ++round) {
        std::string text;
        for (std::size_t n = pick(12); n > 0; --n) text += parts[pick(parts.size())];
        std::string value;
        for (std::size_t n = pick(6); n > 0; --n) value += alphabet[pick(alphabet.size())];
        const std::string name = pick(2) == 0 ? "port" : "x.y";

        auto file = parse(text);
        const auto before = file.get(name);
        const bool had_error = file.error() != nullptr;
        ASSERT_TRUE(file.set(name, value).ok());
        ASSERT_TRUE(file.get(name)) << text;
        ASSERT_EQ(file.get(name)->value, value) << text;
        ASSERT_EQ(file.error() != nullptr, had_error) << text;
        const auto old_lines = lines_of(text);
        const auto new_lines = lines_of(file.text());
        if (before) {
            ASSERT_EQ(old_lines.size(), new_lines.size()) << text;
        } else {
            ASSERT_EQ(old_lines.size() + 1, new_lines.size()) << text;
        }
        for (std::size_t i = 0; i < old_lines.size(); ++i) {
            if (before && i + 1 == before->line) continue;
            if (!before && i + 1 == old_lines.size()) {
                ASSERT_TRUE(new_lines[i].starts_with(old_lines[i]));
                continue;
            }
            ASSERT_EQ(old_lines[i], new_lines[i]) << text;
        }
        file.comment_out(name);
        ASSERT_FALSE(file.get(name));
    }
}

}  // namespace
}  // namespace pgxc::replication
