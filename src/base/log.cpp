#include "base/log.h"

#include <cstdio>

namespace pgxc {
namespace {

void to_standard_error(LogLevel level, std::string_view line) {
    const char* name = level == LogLevel::Warning ? "WARNING" : level == LogLevel::Info ? "LOG" : "DEBUG";
    std::fprintf(stderr, "%s:  %.*s\n", name, static_cast<int>(line.size()), line.data());
}

LogSink current_sink = to_standard_error;

}  // namespace

void set_log_sink(LogSink sink) {
    current_sink = sink;
}

void log(LogLevel level, std::string_view line) {
    current_sink(level, line);
}

}  // namespace pgxc
