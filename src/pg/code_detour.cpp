#include "pg/code_detour.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <string>

#include "pg/code_relocator.h"

namespace pgxc::pg {

namespace {

Error refused(const std::string& why) {
    return {sqlstate::feature_not_supported, why};
}

}  // namespace

Result<std::size_t> function_size(void* address, const char* name) {
    Dl_info info{};
    void* entry = nullptr;
    if (dladdr1(address, &info, &entry, RTLD_DL_SYMENT) == 0 || entry == nullptr ||
        info.dli_sname == nullptr || info.dli_saddr != address || std::strcmp(info.dli_sname, name) != 0)
        return refused(std::string("the function ") + name + " is not where its symbol says");
    const auto* symbol = static_cast<const ElfW(Sym)*>(entry);
    if (symbol->st_size == 0)
        return refused(std::string("the size of the function ") + name + " is not known");
    return static_cast<std::size_t>(symbol->st_size);
}

#if defined(__x86_64__) && defined(__linux__)

namespace {

Error failed(const char* call) {
    return refused(std::string(call) + " failed: " + std::strerror(errno));
}

std::uintptr_t address_of(const void* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer);
}
void* pointer_to(std::uintptr_t address) {
    return reinterpret_cast<void*>(address);
}

std::size_t page_bytes() {
    return static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

/// Owns a mapping until it is released.
class Mapping {
  public:
    Mapping(void* start, std::size_t bytes) : start_(start), bytes_(bytes) {}
    Mapping(Mapping&& other) noexcept : start_(other.release()), bytes_(other.bytes_) {}
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    Mapping& operator=(Mapping&&) = delete;
    ~Mapping() {
        if (start_ != nullptr) munmap(start_, bytes_);
    }
    [[nodiscard]] void* start() const { return start_; }
    [[nodiscard]] std::size_t bytes() const { return bytes_; }
    void* release() {
        void* const start = start_;
        start_ = nullptr;
        return start;
    }

  private:
    void* start_;
    std::size_t bytes_;
};

Result<Mapping> map_writable(void* wish, std::size_t bytes, int flags) {
    void* const start = mmap(wish, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (start == MAP_FAILED) return failed("mmap");
    return Mapping(start, bytes);
}

/// Maps a page that a near jump from `code` reaches. Looks below first: above a program's code its heap
/// grows.
Result<Mapping> map_near(const void* code) {
    constexpr std::uintptr_t step = std::uintptr_t{1} << 20;
    constexpr std::uintptr_t reach = std::uintptr_t{1} << 30;
    const std::size_t bytes = page_bytes();
    const std::uintptr_t origin = address_of(code) & ~(std::uintptr_t{bytes} - 1);
    for (const bool below : {true, false}) {
        for (std::uintptr_t away = step; away <= reach; away += step) {
            if (below && origin <= away + step) break;
            const std::uintptr_t wish = below ? origin - away : origin + away;
            auto mapping = map_writable(pointer_to(wish), bytes, MAP_FIXED_NOREPLACE);
            // A kernel before 4.17 doesn't know the flag and may answer with another place.
            if (mapping && mapping->start() == pointer_to(wish)) return mapping;
        }
    }
    return refused("there is no free memory near the function");
}

/// Replaces bytes of code, in all pages at once, or fails with nothing changed.
Status replace_code(std::uintptr_t address, std::span<const std::uint8_t> bytes) {
    const std::uintptr_t mask = std::uintptr_t{page_bytes()} - 1;
    const std::uintptr_t start = address & ~mask;
    const std::size_t length = ((address + bytes.size() + mask) & ~mask) - start;
    auto copy = map_writable(nullptr, length, 0);
    if (!copy) return copy.error();
    auto* const target = static_cast<std::uint8_t*>(copy->start());
    std::memcpy(target, pointer_to(start), length);
    std::copy(bytes.begin(), bytes.end(), target + (address - start));
    if (mprotect(copy->start(), length, PROT_READ | PROT_EXEC) != 0) return failed("mprotect");
    if (mremap(copy->start(), length, length, MREMAP_MAYMOVE | MREMAP_FIXED, pointer_to(start)) == MAP_FAILED)
        return failed("mremap");
    static_cast<void>(copy->release());
    __builtin___clear_cache(static_cast<char*>(pointer_to(start)),
                            static_cast<char*>(pointer_to(start + length)));
    return {};
}

}  // namespace

Result<Detour> install_detour(void* function, std::size_t function_bytes, void* replacement) {
    const std::span code(static_cast<const std::uint8_t*>(function), function_bytes);
    auto block = map_near(function);
    if (!block) return block.error();

    // First in the block a jump to the replacement, which may be anywhere; then the moved instructions.
    constexpr std::size_t moved_at = 16;
    static_assert(moved_at >= far_jump_bytes);
    const std::uintptr_t block_address = address_of(block->start());
    const auto entry = relocate_entry(code, address_of(function), block_address + moved_at);
    if (!entry) return entry.error();
    if (moved_at + entry->code.size() > block->bytes()) return refused("the function's entry is too long");
    auto* const bytes = static_cast<std::uint8_t*>(block->start());
    const auto far = encode_far_jump(address_of(replacement));
    std::copy(far.begin(), far.end(), bytes);
    std::copy(entry->code.begin(), entry->code.end(), bytes + moved_at);
    if (mprotect(block->start(), block->bytes(), PROT_READ | PROT_EXEC) != 0) return failed("mprotect");

    Detour detour;
    detour.original = pointer_to(block_address + moved_at);
    detour.patched_at = address_of(function) + entry->patch_offset;
    const auto replaced = code.subspan(entry->patch_offset, entry->replaced_bytes);
    detour.old_bytes.assign(replaced.begin(), replaced.end());
    detour.block = block->start();
    detour.block_bytes = block->bytes();

    const auto jump = encode_near_jump(detour.patched_at, block_address);
    if (!jump) return jump.error();
    constexpr std::uint8_t breakpoint = 0xCC;  // never reached
    std::vector<std::uint8_t> patch(entry->replaced_bytes, breakpoint);
    std::copy(jump->begin(), jump->end(), patch.begin());
    if (Status patched = replace_code(detour.patched_at, patch); !patched) return patched.error();
    static_cast<void>(block->release());
    return detour;
}

Status remove_detour(const Detour& detour) {
    if (Status restored = replace_code(detour.patched_at, detour.old_bytes); !restored) return restored;
    munmap(detour.block, detour.block_bytes);
    return {};
}

#else

Result<Detour> install_detour(void*, std::size_t, void*) {
    return refused("this processor architecture or operating system is not supported");
}

Status remove_detour(const Detour&) {
    return {};
}

#endif

}  // namespace pgxc::pg
