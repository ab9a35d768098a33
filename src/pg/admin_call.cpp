#include "pg/admin_call.h"

#include "catalog/topology_rules.h"
#include "pg/node_tag.h"

extern "C" {
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
}

namespace pgxc {
namespace {

constexpr const char* admin_role = "pgxc_admin";

Result<bool> may_administer() {
    return pg_call([] {
        if (superuser()) return true;
        const Oid role = get_role_oid(admin_role, true);
        return OidIsValid(role) && has_privs_of_role(GetUserId(), role);
    });
}

struct Texts {
    char** values;
    int count;
    bool has_null;
};

/// Server code: call it inside pg_call().
Texts elements_of(Datum array) {
    Texts texts{};
    Datum* elements = nullptr;
    bool* nulls = nullptr;
    deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls,
                      &texts.count);
    texts.values = static_cast<char**>(palloc0(sizeof(char*) * (texts.count + 1)));
    for (int i = 0; i < texts.count; ++i) {
        if (nulls[i])
            texts.has_null = true;
        else
            texts.values[i] = TextDatumGetCString(elements[i]);
    }
    return texts;
}

bool is_atomic(FunctionCallInfo fcinfo) {
    return !has_tag(fcinfo->context, T_CallContext) ||
           reinterpret_cast<const CallContext*>(fcinfo->context)->atomic;
}

}  // namespace

Result<AdminCall> AdminCall::begin(FunctionCallInfo fcinfo) {
    const auto may = may_administer();
    if (!may) return may.error();
    if (!*may)
        return Error{sqlstate::insufficient_privilege, "permission denied to change the nodes of the cluster",
                     "Only superusers and members of the role pgxc_admin may: GRANT pgxc_admin TO ...;"};
    const auto user = pg_call([]() -> char* { return GetUserNameFromId(GetUserId(), false); });
    if (!user) return user.error();
    const bool atomic = is_atomic(fcinfo);
    auto connection = SpiConnection::open(atomic ? SpiMode::Atomic : SpiMode::MayCommit);
    if (!connection) return std::move(connection).error();
    return AdminCall(fcinfo, atomic, *user, std::move(*connection));
}

Status AdminCall::commit() {
    return pg_call([] { SPI_commit(); });
}

void AdminCall::log(const std::string& what) const {
    report(LOG, Error{"00000", "pgxc_ha: role \"" + user_ + "\" " + what});
}

Status AdminCall::check_given(int index, const char* name) const {
    if (!fcinfo_->args[index].isnull) return {};
    return Error{sqlstate::null_value_not_allowed, std::string(name) + " must not be null"};
}

Result<NodeKey> AdminCall::node(int index) const {
    if (Status given = check_given(index, "node_type"); !given) return std::move(given).error();
    const auto id = integer(index + 1, "node_id");
    if (!id) return id.error();
    const char type = DatumGetChar(fcinfo_->args[index].value);
    if (type != static_cast<char>(NodeType::Coordinator) && type != static_cast<char>(NodeType::Datanode))
        return Error{sqlstate::invalid_parameter_value, "invalid node type \"" + std::string(1, type) + "\"",
                     "A node is a coordinator ('C') or a datanode ('D')."};
    return NodeKey{static_cast<NodeType>(type), NodeId{*id}};
}

Result<std::int32_t> AdminCall::integer(int index, const char* name) const {
    if (Status given = check_given(index, name); !given) return std::move(given).error();
    return DatumGetInt32(fcinfo_->args[index].value);
}

Result<bool> AdminCall::boolean(int index, const char* name) const {
    if (Status given = check_given(index, name); !given) return std::move(given).error();
    return DatumGetBool(fcinfo_->args[index].value);
}

Result<std::string> AdminCall::text(int index, const char* name) const {
    if (Status given = check_given(index, name); !given) return std::move(given).error();
    return text_argument(fcinfo_, index);
}

Result<std::optional<std::string>> AdminCall::optional_text(int index) const {
    if (fcinfo_->args[index].isnull) return std::optional<std::string>();
    auto given = text_argument(fcinfo_, index);
    if (!given) return std::move(given).error();
    return std::optional<std::string>(std::move(*given));
}

Result<Replication> AdminCall::optional_replication(int index) const {
    const auto given = optional_text(index);
    if (!given) return given.error();
    if (!*given) return Replication::None;
    return parse_replication(**given);
}

Result<std::vector<std::string>> AdminCall::texts(int index, const char* name) const {
    if (Status given = check_given(index, name); !given) return std::move(given).error();
    const Datum value = fcinfo_->args[index].value;
    const auto read = pg_call([=] { return elements_of(value); });
    if (!read) return read.error();
    if (read->has_null)
        return Error{sqlstate::null_value_not_allowed, std::string(name) + " must not contain nulls"};
    return std::vector<std::string>(read->values, read->values + read->count);
}

}  // namespace pgxc
