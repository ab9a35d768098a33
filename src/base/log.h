#pragma once

#include <string_view>

namespace pgxc {

/// Severities that reach the server's log. `Info` is what an operator wants to read at 3 a.m.: every
/// decision.
enum class LogLevel { Debug, Info, Warning };

/// Takes a finished line (no newline). Must not throw and must not call back into the caller.
using LogSink = void (*)(LogLevel level, std::string_view line);

/// Sets where lines go; before the first call they go to standard error. Not thread-safe: call it at start.
void set_log_sink(LogSink sink);

void log(LogLevel level, std::string_view line);
inline void log_debug(std::string_view line) {
    log(LogLevel::Debug, line);
}
inline void log_info(std::string_view line) {
    log(LogLevel::Info, line);
}
inline void log_warning(std::string_view line) {
    log(LogLevel::Warning, line);
}

}  // namespace pgxc
