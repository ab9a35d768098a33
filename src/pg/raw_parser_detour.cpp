#include "pg/raw_parser_detour.h"

#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <variant>
#include <vector>

#include "base/limits.h"
#include "parser/parse.h"
#include "parser/translate.h"
#include "pg/code_detour.h"

extern "C" {
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
}

// Outside of namespace pgxc, whose Node would hide the server's from its macros.
namespace {

namespace parser = pgxc::parser;
using pgxc::pg::Detour;

/// What the grammar made of a text, in plain palloc'd memory: it must survive the C++ frame that made it, and
/// a longjmp may skip everything that looks at it.
struct Reading {
    enum class Kind { NotOurs, Calls, Wrong, OutOfMemory, Failed };
    struct Call {
        const char* text;
        int location;
        int length;
    };
    Kind kind = Kind::NotOurs;
    // Calls
    Call* calls = nullptr;
    int count = 0;
    // Wrong; `message` for Failed too
    const char* sqlstate = nullptr;
    const char* message = nullptr;
    const char* detail = nullptr;
    const char* hint = nullptr;
    int offset = 0;
};

bool detour_installed = false;

/// Copies into the current memory context without ever raising a server error.
const char* copy(const std::string& text) {
    auto* const out = static_cast<char*>(palloc_extended(text.size() + 1, MCXT_ALLOC_NO_OOM));
    if (out == nullptr) throw std::bad_alloc();
    std::memcpy(out, text.c_str(), text.size() + 1);
    return out;
}

parser::LexOptions session_options() {
    parser::LexOptions options;
    options.standard_conforming_strings = standard_conforming_strings;
    options.utf8 = GetDatabaseEncoding() == PG_UTF8;
    options.backslash_quote =
        backslash_quote == BACKSLASH_QUOTE_ON || (backslash_quote == BACKSLASH_QUOTE_SAFE_ENCODING &&
                                                  !PG_ENCODING_IS_CLIENT_ONLY(pg_get_client_encoding()));
    return options;
}

void fill(Reading& reading, std::string_view text) {
    const parser::ParseResult result = parser::parse(text, session_options());
    if (const auto* wrong = std::get_if<parser::SyntaxError>(&result)) {
        reading.sqlstate = copy(wrong->error.sqlstate);
        reading.message = copy(wrong->error.message);
        if (!wrong->error.detail.empty()) reading.detail = copy(wrong->error.detail);
        if (!wrong->error.hint.empty()) reading.hint = copy(wrong->error.hint);
        reading.offset = static_cast<int>(wrong->offset);
        reading.kind = Reading::Kind::Wrong;
    } else if (const auto* statements = std::get_if<std::vector<parser::Statement>>(&result)) {
        reading.calls = static_cast<Reading::Call*>(
            palloc_extended(statements->size() * sizeof(Reading::Call), MCXT_ALLOC_NO_OOM));
        if (reading.calls == nullptr) throw std::bad_alloc();
        for (const auto& statement : *statements)
            reading.calls[reading.count++] = {copy(parser::to_call(statement)),
                                              static_cast<int>(statement.location),
                                              static_cast<int>(statement.length)};
        reading.kind = Reading::Kind::Calls;
    }
}

/// The C++ part: no server error can be raised in it, no exception leaves it.
void read(const char* text, Reading* reading) noexcept {
    const std::size_t length = strnlen(text, pgxc::limits::max_statement_bytes + 1);
    if (length > pgxc::limits::max_statement_bytes) return;
    try {
        fill(*reading, {text, length});
    } catch (const std::bad_alloc&) {
        reading->kind = Reading::Kind::OutOfMemory;
    } catch (const std::exception&) {
        reading->kind = Reading::Kind::Failed;
    }
}

// From here on server errors may pass: no object with a destructor.

[[noreturn]] void raise(const Reading& reading, const char* text) {
    if (reading.kind == Reading::Kind::OutOfMemory)
        ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
    if (reading.kind == Reading::Kind::Failed)
        ereport(ERROR,
                (errcode(ERRCODE_INTERNAL_ERROR), errmsg("the grammar of pgxc_ha failed unexpectedly")));
    const char* const state = reading.sqlstate;
    ereport(ERROR, (errcode(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4])),
                    errmsg_internal("%s", reading.message),
                    reading.detail != nullptr ? errdetail_internal("%s", reading.detail) : 0,
                    reading.hint != nullptr ? errhint("%s", reading.hint) : 0,
                    errposition(pg_mbstrlen_with_len(text, reading.offset) + 1)));
    pg_unreachable();
}

/// Says it plainly where the procedures can't be there. Raw parsing also happens where the catalogs can't be
/// read: in an aborted transaction (where nothing will be executed anyway) and in workers without a database.
void require_extension() {
    if (!IsTransactionState() || !OidIsValid(MyDatabaseId)) return;
    if (OidIsValid(get_extension_oid("pgxc_ha", true))) return;
    const char* const database = GetConfigOption("pgxc.database", true, false);
    const char* const current = get_database_name(MyDatabaseId);
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
                    errmsg("extension \"pgxc_ha\" is not created in database \"%s\"",
                           current != nullptr ? current : "?"),
                    database != nullptr && (current == nullptr || std::strcmp(database, current) != 0)
                        ? errhint("Connect to database \"%s\", or run CREATE EXTENSION pgxc_ha.", database)
                        : errhint("Run CREATE EXTENSION pgxc_ha.")));
}

/// Newer servers also keep where an ARRAY's brackets are.
template <class Array>
void forget_brackets(Array* array) {
    if constexpr (requires { array->list_start; }) {
        array->list_start = -1;
        array->list_end = -1;
    }
}

/// Sets the locations in an expression to "unknown": they are offsets in our text, but everybody (error
/// cursors, pg_stat_statements) applies them to the user's.
bool forget_locations(Node* node, void* context) {
    if (node == nullptr) return false;
    switch (nodeTag(node)) {
        case T_FuncCall:
            castNode(FuncCall, node)->location = -1;
            break;
        case T_A_Const:
            castNode(A_Const, node)->location = -1;
            break;
        case T_A_ArrayExpr:
            castNode(A_ArrayExpr, node)->location = -1;
            forget_brackets(castNode(A_ArrayExpr, node));
            break;
        case T_TypeCast:
            castNode(TypeCast, node)->location = -1;
            break;
        case T_TypeName:
            castNode(TypeName, node)->location = -1;
            break;
        default:
            break;
    }
    // The server declares walkers without a prototype, or casts them itself.
    const auto walker = reinterpret_cast<bool (*)()>(reinterpret_cast<void*>(&forget_locations));
    return raw_expression_tree_walker(node, walker, context);
}

/// Our raw_parser. Its type is the server's, whose 13 knows no parse modes.
template <class Function>
struct RawParser;
template <class... Mode>
struct RawParser<List*(const char*, Mode...)> {
    using Pointer = List* (*)(const char*, Mode...);
    inline static Pointer original = nullptr;

    static List* parse(const char* text, Mode... mode) {
        const bool statements = ((static_cast<int>(mode) == 0) && ...);  // RAW_PARSE_DEFAULT
        Reading reading;
        if (statements) read(text, &reading);
        switch (reading.kind) {
            case Reading::Kind::NotOurs:
                return original(text, mode...);
            case Reading::Kind::Calls:
                break;
            case Reading::Kind::Wrong:
            case Reading::Kind::OutOfMemory:
            case Reading::Kind::Failed:
                raise(reading, text);
        }
        require_extension();
        List* list = NIL;
        for (int i = 0; i < reading.count; ++i) {
            const Reading::Call& call = reading.calls[i];
            // An escape such as E'\xff' may have made a text that the server's encoding doesn't allow.
            static_cast<void>(pg_verifymbstr(call.text, static_cast<int>(std::strlen(call.text)), false));
            List* const parsed = original(call.text, mode...);
            auto* const raw = linitial_node(RawStmt, parsed);
            raw->stmt_location = call.location;
            raw->stmt_len = call.length;
            forget_locations(reinterpret_cast<Node*>(castNode(CallStmt, raw->stmt)->funccall), nullptr);
            list = lappend(list, raw);
        }
        return list;
    }
};
using OurRawParser = RawParser<decltype(raw_parser)>;

/// Proves that the server's own way of parsing comes by us: a server compiled as one unit may have made
/// copies of raw_parser that nothing at its entry can reach.
bool detour_has_effect() {
    MemoryContext const caller = CurrentMemoryContext;
    MemoryContext const scratch = AllocSetContextCreate(caller, "pgxc_ha grammar test", ALLOCSET_SMALL_SIZES);
    volatile bool ours = false;
    MemoryContextSwitchTo(scratch);
    PG_TRY();
    {
        List* const parsed = pg_parse_query("DROP DATANODE SLAVE 1");
        ours = list_length(parsed) == 1 && IsA(linitial_node(RawStmt, parsed)->stmt, CallStmt);
    }
    PG_CATCH();
    {
        MemoryContextSwitchTo(scratch);
        FlushErrorState();
    }
    PG_END_TRY();
    MemoryContextSwitchTo(caller);
    MemoryContextDelete(scratch);
    return ours;
}

/// Makes the detour. The error message, if it can't be made, goes to `why`.
bool make_detour(Detour* detour, char* why, std::size_t why_bytes) noexcept {
    try {
        void* const function = reinterpret_cast<void*>(&raw_parser);
        const auto size = pgxc::pg::function_size(function, "raw_parser");
        auto made =
            size ? pgxc::pg::install_detour(function, *size, reinterpret_cast<void*>(&OurRawParser::parse))
                 : pgxc::Result<Detour>(size.error());
        if (made) {
            *detour = std::move(made).value();
            OurRawParser::original = reinterpret_cast<OurRawParser::Pointer>(detour->original);
            return true;
        }
        strlcpy(why, made.error().message.c_str(), why_bytes);
    } catch (const std::exception& problem) {
        strlcpy(why, problem.what(), why_bytes);
    }
    return false;
}

}  // namespace

namespace pgxc::pg {

void install_raw_parser_detour() {
    if (detour_installed || !process_shared_preload_libraries_in_progress) return;
    // For the life of the process, as the detour itself: server errors can pass over it.
    static Detour detour;
    char why[256] = "";
    if (make_detour(&detour, why, sizeof why)) {
        if (detour_has_effect()) {
            detour_installed = true;
            return;
        }
        const Status removed = remove_detour(detour);
        // Where it can't be taken back it stays, and passes everything on.
        strlcpy(why,
                removed.ok() ? "the server does not call its parser by the known way"
                             : "the server does not call its parser by the known way, and keeps the detour",
                sizeof why);
    }
    ereport(
        WARNING,
        (errmsg("pgxc_ha: statements about coordinators and datanodes can only be given as CALLs: %s", why),
         errhint("Use the procedures of schema pgxc, for example CALL pgxc.drop_slave('D', 3). Set "
                 "pgxc.grammar = off to silence this warning.")));
}

}  // namespace pgxc::pg
