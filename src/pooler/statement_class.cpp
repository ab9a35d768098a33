#include "pooler/statement_class.h"

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "pooler/session_use.h"

namespace pgxc::pooler {

std::string_view to_word(StatementClass kind) {
    switch (kind) {
        case StatementClass::Read:
            return "read";
        case StatementClass::ReadWithTime:
            return "read with transaction time";
        case StatementClass::Begin:
            return "begin";
        case StatementClass::End:
            return "end";
        case StatementClass::MasterOnly:
            return "master only";
        case StatementClass::Write:
            return "write";
        case StatementClass::Unknown:
            return "unknown";
    }
    return "unknown";
}

int badness(StatementClass kind) {
    switch (kind) {
        case StatementClass::Read:
            return 0;
        case StatementClass::ReadWithTime:
            return 1;
        case StatementClass::Begin:
        case StatementClass::End:
            return 2;
        case StatementClass::MasterOnly:
            return 3;
        case StatementClass::Unknown:
            return 4;
        case StatementClass::Write:
            return 5;
    }
    return 5;
}

Classification ClassifierCache::classify(std::string_view sql, const SqlDialect& dialect) {
    if (classifier_ == nullptr)
        return {StatementClass::Unknown, "there is no parser here that could look at it"};
    if (sql.size() > max_classified_bytes)
        return {StatementClass::Unknown, "its text is too long to be looked at"};
    if (dialect.hides_quotes &&
        std::any_of(sql.begin(), sql.end(), [](char c) { return static_cast<signed char>(c) < 0; }))
        return {StatementClass::Unknown, "the client's encoding may hide quotes"};
    // Texts with backslashes read differently: they are not remembered under the other reading.
    const bool cacheable = sql.size() <= max_text && dialect.standard_conforming_strings;
    if (cacheable)
        if (const Classification* known = find(sql)) return *known;
    ++parsed_;
    const Classification answer = with_session_use(classifier_->classify(sql, dialect), sql);
    if (cacheable) remember(sql, answer);
    return answer;
}

Classification with_session_use(Classification what, std::string_view sql) {
    // What is read from first words alone the parser knows better: here they are all queries.
    constexpr std::uint32_t by_words = SessionUse::MakesTemporary | SessionUse::LocksSession |
                                       SessionUse::CallsSetConfig | SessionUse::SetsUnknown |
                                       SessionUse::Seeds | SessionUse::NamesStatements |
                                       SessionUse::SeesStatements | SessionUse::ReadsSequence;
    const bool reads = what.kind == StatementClass::Read || what.kind == StatementClass::ReadWithTime;
    if (reads && read_session_use(sql, true).has(by_words))
        return {StatementClass::MasterOnly, "its session may keep something of it"};
    return what;
}

void ClassifierCache::learn_write(std::string_view sql, const SqlDialect& dialect) {
    if (sql.size() > max_text || !dialect.standard_conforming_strings) return;
    const Classification answer{StatementClass::Write, "a slave has refused it"};
    if (Classification* known = find(sql)) {
        *known = answer;
    } else {
        remember(sql, answer);
    }
}

Classification* ClassifierCache::find(std::string_view key) {
    if (const auto found = known_.find(key); found != known_.end()) return &found->second;
    if (const auto found = older_.find(key); found != older_.end()) {
        const Classification answer = found->second;
        remember(key, answer);
        return &known_.find(key)->second;
    }
    return nullptr;
}

void ClassifierCache::remember(std::string_view key, Classification answer) {
    const std::string text{key};  // it may be an entry's own
    if (known_.size() >= std::max<std::size_t>(limit_ / 2, 1)) {
        older_ = std::move(known_);
        known_ = Table{};
    }
    known_[text] = answer;
}

bool encoding_hides_quotes(std::string_view encoding) {
    // PG_SJIS, BIG5, GBK, UHC, GB18030, JOHAB, SHIFT_JIS_2004, with all their other names, without
    // punctuation.
    static constexpr std::array<std::string_view, 13> names{
        "sjis",       "mskanji", "shiftjis", "win932",     "windows932", "big5",   "win950",
        "windows950", "gbk",     "win936",   "windows936", "uhc",        "gb18030"};
    static constexpr std::array<std::string_view, 5> more{"win949", "windows949", "johab", "shiftjis2004",
                                                          "sjis2004"};
    std::string plain;
    for (const char c : encoding) {
        if (c >= 'A' && c <= 'Z') plain += static_cast<char>(c - 'A' + 'a');
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) plain += c;
    }
    return std::find(names.begin(), names.end(), plain) != names.end() ||
           std::find(more.begin(), more.end(), plain) != more.end();
}

}  // namespace pgxc::pooler
