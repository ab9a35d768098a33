#include "pg/auth_pattern.h"

#include "base/log.h"
#include "pg/boundary.h"
#include "pg/pg_compat.h"

extern "C" {
#include "catalog/pg_collation.h"
#include "mb/pg_wchar.h"
#include "regex/regex.h"
#include "utils/memutils.h"
}

namespace pgxc {
namespace {

/// What compiling or matching says; `text` is the current memory context's.
struct Said {
    int code = REG_OKAY;
    const char* text = nullptr;
};

class ServerPattern final : public pooler::Pattern {
  public:
    explicit ServerPattern(MemoryContext context) : context_(context) {}
    ServerPattern(const ServerPattern&) = delete;
    ServerPattern& operator=(const ServerPattern&) = delete;
    ~ServerPattern() override {
        regex_t* compiled = compiled_ ? &regex_ : nullptr;
        MemoryContext const context = context_;
        (void)pg_call([compiled, context] {
            if (compiled != nullptr) pg_regfree(compiled);
            MemoryContextDelete(context);
        });
    }

    [[nodiscard]] Status compile(const std::string& text) {
        MemoryContext const context = context_;
        regex_t* regex = &regex_;
        const char* data = text.data();
        const int size = static_cast<int>(text.size());
        const auto compiled = pg_call([=] {
            MemoryContext const before = MemoryContextSwitchTo(context);
            auto* wide = static_cast<pg_wchar*>(palloc((size + 1) * sizeof(pg_wchar)));
            const int length = pg_mb2wchar_with_len(data, wide, size);
            Said outcome;
            outcome.code =
                pg_regcomp(regex, wide, static_cast<size_t>(length), REG_ADVANCED, C_COLLATION_OID);
            if (outcome.code != REG_OKAY) {
                auto* why = static_cast<char*>(palloc(100));
                pg_regerror(outcome.code, regex, why, 100);
                outcome.text = why;
            }
            MemoryContextSwitchTo(before);
            return outcome;
        });
        if (!compiled) return compiled.error();
        if (compiled->code != REG_OKAY)
            return Error{sqlstate::config_file_error,
                         "invalid regular expression \"" + text + "\": " + compiled->text};
        compiled_ = true;
        return {};
    }

    [[nodiscard]] Match match(const std::string& text) const override {
        regex_t* regex = &regex_;
        MemoryContext const parent = context_;
        const char* data = text.data();
        const int size = static_cast<int>(text.size());
        MemoryContext scratch = nullptr;
        MemoryContext* const made = &scratch;
        const auto matched = pg_call([=] {
            *made = AllocSetContextCreate(parent, "pgxc_ha match", ALLOCSET_SMALL_SIZES);
            MemoryContext const before = MemoryContextSwitchTo(*made);
            auto* wide = static_cast<pg_wchar*>(palloc((size + 1) * sizeof(pg_wchar)));
            const int length = pg_mb2wchar_with_len(data, wide, size);
            regmatch_t found[2];
            Said outcome;
            outcome.code = pg_regexec(regex, wide, static_cast<size_t>(length), 0, nullptr, 2, found, 0);
            // Positions count characters, not bytes.
            if (outcome.code == REG_OKAY && found[1].rm_so >= 0) {
                const auto characters = static_cast<int>(found[1].rm_eo - found[1].rm_so);
                auto* group = static_cast<char*>(
                    palloc(static_cast<Size>(characters) * pg_database_encoding_max_length() + 1));
                pg_wchar2mb_with_len(wide + found[1].rm_so, group, characters);
                outcome.text = group;
            }
            MemoryContextSwitchTo(before);
            return outcome;
        });
        Match result{Outcome::Failed};
        if (!matched) {
            log_warning("could not match a regular expression: " + matched.error().message);
        } else if (matched->code == REG_OKAY) {
            result.outcome = Outcome::Yes;
            if (matched->text != nullptr) result.group = matched->text;
        } else if (matched->code == REG_NOMATCH) {
            result.outcome = Outcome::No;
        } else {
            log_warning("could not match a regular expression: code " + std::to_string(matched->code));
        }
        if (scratch != nullptr) (void)pg_call([scratch] { MemoryContextDelete(scratch); });
        return result;
    }

  private:
    MemoryContext context_;
    mutable regex_t regex_{};
    bool compiled_ = false;
};

}  // namespace

Result<std::shared_ptr<const pooler::Pattern>> make_auth_pattern(const std::string& text) {
    const auto context = pg_call(
        [] { return AllocSetContextCreate(TopMemoryContext, "pgxc_ha pattern", ALLOCSET_SMALL_SIZES); });
    if (!context) return context.error();
    auto made = std::make_shared<ServerPattern>(*context);
    if (auto status = made->compile(text); !status) return status.error();
    return std::shared_ptr<const pooler::Pattern>{std::move(made)};
}

}  // namespace pgxc
