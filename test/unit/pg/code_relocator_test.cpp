#include "pg/code_relocator.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace pgxc::pg {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::uint64_t from = 0x555555000000;
constexpr std::uint64_t to = 0x555554000000;
constexpr std::uint64_t endbr64_bytes = 4;

Bytes operator+(Bytes left, const Bytes& right) {
    left.insert(left.end(), right.begin(), right.end());
    return left;
}

Bytes le32(std::int64_t value) {
    Bytes out;
    for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<std::uint8_t>(value >> shift));
    return out;
}

const Bytes endbr64{0xF3, 0x0F, 0x1E, 0xFA};
const Bytes push_rbp{0x55};
const Bytes mov_rbp_rsp{0x48, 0x89, 0xE5};
const Bytes sub_rsp_16{0x48, 0x83, 0xEC, 0x10};
const Bytes ret{0xC3};
const Bytes nops(16, 0x90);

/// jmp rel32 at the end of the moved code, back to `offset` of the function.
Bytes jump_back(std::size_t code_before, std::size_t offset) {
    const auto at = static_cast<std::int64_t>(to + code_before);
    return Bytes{0xE9} + le32(static_cast<std::int64_t>(from + offset) - (at + 5));
}

std::string error_of(const Bytes& function) {
    const auto entry = relocate_entry(function, from, to);
    EXPECT_FALSE(entry.ok());
    if (entry.ok()) return "";
    EXPECT_EQ(entry.error().sqlstate, sqlstate::feature_not_supported);
    return entry.error().message;
}

TEST(RelocateEntry, CopiesWholeInstructions) {
    const Bytes moved = push_rbp + mov_rbp_rsp + sub_rsp_16;
    const auto entry = relocate_entry(moved + nops + ret, from, to);
    ASSERT_TRUE(entry.ok()) << entry.error().message;
    EXPECT_EQ(entry->patch_offset, 0U);
    EXPECT_EQ(entry->replaced_bytes, 8U);
    EXPECT_EQ(entry->code, endbr64 + moved + jump_back(endbr64_bytes + 8, 8));
}

TEST(RelocateEntry, KeepsEndbr64InPlace) {
    const Bytes moved = push_rbp + mov_rbp_rsp + sub_rsp_16;
    const auto entry = relocate_entry(endbr64 + moved + nops + ret, from, to);
    ASSERT_TRUE(entry.ok());
    EXPECT_EQ(entry->patch_offset, 4U);
    EXPECT_EQ(entry->replaced_bytes, 8U);
    EXPECT_EQ(entry->code, endbr64 + moved + jump_back(endbr64_bytes + 8, 12));
}

TEST(RelocateEntry, FixesAddressesRelativeToTheInstruction) {
    // push rbp; lea rcx, [rip+0x4384d8]: how raw_parser of Debian's PostgreSQL 15 begins
    const Bytes lea{0x48, 0x8D, 0x0D};
    const auto entry = relocate_entry(push_rbp + lea + le32(0x4384D8) + nops + ret, from, to);
    ASSERT_TRUE(entry.ok()) << entry.error().message;
    EXPECT_EQ(entry->replaced_bytes, 8U);
    const auto shift = static_cast<std::int64_t>(from - (to + endbr64_bytes));
    EXPECT_EQ(entry->code,
              endbr64 + push_rbp + lea + le32(0x4384D8 + shift) + jump_back(endbr64_bytes + 8, 8));
}

TEST(RelocateEntry, FixesARelativeAddressBeforeAnImmediate) {
    // cmp dword [rip+0x100], 7
    const Bytes cmp{0x81, 0x3D};
    const auto entry = relocate_entry(cmp + le32(0x100) + le32(7) + nops + ret, from, to);
    ASSERT_TRUE(entry.ok());
    EXPECT_EQ(entry->replaced_bytes, 10U);
    const auto shift = static_cast<std::int64_t>(from - (to + endbr64_bytes));
    EXPECT_EQ(entry->code, endbr64 + cmp + le32(0x100 + shift) + le32(7) + jump_back(endbr64_bytes + 10, 10));
}

TEST(RelocateEntry, FixesCallsAndLongJumps) {
    const auto shift = static_cast<std::int64_t>(from - (to + endbr64_bytes));
    for (const Bytes& opcode : {Bytes{0xE8}, Bytes{0xE9}, Bytes{0x0F, 0x84}}) {
        const auto entry = relocate_entry(opcode + le32(-0x1000) + nops + ret, from, to);
        ASSERT_TRUE(entry.ok()) << entry.error().message;
        const std::size_t length = opcode.size() + 4;
        EXPECT_EQ(entry->code,
                  endbr64 + opcode + le32(-0x1000 + shift) + jump_back(endbr64_bytes + length, length));
    }
}

TEST(RelocateEntry, MakesShortJumpsLong) {
    // test edi, edi; je +0x20; nop...
    const Bytes test_edi{0x85, 0xFF};
    const Bytes tail(64, 0x90);
    const auto entry = relocate_entry(test_edi + Bytes{0x74, 0x20} + tail + ret, from, to);
    ASSERT_TRUE(entry.ok()) << entry.error().message;
    EXPECT_EQ(entry->replaced_bytes, 5U);
    const auto next = static_cast<std::int64_t>(to + endbr64_bytes + 2 + 6);
    const Bytes je{0x0F, 0x84};
    const Bytes wanted = endbr64 + test_edi + je + le32(static_cast<std::int64_t>(from + 4 + 0x20) - next) +
                         Bytes{0x90} + jump_back(endbr64_bytes + 9, 5);
    EXPECT_EQ(entry->code, wanted);

    const auto jump = relocate_entry(push_rbp + mov_rbp_rsp + Bytes{0xEB, 0x20} + tail + ret, from, to);
    ASSERT_TRUE(jump.ok()) << jump.error().message;
    EXPECT_EQ(jump->replaced_bytes, 6U);
    EXPECT_EQ(jump->code[endbr64_bytes + 4], 0xE9);
}

TEST(RelocateEntry, RefusesWhatCannotBeMoved) {
    EXPECT_EQ(error_of({}), "the function is too short for a jump");
    EXPECT_EQ(error_of(push_rbp + mov_rbp_rsp), "the function is too short for a jump");
    EXPECT_EQ(error_of(endbr64 + push_rbp), "the function is too short for a jump");
    EXPECT_EQ(error_of(push_rbp + ret + nops), "the function ends before there is room for a jump");
    EXPECT_EQ(error_of(Bytes{0xCC} + nops), "the function ends before there is room for a jump");
    EXPECT_EQ(error_of(Bytes{0x0F, 0x0B} + nops), "the function ends before there is room for a jump");
    EXPECT_EQ(error_of(Bytes{0xEB, 0x10} + nops + nops), "the function ends before there is room for a jump");
    EXPECT_EQ(error_of(Bytes{0x06} + nops), "the bytes at offset 0 are no instruction");
    EXPECT_EQ(error_of(nops + Bytes{0x48}), "the bytes at offset 16 are no instruction");
    EXPECT_EQ(error_of(Bytes{0xE3, 0x20} + nops + nops + nops),
              "the instruction at offset 0 has no long form");
    EXPECT_EQ(error_of(Bytes{0xE2, 0x20} + nops + nops + nops),
              "the instruction at offset 0 has no long form");
}

TEST(RelocateEntry, RefusesJumpsIntoTheReplacedPart) {
    const Bytes start = push_rbp + mov_rbp_rsp + sub_rsp_16;
    // jmp back to offset 1, 7; offset 0 is the entry itself and fine, as is 8.
    const auto loop_to = [&](int offset) {
        return start + nops + Bytes{0xEB, static_cast<std::uint8_t>(offset - (8 + 16 + 2))} + ret;
    };
    EXPECT_EQ(error_of(loop_to(1)), "the instruction at offset 24 refers to the part that would be replaced");
    EXPECT_EQ(error_of(loop_to(7)), "the instruction at offset 24 refers to the part that would be replaced");
    EXPECT_TRUE(relocate_entry(loop_to(0), from, to).ok());
    EXPECT_TRUE(relocate_entry(loop_to(8), from, to).ok());
    // A jump inside the replaced part, and a load of its bytes
    EXPECT_EQ(error_of(Bytes{0x74, 0x01, 0x90, 0x90, 0x90} + nops + ret),
              "the instruction at offset 0 refers to the part that would be replaced");
    EXPECT_EQ(error_of(start + Bytes{0x48, 0x8D, 0x0D} + le32(-10) + ret),
              "the instruction at offset 8 refers to the part that would be replaced");
}

TEST(RelocateEntry, RefusesDistancesBeyondReach) {
    const Bytes function = push_rbp + mov_rbp_rsp + sub_rsp_16 + ret;
    EXPECT_TRUE(relocate_entry(function, from, from - 0x7FFF0000).ok());
    EXPECT_FALSE(relocate_entry(function, from, from - 0x80010000).ok());
    EXPECT_FALSE(relocate_entry(function, from, from + 0x80010000).ok());
    const Bytes far_lea = push_rbp + Bytes{0x48, 0x8D, 0x0D} + le32(0x7FFFFFF0) + ret;
    EXPECT_FALSE(relocate_entry(far_lea, from, from - 0x1000).ok());
}

TEST(EncodeJump, Bytes) {
    const auto near = encode_near_jump(0x1000, 0x2000);
    ASSERT_TRUE(near.ok());
    EXPECT_EQ(Bytes(near->begin(), near->end()), Bytes{0xE9} + le32(0x2000 - 0x1005));
    EXPECT_FALSE(encode_near_jump(0x1000, 0x100000000).ok());
    const auto far = encode_far_jump(0x1122334455667788);
    EXPECT_EQ(Bytes(far.begin(), far.end()),
              (Bytes{0xFF, 0x25, 0, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11}));
}

}  // namespace
}  // namespace pgxc::pg
