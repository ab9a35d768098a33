#include "pg/boundary.h"

#include <pthread.h>

#include <cstring>
#include <string_view>

#include "base/log.h"

extern "C" {
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"
}

namespace pgxc {
namespace {

pthread_t server_thread;

int level_of(LogLevel level) {
    switch (level) {
        case LogLevel::Debug:
            return DEBUG1;
        case LogLevel::Info:
            return LOG;
        case LogLevel::Warning:
            return WARNING;
    }
    return LOG;
}

void to_server_log(LogLevel level, std::string_view line) {
    // The server's error reporting belongs to its one thread; a resolver's thread must not enter it.
    if (pthread_equal(pthread_self(), server_thread) == 0) return;
    const int size = static_cast<int>(line.size());
    const char* text = line.data();
    // Fails only for want of memory, and then there is nothing better to do than to go on without the line.
    (void)pg_call(
        [=] { ereport(level_of(level), (errmsg_internal("pgxc_ha: %.*s", size, text), errhidestmt(true))); });
}

int errcode_of(const char* state) {
    return MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
}

void report_plain(int elevel, const detail::PlainError& error) {
    ereport(elevel, (errcode(errcode_of(error.sqlstate)), errmsg_internal("%s", error.message),
                     error.detail[0] != '\0' ? errdetail_internal("%s", error.detail) : 0,
                     error.hint[0] != '\0' ? errhint("%s", error.hint) : 0));
}

const char* text_or_empty(const char* text) {
    return text != nullptr ? text : "";
}

}  // namespace

namespace detail {

PlainError to_plain(const Error& error) {
    const bool whole = error.sqlstate.size() == 5;
    return {whole ? pstrdup(error.sqlstate.c_str()) : "XX000", pstrdup(error.message.c_str()),
            pstrdup(error.detail.c_str()), pstrdup(error.hint.c_str())};
}

PlainError to_plain(const char* exception_text) {
    return {"XX000", psprintf("pgxc_ha: unexpected C++ exception: %s", exception_text), "", ""};
}

void raise_plain(const PlainError& error) {
    report_plain(ERROR, error);
    pg_unreachable();
}

bool guarded(void (*call)(void*), void* argument, Error* error) {
    MemoryContext const caller_context = CurrentMemoryContext;
    ErrorData* volatile caught = nullptr;
    volatile bool threw = false;
    char exception_text[256] = "unknown C++ exception";

    PG_TRY();
    {
        // An exception that crossed PG_TRY would leave the server's error stack pointing into a dead frame.
        try {
            call(argument);
        } catch (const std::exception& exception) {
            threw = true;
            strlcpy(exception_text, exception.what(), sizeof exception_text);
        } catch (...) {
            threw = true;
        }
    }
    PG_CATCH();
    {
        MemoryContextSwitchTo(caller_context);
        caught = CopyErrorData();
        FlushErrorState();
        // What the abort of a transaction would do at once: nobody may go on holding these, and where no
        // transaction is open (a worker's loop) nobody else would.
        LWLockReleaseAll();
        ConditionVariableCancelSleep();
        pgstat_report_wait_end();
    }
    PG_END_TRY();

    if (threw) {
        *error = Error{sqlstate::internal_error,
                       std::string("pgxc_ha: unexpected C++ exception: ") + exception_text};
        return false;
    }
    if (caught == nullptr) return true;
    ErrorData* const data = caught;
    *error = Error{};
    error->sqlstate = unpack_sql_state(data->sqlerrcode);
    error->message = text_or_empty(data->message);
    error->detail = text_or_empty(data->detail);
    error->hint = text_or_empty(data->hint);
    FreeErrorData(data);
    return false;
}

Error exception_as_error() {
    try {
        throw;
    } catch (const std::bad_alloc&) {
        return {"53200", "pgxc_ha: out of memory"};
    } catch (const std::exception& caught) {
        return {sqlstate::internal_error, std::string("pgxc_ha: unexpected C++ exception: ") + caught.what()};
    } catch (...) {
        return {sqlstate::internal_error, "pgxc_ha: unexpected C++ exception"};
    }
}

Status begin_transaction() {
    Status begun = pg_call([] {
        SetCurrentStatementStartTimestamp();
        StartTransactionCommand();
        PushActiveSnapshot(GetTransactionSnapshot());
        SPI_connect();
        pgstat_report_activity(STATE_RUNNING, nullptr);
    });
    if (!begun) abort_transaction();
    return begun;
}

Status commit_transaction() {
    return pg_call([] {
        SPI_finish();
        PopActiveSnapshot();
        CommitTransactionCommand();
        pgstat_report_stat(false);
        pgstat_report_activity(STATE_IDLE, nullptr);
    });
}

void abort_transaction() {
    const Status aborted = pg_call([] {
        AbortCurrentTransaction();
        pgstat_report_activity(STATE_IDLE, nullptr);
    });
    // A process that can't abort knows nothing of its own state any more.
    if (!aborted) {
        log_warning("could not abort a transaction: " + aborted.error().message);
        proc_exit(1);
    }
}

Result<Subtransaction> begin_subtransaction() {
    return pg_call([] {
        Subtransaction sub{CurrentMemoryContext, CurrentResourceOwner};
        BeginInternalSubTransaction(nullptr);
        MemoryContextSwitchTo(sub.context);
        return sub;
    });
}

Status release_subtransaction(Subtransaction sub) {
    return pg_call([=] {
        ReleaseCurrentSubTransaction();
        MemoryContextSwitchTo(sub.context);
        CurrentResourceOwner = static_cast<ResourceOwner>(sub.owner);
    });
}

void rollback_subtransaction(Subtransaction sub) {
    const Status done = pg_call([=] {
        MemoryContextSwitchTo(sub.context);
        RollbackAndReleaseCurrentSubTransaction();
        MemoryContextSwitchTo(sub.context);
        CurrentResourceOwner = static_cast<ResourceOwner>(sub.owner);
    });
    if (!done) raise(done.error());
}

}  // namespace detail

void raise(Error error) {
    const detail::PlainError plain = detail::to_plain(error);
    // The longjmp runs no destructors: give the strings' memory back by hand.
    std::string().swap(error.sqlstate);
    std::string().swap(error.message);
    std::string().swap(error.detail);
    std::string().swap(error.hint);
    detail::raise_plain(plain);
}

void report(int elevel, const Error& error) {
    Assert(elevel < ERROR);
    const Error* source = &error;
    (void)pg_call([=] {
        const detail::PlainError plain = detail::to_plain(*source);
        report_plain(elevel, plain);
    });
}

void install_log_sink() {
    server_thread = pthread_self();
    set_log_sink(to_server_log);
}

Result<SpiResult> spi_execute(const std::string& sql, const SpiRow& parameters, bool read_only) {
    struct Cells {
        const char* failure;  // SPI's own complaint that isn't an ereport
        char** values;        // row by row, nullptr for NULL
        std::uint64_t processed;
        std::uint64_t rows;
        int columns;
    };
    const char* text = sql.c_str();
    const SpiRow* given = &parameters;
    const auto fetched = pg_call([=]() -> Cells {
        Cells cells{};
        const int count = static_cast<int>(given->size());
        Oid* types = static_cast<Oid*>(palloc(sizeof(Oid) * (count + 1)));
        Datum* values = static_cast<Datum*>(palloc(sizeof(Datum) * (count + 1)));
        char* nulls = static_cast<char*>(palloc(count + 1));
        for (int i = 0; i < count; ++i) {
            types[i] = TEXTOID;
            nulls[i] = (*given)[i] ? ' ' : 'n';
            values[i] = (*given)[i] ? CStringGetTextDatum((*given)[i]->c_str()) : 0;
        }
        const int code = SPI_execute_with_args(text, count, types, values, nulls, read_only, 0);
        if (code < 0) {
            cells.failure = SPI_result_code_string(code);
            return cells;
        }
        cells.processed = SPI_processed;
        if (SPI_tuptable == nullptr) return cells;
        cells.rows = SPI_processed;
        cells.columns = SPI_tuptable->tupdesc->natts;
        cells.values = static_cast<char**>(
            palloc_extended(sizeof(char*) * (cells.rows * cells.columns + 1), MCXT_ALLOC_HUGE));
        for (std::uint64_t row = 0; row < cells.rows; ++row)
            for (int column = 0; column < cells.columns; ++column)
                cells.values[row * cells.columns + column] =
                    SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column + 1);
        return cells;
    });
    if (!fetched) return fetched.error();
    if (fetched->failure != nullptr)
        return Error{sqlstate::internal_error, std::string("SPI: ") + fetched->failure + ": " + sql};

    SpiResult result;
    result.processed = fetched->processed;
    result.rows.reserve(fetched->rows);
    for (std::uint64_t row = 0; row < fetched->rows; ++row) {
        SpiRow& cells = result.rows.emplace_back(fetched->columns);
        for (int column = 0; column < fetched->columns; ++column)
            if (const char* value = fetched->values[row * fetched->columns + column]; value != nullptr)
                cells[column] = value;
    }
    if (Status freed = pg_call([] {
            if (SPI_tuptable != nullptr) SPI_freetuptable(SPI_tuptable);
        });
        !freed)
        return freed.error();
    return result;
}

Result<SpiConnection> SpiConnection::open(SpiMode mode) {
    const int options = mode == SpiMode::MayCommit ? SPI_OPT_NONATOMIC : 0;
    if (Status connected = pg_call([=] { SPI_connect_ext(options); }); !connected) return connected.error();
    return SpiConnection{};
}

SpiConnection::~SpiConnection() {
    if (!open_) return;
    // After an error the abort closes it; closing it here as well would be refused, and that is all right.
    if (Status closed = pg_call([] { SPI_finish(); }); !closed)
        log_debug("SPI_finish: " + closed.error().message);
}

Result<std::string> text_argument(FunctionCallInfo fcinfo, int index) {
    const auto value = pg_call([=]() -> char* { return text_to_cstring(PG_GETARG_TEXT_PP(index)); });
    if (!value) return value.error();
    return std::string(*value);
}

Result<Datum> return_rows(FunctionCallInfo fcinfo, const std::vector<SpiRow>& rows) {
    const std::vector<SpiRow>* source = &rows;
    if (Status stored = pg_call([=] {
            auto* set_info = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
            if (set_info == nullptr || !IsA(set_info, ReturnSetInfo) ||
                (set_info->allowedModes & SFRM_Materialize) == 0)
                ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                                errmsg("set-valued function called in context that cannot accept a set")));
            MemoryContext const per_call = CurrentMemoryContext;
            MemoryContext const per_query = set_info->econtext->ecxt_per_query_memory;
            MemoryContextSwitchTo(per_query);
            TupleDesc descriptor = nullptr;
            if (get_call_result_type(fcinfo, nullptr, &descriptor) != TYPEFUNC_COMPOSITE)
                elog(ERROR, "return type must be a row type");
            descriptor = CreateTupleDescCopy(descriptor);
            Tuplestorestate* store = tuplestore_begin_heap(
                (set_info->allowedModes & SFRM_Materialize_Random) != 0, false, work_mem);
            set_info->returnMode = SFRM_Materialize;
            set_info->setResult = store;
            set_info->setDesc = descriptor;
            MemoryContextSwitchTo(per_call);

            AttInMetadata* metadata = TupleDescGetAttInMetadata(descriptor);
            char** values = static_cast<char**>(palloc0(sizeof(char*) * descriptor->natts));
            for (const SpiRow& row : *source) {
                if (static_cast<int>(row.size()) != descriptor->natts)
                    elog(ERROR, "%zu columns where the SQL declaration has %d", row.size(),
                         descriptor->natts);
                for (int i = 0; i < descriptor->natts; ++i)
                    values[i] = row[i] ? const_cast<char*>(row[i]->c_str()) : nullptr;
                tuplestore_puttuple(store, BuildTupleFromCStrings(metadata, values));
            }
        });
        !stored)
        return stored.error();
    return Datum{0};
}

}  // namespace pgxc
