#include "pg/code_detour.h"

#include <gtest/gtest.h>

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

namespace pgxc::pg {
namespace {

#if defined(__x86_64__) && defined(__linux__)

/// A function as a compiler would make it, in bytes so that each test knows what is moved: its result is
/// argument + 1, or -1 where the argument is 0, and it reads `1` relative to its own address.
constexpr std::uint8_t victim_code[] = {
    0x55,                                      //  0 push rbp
    0x48, 0x8B, 0x0D, 0x20, 0x00, 0x00, 0x00,  //  1 mov rcx, [rip+0x20]  (offset 40)
    0x48, 0x89, 0xE5,                          //  8 mov rbp, rsp
    0x85, 0xFF,                                // 11 test edi, edi
    0x74, 0x05,                                // 13 je 20
    0x8D, 0x04, 0x0F,                          // 15 lea eax, [rdi+rcx]
    0x5D,                                      // 18 pop rbp
    0xC3,                                      // 19 ret
    0xB8, 0xFF, 0xFF, 0xFF, 0xFF,              // 20 mov eax, -1
    0x5D,                                      // 25 pop rbp
    0xC3,                                      // 26 ret
};
constexpr std::size_t constant_at = 40;

using Function = int (*)(int);

/// The victim in executable pages of its own; `at` is its offset there.
class Victim {
  public:
    explicit Victim(std::size_t at = 0);
    ~Victim();
    Victim(const Victim&) = delete;
    Victim& operator=(const Victim&) = delete;
    [[nodiscard]] void* address() const { return pages_ + at_; }
    [[nodiscard]] int operator()(int argument) const {
        // Through a volatile pointer: the compiler must not know what is called.
        Function volatile function = reinterpret_cast<Function>(address());
        return function(argument);
    }

  private:
    std::uint8_t* pages_;
    std::size_t at_;
};

constexpr std::size_t victim_pages = 2 * 4096;

Victim::Victim(std::size_t at) : at_(at) {
    void* const pages =
        mmap(nullptr, victim_pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(pages, MAP_FAILED);
    pages_ = static_cast<std::uint8_t*>(pages);
    std::memcpy(pages_ + at_, victim_code, sizeof victim_code);
    const std::int64_t one = 1;
    std::memcpy(pages_ + at_ + constant_at, &one, sizeof one);
    EXPECT_EQ(mprotect(pages, victim_pages, PROT_READ | PROT_EXEC), 0);
}

Victim::~Victim() {
    munmap(pages_, victim_pages);
}

Function original = nullptr;

int replacement(int argument) {
    return argument == 99 ? -99 : original(argument) * 10;
}

/// Lines of the process's memory map that allow both writing and executing.
int writable_and_executable_mappings() {
    std::ifstream maps("/proc/self/maps");
    int count = 0;
    for (std::string line; std::getline(maps, line);)
        if (line.find(" rwx") != std::string::npos) ++count;
    return count;
}

void check_round_trip(const Victim& victim) {
    ASSERT_EQ(victim(41), 42);
    ASSERT_EQ(victim(0), -1);
    const auto detour =
        install_detour(victim.address(), sizeof victim_code, reinterpret_cast<void*>(&replacement));
    ASSERT_TRUE(detour.ok()) << detour.error().message;
    original = reinterpret_cast<Function>(detour->original);
    EXPECT_EQ(victim(41), 420);
    EXPECT_EQ(victim(0), -10);
    EXPECT_EQ(victim(99), -99);
    EXPECT_EQ(original(41), 42);
    EXPECT_EQ(writable_and_executable_mappings(), 0);
    ASSERT_TRUE(remove_detour(*detour).ok());
    EXPECT_EQ(victim(41), 42);
    EXPECT_EQ(victim(99), 100);
}

TEST(CodeDetour, LeadsCallsElsewhereAndBack) {
    check_round_trip(Victim());
}

TEST(CodeDetour, WorksAcrossAPageBoundary) {
    check_round_trip(Victim(4096 - 3));
}

TEST(CodeDetour, CanBeMadeOnTopOfAnother) {
    const Victim victim;
    const auto first =
        install_detour(victim.address(), sizeof victim_code, reinterpret_cast<void*>(&replacement));
    ASSERT_TRUE(first.ok());
    original = reinterpret_cast<Function>(first->original);
    static Function below = nullptr;
    static constexpr auto on_top = +[](int argument) { return below(argument) + 1; };
    const auto second = install_detour(victim.address(), sizeof victim_code, reinterpret_cast<void*>(on_top));
    ASSERT_TRUE(second.ok()) << second.error().message;
    below = reinterpret_cast<Function>(second->original);
    EXPECT_EQ(victim(41), 421);
    ASSERT_TRUE(remove_detour(*second).ok());
    EXPECT_EQ(victim(41), 420);
    ASSERT_TRUE(remove_detour(*first).ok());
    EXPECT_EQ(victim(41), 42);
}

TEST(CodeDetour, ARefusalChangesNothing) {
    const Victim victim;
    const auto detour = install_detour(victim.address(), 3, reinterpret_cast<void*>(&replacement));
    ASSERT_FALSE(detour.ok());
    EXPECT_EQ(detour.error().sqlstate, sqlstate::feature_not_supported);
    EXPECT_EQ(victim(41), 42);
    EXPECT_EQ(std::memcmp(victim.address(), victim_code, sizeof victim_code), 0);
}

TEST(CodeDetour, ARefusedMprotectChangesNothing) {
    // What systemd's MemoryDenyWriteExecute and SELinux do: memory that was writable never becomes
    // executable.
    const Victim victim;
    constexpr int set_mdwe = 65;  // PR_SET_MDWE, Linux 6.3
    const auto in_a_strict_process = [&] {
        if (prctl(set_mdwe, 1UL, 0UL, 0UL, 0UL) != 0) std::_Exit(77);
        const auto detour =
            install_detour(victim.address(), sizeof victim_code, reinterpret_cast<void*>(&replacement));
        if (detour.ok() || detour.error().message.find("mprotect") == std::string::npos) std::_Exit(1);
        std::_Exit(victim(41) == 42 ? 0 : 2);
    };
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) in_a_strict_process();
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "this kernel has no PR_SET_MDWE";
    EXPECT_EQ(WEXITSTATUS(status), 0);
}

#endif

TEST(FunctionSize, KnowsExportedFunctionsOnly) {
    const auto size = function_size(reinterpret_cast<void*>(&std::strtol), "strtol");
    // Whether libc has the name as it is or with a version's prefix is its own affair: no crash, no nonsense.
    if (size.ok()) {
        EXPECT_GT(*size, 0U);
    }
    EXPECT_FALSE(function_size(reinterpret_cast<void*>(&std::strtol), "another").ok());
    int local = 0;
    EXPECT_FALSE(function_size(&local, "local").ok());
}

}  // namespace
}  // namespace pgxc::pg
