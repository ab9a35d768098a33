#include "pg/statement_classifier.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/log.h"
#include "pg/boundary.h"
#include "pg/pg_compat.h"

extern "C" {
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "parser/scansup.h"
#include "utils/memutils.h"
}

// Outside of namespace pgxc, whose Node would hide the server's from its macros.
namespace {

namespace pooler = pgxc::pooler;
using pgxc::log_warning;
using pgxc::pg_call;
using pgxc::Status;
using pooler::badness;
using pooler::Classification;
using pooler::StatementClass;

/// What the server's own functions do, by name; of several with one name the worst counts.
enum class Function : std::uint8_t { Reads, ShowsTime, Master, Writes };

struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};
using Functions = std::unordered_map<std::string, Function, Hash, std::equal_to<>>;

template <std::size_t N>
bool is_one_of(std::string_view name, const std::array<std::string_view, N>& names) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

/// Volatile, but of no effect, and no truer on the master.
constexpr std::array<std::string_view, 11> harmless_volatile{
    "random",   "random_normal", "clock_timestamp", "timeofday", "gen_random_uuid",    "uuidv4",
    "pg_sleep", "pg_sleep_for",  "pg_sleep_until",  "uuidv7",    "statement_timestamp"};
/// They give the time at which the transaction began, which changes when it moves.
constexpr std::array<std::string_view, 2> transaction_time{"now", "transaction_timestamp"};
/// Marked stable, but of the session's or the server's own state.
constexpr std::array<std::string_view, 16> masters_own{"pg_backend_pid",
                                                       "pg_postmaster_start_time",
                                                       "pg_conf_load_time",
                                                       "pg_my_temp_schema",
                                                       "pg_is_other_temp_schema",
                                                       "current_setting",
                                                       "pg_show_all_settings",
                                                       "pg_settings_get_flags",
                                                       "pg_cursor",
                                                       "pg_prepared_statement",
                                                       "pg_current_snapshot",
                                                       "pg_current_xact_id",
                                                       "pg_current_xact_id_if_assigned",
                                                       "pg_export_snapshot",
                                                       "currval",
                                                       "lastval"};

bool is_masters_own(std::string_view name) {
    return is_one_of(name, masters_own) || name.starts_with("pg_stat_") || name.starts_with("txid_") ||
           name.find("advisory") != std::string_view::npos;
}

Function judge(std::string_view name, char volatility) {
    if (is_masters_own(name)) return Function::Master;
    if (is_one_of(name, transaction_time)) return Function::ShowsTime;
    if (volatility != 'v' || is_one_of(name, harmless_volatile)) return Function::Reads;
    return Function::Writes;
}

/// Reads pg_proc's rows: "insert ( 1242 boolin 11 10 ... )", their columns named in front of them.
Functions read_functions(std::istream& file) {
    Functions functions;
    std::string line;
    std::vector<std::string> columns;
    bool in_table = false;
    bool in_columns = false;
    std::size_t name_at = 0;
    std::size_t volatility_at = 0;
    while (std::getline(file, line)) {
        if (line.starts_with("create ")) {
            if (in_table) break;
            in_table = line.starts_with("create pg_proc ");
            in_columns = in_table;
            continue;
        }
        if (!in_table) continue;
        if (in_columns) {
            const auto begin = line.find_first_not_of(' ');
            if (begin == std::string::npos || line[begin] == '(') continue;
            if (line[begin] == ')') {
                in_columns = false;
                const auto at = [&](std::string_view name) {
                    return static_cast<std::size_t>(std::find(columns.begin(), columns.end(), name) -
                                                    columns.begin());
                };
                name_at = at("proname");
                volatility_at = at("provolatile");
                if (std::max(name_at, volatility_at) >= columns.size()) return {};
                continue;
            }
            columns.push_back(line.substr(begin, line.find(' ', begin) - begin));
            continue;
        }
        constexpr std::string_view insert = "insert ( ";
        if (!line.starts_with(insert)) continue;
        // Up to provolatile no column holds a blank.
        std::string_view rest = std::string_view{line}.substr(insert.size());
        std::string_view name;
        char volatility = 'v';
        for (std::size_t i = 0; i <= std::max(name_at, volatility_at) && !rest.empty(); ++i) {
            const std::string_view word = rest.substr(0, rest.find(' '));
            if (i == name_at) name = word;
            if (i == volatility_at && word.size() == 1) volatility = word[0];
            rest.remove_prefix(std::min(rest.size(), word.size() + 1));
        }
        const Function now = judge(name, volatility);
        auto [known, added] = functions.try_emplace(std::string{name}, now);
        if (!added) known->second = std::max(known->second, now);
    }
    return functions;
}

const Functions& functions() {
    static const Functions all = [] {
        char share[MAXPGPATH];
        get_share_path(my_exec_path, share);
        const std::string name = std::string(share) + "/postgres.bki";
        std::ifstream file(name);
        Functions found;
        if (file) found = read_functions(file);
        if (found.empty())
            log_warning("could not read which functions only read from \"" + name +
                        "\": with pgxc.read_routing = auto statements that call functions go to the master");
        return found;
    }();
    return all;
}

/// Views that show one server's own state, beside all that begin with pg_stat_.
constexpr std::array<std::string_view, 18> server_views{"pg_locks",
                                                        "pg_cursors",
                                                        "pg_prepared_statements",
                                                        "pg_prepared_xacts",
                                                        "pg_replication_slots",
                                                        "pg_replication_origin_status",
                                                        "pg_settings",
                                                        "pg_file_settings",
                                                        "pg_hba_file_rules",
                                                        "pg_ident_file_mappings",
                                                        "pg_shmem_allocations",
                                                        "pg_shmem_allocations_numa",
                                                        "pg_backend_memory_contexts",
                                                        "pg_sequences",
                                                        "pg_config",
                                                        "pg_wait_events",
                                                        "pg_aios",
                                                        "pg_dsm_registry_allocations"};

/// What is found in a tree; the worst finding stands.
struct Finding {
    const Functions* functions;
    StatementClass kind;
    const char* reason;
};

void find(Finding* finding, StatementClass kind, const char* reason) {
    if (badness(kind) <= badness(finding->kind)) return;
    finding->kind = kind;
    finding->reason = reason;
}

void look_at_function(const FuncCall* call, Finding* finding) {
    const int names = list_length(call->funcname);
    const char* name = strVal(llast(call->funcname));
    if (names > 2 || (names == 2 && std::strcmp(strVal(linitial(call->funcname)), "pg_catalog") != 0)) {
        find(finding, StatementClass::Unknown, "it calls a function that is not the server's own");
        return;
    }
    const auto known = finding->functions->find(std::string_view{name});
    if (known == finding->functions->end()) {
        find(finding, StatementClass::Unknown, "it calls a function that is not the server's own");
        return;
    }
    switch (known->second) {
        case Function::Reads:
            return;
        case Function::ShowsTime:
            find(finding, StatementClass::ReadWithTime, "it shows when its transaction began");
            return;
        case Function::Master:
            find(finding, StatementClass::MasterOnly,
                 "it calls a function that means this session or server");
            return;
        case Function::Writes:
            find(finding, StatementClass::Write, "it calls a function that is volatile");
            return;
    }
}

void look_at_relation(const RangeVar* relation, Finding* finding) {
    const std::string_view name = relation->relname;
    const bool plain = relation->schemaname == nullptr;
    const bool system = plain || std::strcmp(relation->schemaname, "pg_catalog") == 0;
    if (!plain && std::string_view{relation->schemaname}.starts_with("pg_temp"))
        find(finding, StatementClass::MasterOnly, "it reads something temporary");
    else if (system && (name.starts_with("pg_stat_") || name.starts_with("pg_statio_") ||
                        is_one_of(name, server_views)))
        find(finding, StatementClass::MasterOnly, "it reads a view of one server's own state");
    else if (name.ends_with("_seq"))
        find(finding, StatementClass::MasterOnly, "it reads what seems to be a sequence");
}

bool is_sequence_column(const ColumnRef* column) {
    const Node* last = static_cast<const Node*>(llast(column->fields));
    if (!IsA(last, String)) return false;
    static constexpr std::array<std::string_view, 3> columns{"last_value", "is_called", "log_cnt"};
    return is_one_of(strVal(const_cast<Node*>(last)), columns);
}

bool look(Node* node, void* context) {
    if (node == nullptr) return false;
    auto* finding = static_cast<Finding*>(context);
    switch (nodeTag(node)) {
        case T_SelectStmt: {
            const auto* select = castNode(SelectStmt, node);
            if (select->intoClause != nullptr) find(finding, StatementClass::Write, "SELECT INTO writes");
            if (select->lockingClause != NIL)
                find(finding, StatementClass::Write, "row locks are taken at the master");
            break;
        }
        case T_FuncCall:
            look_at_function(castNode(FuncCall, node), finding);
            break;
        case T_RangeVar:
            look_at_relation(castNode(RangeVar, node), finding);
            return false;
        case T_ColumnRef:
            if (is_sequence_column(castNode(ColumnRef, node)))
                find(finding, StatementClass::MasterOnly, "it reads what seems to be a sequence");
            return false;
        case T_SQLValueFunction:
            switch (castNode(SQLValueFunction, node)->op) {
                case SVFOP_CURRENT_DATE:
                case SVFOP_CURRENT_TIME:
                case SVFOP_CURRENT_TIME_N:
                case SVFOP_CURRENT_TIMESTAMP:
                case SVFOP_CURRENT_TIMESTAMP_N:
                case SVFOP_LOCALTIME:
                case SVFOP_LOCALTIME_N:
                case SVFOP_LOCALTIMESTAMP:
                case SVFOP_LOCALTIMESTAMP_N:
                    find(finding, StatementClass::ReadWithTime, "it shows when its transaction began");
                    break;
                default:
                    break;
            }
            return false;
        default:
            if (pgxc::compat::changes_rows(nodeTag(node))) {
                find(finding, StatementClass::Write, "it changes rows");
                return false;
            }
            break;
    }
    const auto walker = reinterpret_cast<bool (*)()>(reinterpret_cast<void*>(&look));
    return raw_expression_tree_walker(node, walker, context);
}

void look_at_transaction(const TransactionStmt* statement, Finding* finding) {
    switch (statement->kind) {
        case TRANS_STMT_BEGIN:
        case TRANS_STMT_START:
            break;
        case TRANS_STMT_COMMIT:
        case TRANS_STMT_ROLLBACK:
            if (!statement->chain)
                find(finding, StatementClass::End, "it ends a transaction");
            else
                find(finding, StatementClass::MasterOnly,
                     "it begins another transaction like the one it ends");
            return;
        default:
            find(finding, StatementClass::MasterOnly, "it controls a transaction");
            return;
    }
    for (int i = 0; i < list_length(statement->options); ++i) {
        const auto* option = castNode(DefElem, list_nth(statement->options, i));
        const std::string_view name = option->defname;
        if (name == "transaction_isolation" && IsA(option->arg, A_Const)) {
            const std::string_view level = strVal(&castNode(A_Const, option->arg)->val);
            if (level == "read committed" || level == "read uncommitted") continue;
            find(finding, StatementClass::MasterOnly, "a strict isolation level is declared");
        } else {
            find(finding, StatementClass::MasterOnly, "an access mode is declared");
        }
    }
    find(finding, StatementClass::Begin, "it begins a transaction: the next statement decides");
}

void look_at_statement(Node* node, Finding* finding) {
    switch (nodeTag(node)) {
        case T_SelectStmt:
            look(node, finding);
            return;
        case T_TransactionStmt:
            look_at_transaction(castNode(TransactionStmt, node), finding);
            return;
        case T_ExplainStmt: {
            Node* const explained = castNode(ExplainStmt, node)->query;
            if (IsA(explained, SelectStmt)) {
                look(explained, finding);
            } else {
                find(finding, StatementClass::MasterOnly, "it explains what is for the master");
            }
            return;
        }
        case T_CopyStmt: {
            const auto* copy = castNode(CopyStmt, node);
            if (copy->is_from) {
                find(finding, StatementClass::Write, "COPY FROM writes");
            } else if (copy->is_program || copy->filename != nullptr) {
                find(finding, StatementClass::MasterOnly, "COPY TO a file or program acts on one server");
            } else if (copy->query != nullptr) {
                look_at_statement(copy->query, finding);
            } else if (copy->relation != nullptr) {
                look_at_relation(copy->relation, finding);
            }
            return;
        }
        case T_VariableShowStmt:
            find(finding, StatementClass::MasterOnly, "it shows a setting of this session or server");
            return;
        case T_VariableSetStmt:
            find(finding, StatementClass::MasterOnly, "it sets something for the session or the transaction");
            return;
        case T_DeclareCursorStmt:
        case T_FetchStmt:
        case T_ClosePortalStmt:
            find(finding, StatementClass::MasterOnly, "a cursor is at the server where it was opened");
            return;
        case T_PrepareStmt:
        case T_ExecuteStmt:
        case T_DeallocateStmt:
            find(finding, StatementClass::Unknown, "what is prepared in SQL is not looked into");
            return;
        case T_ListenStmt:
        case T_UnlistenStmt:
        case T_NotifyStmt:
            find(finding, StatementClass::MasterOnly, "notifications are the master's");
            return;
        case T_DiscardStmt:
        case T_LoadStmt:
        case T_LockStmt:
        case T_ConstraintsSetStmt:
            find(finding, StatementClass::MasterOnly, "it is about the session or its transaction");
            return;
        case T_DoStmt:
        case T_CallStmt:
            find(finding, StatementClass::Unknown, "what a block or a procedure does is not known");
            return;
        default:
            if (pgxc::compat::changes_rows(nodeTag(node))) {
                find(finding, StatementClass::Write, "it changes rows");
            } else {
                find(finding, StatementClass::Write, "it is no query");
            }
            return;
    }
}

void look_at_text(const char* text, Finding* finding) {
    List* const statements = pgxc::compat::parse_statements(text);
    if (statements == NIL) find(finding, StatementClass::Unknown, "there is no statement in it");
    for (int i = 0; i < list_length(statements); ++i)
        look_at_statement(castNode(RawStmt, list_nth(statements, i))->stmt, finding);
    const bool control = finding->kind == StatementClass::Begin || finding->kind == StatementClass::End;
    if (list_length(statements) > 1 && control)
        find(finding, StatementClass::Unknown, "a transaction among several statements");
}

class ServerClassifier final : public pooler::StatementClassifier {
  public:
    ServerClassifier() : functions_(&functions()) {}
    ServerClassifier(const ServerClassifier&) = delete;
    ServerClassifier& operator=(const ServerClassifier&) = delete;
    ~ServerClassifier() override {
        if (context_ != nullptr) MemoryContextDelete(context_);
    }

    Classification classify(std::string_view sql, const pooler::SqlDialect& dialect) override {
        text_.assign(sql);
        Finding finding{functions_, StatementClass::Read, "it only reads"};
        const char* text = text_.c_str();
        if (text_.find('\0') != std::string::npos)
            return {StatementClass::Unknown, "its text can't be parsed"};
        MemoryContext const caller = CurrentMemoryContext;
        const bool strings = standard_conforming_strings;
        const bool warning = escape_string_warning;
        standard_conforming_strings = dialect.standard_conforming_strings;
        escape_string_warning = false;
        const Status parsed = pg_call([&] {
            if (context_ == nullptr)
                context_ =
                    AllocSetContextCreate(TopMemoryContext, "pgxc_ha statements", ALLOCSET_DEFAULT_SIZES);
            MemoryContextSwitchTo(context_);
            look_at_text(text, &finding);
        });
        MemoryContextSwitchTo(caller);
        if (context_ != nullptr) MemoryContextReset(context_);
        standard_conforming_strings = strings;
        escape_string_warning = warning;
        if (!parsed) return {StatementClass::Unknown, "its text can't be parsed"};
        return {finding.kind, finding.reason};
    }

  private:
    const Functions* functions_;
    MemoryContext context_ = nullptr;
    std::string text_;
};

}  // namespace

namespace pgxc {

std::unique_ptr<pooler::StatementClassifier> make_statement_classifier() {
    return std::make_unique<ServerClassifier>();
}

}  // namespace pgxc
