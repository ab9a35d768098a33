#include "pg/code_relocator.h"

#include <Zydis/Zydis.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <string>

namespace pgxc::pg {
namespace {

constexpr std::array<std::uint8_t, 4> endbr64 = {0xF3, 0x0F, 0x1E, 0xFA};

Error refused(std::string why) {
    return {sqlstate::feature_not_supported, std::move(why)};
}

void append_le32(std::vector<std::uint8_t>& out, std::int32_t value) {
    const auto bits = static_cast<std::uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<std::uint8_t>(bits >> shift));
}

std::optional<std::int32_t> distance(std::uint64_t from, std::uint64_t to) {
    const auto difference = static_cast<std::int64_t>(to - from);
    if (difference < std::numeric_limits<std::int32_t>::min() ||
        difference > std::numeric_limits<std::int32_t>::max())
        return std::nullopt;
    return static_cast<std::int32_t>(difference);
}

/// One instruction, and what it refers to relative to itself.
struct Instruction {
    ZydisDecodedInstruction decoded{};
    std::size_t offset = 0;
    std::optional<std::uint64_t> target;
    [[nodiscard]] std::size_t end() const { return offset + decoded.length; }
    [[nodiscard]] bool has_relative_memory() const {
        return (decoded.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0 && decoded.raw.modrm.mod == 0 &&
               decoded.raw.modrm.rm == 5;
    }
};

/// Decodes the whole function in a straight line: a compiler puts no data between the instructions.
Result<std::vector<Instruction>> decode(std::span<const std::uint8_t> function, std::uint64_t address) {
    ZydisDecoder decoder;
    if (!ZYAN_SUCCESS(ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)))
        return refused("the instruction decoder could not be initialized");
    std::vector<Instruction> instructions;
    for (std::size_t offset = 0; offset < function.size(); offset = instructions.back().end()) {
        Instruction instruction;
        instruction.offset = offset;
        auto& decoded = instruction.decoded;
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, nullptr, function.data() + offset,
                                                        function.size() - offset, &decoded)))
            return refused("the bytes at offset " + std::to_string(offset) + " are no instruction");
        if ((decoded.attributes & ZYDIS_ATTRIB_IS_RELATIVE) != 0) {
            const std::uint64_t next = address + instruction.end();
            std::int64_t ahead = 0;
            if (decoded.raw.imm[0].is_relative != 0) {
                ahead = decoded.raw.imm[0].value.s;
            } else if (instruction.has_relative_memory()) {
                ahead = decoded.raw.disp.value;
            } else {
                return refused("the instruction at offset " + std::to_string(offset) +
                               " is relative in an unknown way");
            }
            instruction.target = next + static_cast<std::uint64_t>(ahead);
        }
        instructions.push_back(instruction);
    }
    return instructions;
}

/// Appends an instruction as it must read at its new place, which is new_address + out.size().
Status append_relocated(const Instruction& instruction, std::span<const std::uint8_t> function,
                        std::uint64_t new_address, std::vector<std::uint8_t>& out) {
    const auto& decoded = instruction.decoded;
    const auto* const bytes = function.data() + instruction.offset;
    const std::string where = "the instruction at offset " + std::to_string(instruction.offset);
    if (!instruction.target) {
        out.insert(out.end(), bytes, bytes + decoded.length);
        return {};
    }
    const auto& immediate = decoded.raw.imm[0];
    if (immediate.is_relative != 0 && immediate.size == 8) {
        // Two bytes with a reach of 127: becomes the long form. LOOP and JRCXZ have none.
        const bool jump = decoded.opcode == 0xEB;
        const bool conditional = decoded.opcode >= 0x70 && decoded.opcode <= 0x7F;
        if (decoded.length != 2 || (!jump && !conditional)) return refused(where + " has no long form");
        const std::size_t length = jump ? 5 : 6;
        const auto ahead = distance(new_address + out.size() + length, *instruction.target);
        if (!ahead) return refused(where + " refers to something too far away");
        if (jump) {
            out.push_back(0xE9);
        } else {
            out.push_back(0x0F);
            out.push_back(static_cast<std::uint8_t>(decoded.opcode + 0x10));
        }
        append_le32(out, *ahead);
        return {};
    }
    const bool branch = immediate.is_relative != 0;
    const std::size_t size = branch ? immediate.size : decoded.raw.disp.size;
    const std::size_t field = branch ? immediate.offset : decoded.raw.disp.offset;
    if (size != 32) return refused(where + " is relative in an unknown way");
    const auto ahead = distance(new_address + out.size() + decoded.length, *instruction.target);
    if (!ahead) return refused(where + " refers to something too far away");
    std::vector<std::uint8_t> moved(bytes, bytes + decoded.length);
    std::vector<std::uint8_t> value;
    append_le32(value, *ahead);
    std::copy(value.begin(), value.end(), moved.begin() + static_cast<std::ptrdiff_t>(field));
    out.insert(out.end(), moved.begin(), moved.end());
    return {};
}

bool ends_the_flow(const ZydisDecodedInstruction& decoded) {
    switch (decoded.meta.category) {
        case ZYDIS_CATEGORY_RET:
        case ZYDIS_CATEGORY_INTERRUPT:
        case ZYDIS_CATEGORY_SYSRET:
            return true;
        default:
            return decoded.mnemonic == ZYDIS_MNEMONIC_UD2 || decoded.mnemonic == ZYDIS_MNEMONIC_HLT;
    }
}

}  // namespace

Result<std::array<std::uint8_t, near_jump_bytes>> encode_near_jump(std::uint64_t from, std::uint64_t to) {
    const auto ahead = distance(from + near_jump_bytes, to);
    if (!ahead) return refused("a jump's target is more than 2 GB away");
    std::vector<std::uint8_t> bytes{0xE9};
    append_le32(bytes, *ahead);
    std::array<std::uint8_t, near_jump_bytes> out{};
    std::copy(bytes.begin(), bytes.end(), out.begin());
    return out;
}

std::array<std::uint8_t, far_jump_bytes> encode_far_jump(std::uint64_t to) {
    std::array<std::uint8_t, far_jump_bytes> out{0xFF, 0x25, 0, 0, 0, 0};
    for (std::size_t i = 0; i < 8; ++i) out[6 + i] = static_cast<std::uint8_t>(to >> (8 * i));
    return out;
}

Result<RelocatedEntry> relocate_entry(std::span<const std::uint8_t> function, std::uint64_t address,
                                      std::uint64_t new_address) {
    auto instructions = decode(function, address);
    if (!instructions) return instructions.error();

    RelocatedEntry entry;
    if (function.size() >= endbr64.size() && std::equal(endbr64.begin(), endbr64.end(), function.begin()))
        entry.patch_offset = endbr64.size();
    // The new place is called through a pointer, too.
    entry.code.assign(endbr64.begin(), endbr64.end());

    std::size_t end = entry.patch_offset;
    bool goes_on = true;
    for (const auto& instruction : *instructions) {
        if (instruction.offset < entry.patch_offset) continue;
        if (end - entry.patch_offset >= near_jump_bytes) break;
        if (!goes_on || ends_the_flow(instruction.decoded))
            return refused("the function ends before there is room for a jump");
        if (Status moved = append_relocated(instruction, function, new_address, entry.code); !moved)
            return moved.error();
        goes_on = instruction.decoded.meta.category != ZYDIS_CATEGORY_UNCOND_BR;
        end = instruction.end();
    }
    entry.replaced_bytes = end - entry.patch_offset;
    if (entry.replaced_bytes < near_jump_bytes) return refused("the function is too short for a jump");

    const std::uint64_t first = address + entry.patch_offset;
    for (const auto& instruction : *instructions)
        if (instruction.target && *instruction.target > first && *instruction.target < address + end)
            return refused("the instruction at offset " + std::to_string(instruction.offset) +
                           " refers to the part that would be replaced");

    const auto back = encode_near_jump(new_address + entry.code.size(), address + end);
    if (!back) return back.error();
    entry.code.insert(entry.code.end(), back->begin(), back->end());
    return entry;
}

}  // namespace pgxc::pg
