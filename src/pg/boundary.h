#pragma once

/// The border between C++ and the server's C, whose errors are longjmps (STYLE rules 1 and 2).
///
/// Into the server: pg_call(lambda). A server error (ereport) inside comes back as an Error with its
/// SQLSTATE, message, detail and hint; the lambda may capture by reference but create nothing that has a
/// destructor, for a longjmp would skip it. A caught error leaves the current transaction, if there is one,
/// fit for nothing but abort: return the Error up to the entry point (which raises it again), or to
/// in_transaction() or in_subtransaction() (which abort).
///
/// Out to the server: every function that the server calls has its body in pg_entry() or PGXC_FUNCTION(),
/// which turn a returned Error and any C++ exception into an ereport after all C++ objects are gone.
///
/// Include order in a .cpp: own and standard headers, this one, then whatever else of the server is needed.

#include <exception>
#include <new>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/result.h"

extern "C" {
#include "postgres.h"

#include "fmgr.h"
}

namespace pgxc {

/// Throws the error as the server's own ereport(ERROR). The error's strings are released first, but nothing
/// else of the calling frames is: prefer returning the Error to pg_entry().
[[noreturn]] void raise(Error error);

/// Reports at another level (WARNING, NOTICE, LOG: below ERROR) with SQLSTATE, detail and hint.
void report(int elevel, const Error& error);

namespace detail {

/// An error in palloc'd memory: survives the C++ frame that made it.
struct PlainError {
    const char* sqlstate = nullptr;  // nullptr = no error
    const char* message = nullptr;
    const char* detail = nullptr;
    const char* hint = nullptr;
};

/// Copies, never throws C++ exceptions; when palloc itself fails the server's out-of-memory error is raised.
PlainError to_plain(const Error& error) noexcept(false);
PlainError to_plain(const char* exception_text);
[[noreturn]] void raise_plain(const PlainError& error);

/// Runs call(argument) in PG_TRY. False: a server error was caught, flushed from the error stack and stored
/// in *error.
[[nodiscard]] bool guarded(void (*call)(void*), void* argument, Error* error);

/// Starts, commits, aborts: the parts of in_transaction() and in_subtransaction().
[[nodiscard]] Status begin_transaction();
[[nodiscard]] Status commit_transaction();
void abort_transaction();
struct Subtransaction {  // what must be put back when it ends
    MemoryContext context = nullptr;
    void* owner = nullptr;
};
[[nodiscard]] Result<Subtransaction> begin_subtransaction();
[[nodiscard]] Status release_subtransaction(Subtransaction sub);
void rollback_subtransaction(Subtransaction sub);

[[nodiscard]] Error exception_as_error();  // inside a catch block: what was caught, as XX000 or 53200

}  // namespace detail

/// Runs `call` (see above) and returns its result: void, or something trivially copyable (a Datum, a
/// pointer).
template <class F>
[[nodiscard]] auto pg_call(F&& call) -> Result<std::invoke_result_t<F&>> {
    using Value = std::invoke_result_t<F&>;
    static_assert(std::is_trivially_destructible_v<std::remove_reference_t<F>>,
                  "capture by reference or plain values: a longjmp runs no destructor");
    Error error;
    if constexpr (std::is_void_v<Value>) {
        const auto run = [](void* argument) { (*static_cast<std::remove_reference_t<F>*>(argument))(); };
        if (!detail::guarded(run, const_cast<void*>(static_cast<const void*>(&call)), &error)) return error;
        return {};
    } else {
        static_assert(std::is_trivially_copyable_v<Value>, "return a plain value");
        struct Frame {
            std::remove_reference_t<F>* call;
            Value value;
        };
        Frame frame{&call, Value{}};
        const auto run = [](void* argument) {
            auto* inner = static_cast<Frame*>(argument);
            inner->value = (*inner->call)();
        };
        if (!detail::guarded(run, &frame, &error)) return error;
        return frame.value;
    }
}

/// Runs `work` (() -> Status) in a transaction of its own, with a snapshot and SPI connected: for background
/// workers. An Error, a C++ exception or a failing commit aborts the transaction and is returned.
template <class F>
[[nodiscard]] Status in_transaction(F&& work) {
    if (Status begun = detail::begin_transaction(); !begun) return begun;
    Status done;
    try {
        done = work();
    } catch (...) {
        done = detail::exception_as_error();
    }
    if (done) done = detail::commit_transaction();
    if (!done) detail::abort_transaction();
    return done;
}

/// Runs `work` (() -> Status) in a subtransaction of the current transaction; an Error rolls it back, so that
/// the caller may go on.
template <class F>
[[nodiscard]] Status in_subtransaction(F&& work) {
    const auto sub = detail::begin_subtransaction();
    if (!sub) return sub.error();
    Status done;
    try {
        done = work();
    } catch (...) {
        done = detail::exception_as_error();
    }
    if (done) done = detail::release_subtransaction(*sub);
    if (!done) detail::rollback_subtransaction(*sub);
    return done;
}

/// Runs the body of a function that the server calls: `body` is () -> Result<Value> or Status. Returns the
/// value or raises.
template <class F>
auto pg_entry(F&& body) {
    using Value = std::remove_cvref_t<decltype(body())>;
    detail::PlainError failed;
    if constexpr (std::is_same_v<Value, Status>) {
        try {
            const Status status = body();
            if (status) return;
            failed = detail::to_plain(status.error());
        } catch (const std::exception& caught) {
            failed = detail::to_plain(caught.what());
        } catch (...) {
            failed = detail::to_plain("unknown C++ exception");
        }
        detail::raise_plain(failed);
    } else {
        using Inner = std::remove_cvref_t<decltype(*std::declval<Value>())>;
        static_assert(std::is_trivially_copyable_v<Inner>);
        try {
            const Value result = body();
            if (result) return *result;
            failed = detail::to_plain(result.error());
        } catch (const std::exception& caught) {
            failed = detail::to_plain(caught.what());
        } catch (...) {
            failed = detail::to_plain("unknown C++ exception");
        }
        detail::raise_plain(failed);
    }
}

/// Sends base/log.h to the server's log, each line with the prefix "pgxc_ha: ".
void install_log_sink();

// --- SPI, as text ----------------------------------------------------------------------------------------

/// One row: a value for each column, nullopt for NULL, in the types' output form.
using SpiRow = std::vector<std::optional<std::string>>;
struct SpiResult {
    std::vector<SpiRow> rows;
    std::uint64_t processed = 0;  // rows that the statement returned or changed
};

/// Runs one statement. Parameters ($1, ...) are of type text: cast them in the statement ($1::int). SPI must
/// be connected (in_transaction() does it; see SpiConnection). read_only uses the current snapshot.
[[nodiscard]] Result<SpiResult> spi_execute(const std::string& sql, const SpiRow& parameters = {},
                                            bool read_only = false);

/// MayCommit: for the procedure of a non-atomic CALL, which may SPI_commit().
enum class SpiMode { Atomic, MayCommit };

/// Connects SPI for a scope in a backend. On the error path nothing needs to be done: the abort does it.
class SpiConnection {
  public:
    [[nodiscard]] static Result<SpiConnection> open(SpiMode mode = SpiMode::Atomic);
    SpiConnection(SpiConnection&& other) noexcept : open_(std::exchange(other.open_, false)) {}
    SpiConnection(const SpiConnection&) = delete;
    SpiConnection& operator=(const SpiConnection&) = delete;
    SpiConnection& operator=(SpiConnection&&) = delete;
    ~SpiConnection();

  private:
    SpiConnection() = default;
    bool open_ = true;
};

// --- Functions of SQL ------------------------------------------------------------------------------------

/// Defines an SQL-callable function: PGXC_FUNCTION(pgxc_something) { ... return PG_..._DATUM; } where the
/// body sees `fcinfo` and returns Result<Datum>.
#define PGXC_FUNCTION(name)                                                      \
    static pgxc::Result<Datum> name##_body(FunctionCallInfo fcinfo);             \
    extern "C" {                                                                 \
    PG_FUNCTION_INFO_V1(name);                                                   \
    __attribute__((visibility("default"))) Datum name(FunctionCallInfo fcinfo) { \
        return pgxc::pg_entry([fcinfo] { return name##_body(fcinfo); });         \
    }                                                                            \
    }                                                                            \
    static pgxc::Result<Datum> name##_body([[maybe_unused]] FunctionCallInfo fcinfo)

/// A text argument as a C++ string (detoasted). Index from 0; the argument must not be NULL.
[[nodiscard]] Result<std::string> text_argument(FunctionCallInfo fcinfo, int index);

/// Returns rows of a set-returning function in materialize mode. Values are given in the columns' input form
/// and converted by their types; the caller's declared result type decides the columns.
[[nodiscard]] Result<Datum> return_rows(FunctionCallInfo fcinfo, const std::vector<SpiRow>& rows);

}  // namespace pgxc
