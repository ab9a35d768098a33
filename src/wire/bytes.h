#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

/// The PostgreSQL frontend/backend protocol, version 3, without I/O: the manual's chapter of that name and
/// the server's pqcomm.c are its sources. Views go in and views come out; what is appended goes to the
/// caller's buffer.
namespace pgxc::wire {

/// Bytes of the caller's buffer; valid as long as that buffer isn't changed.
using Bytes = std::string_view;

/// Where builders append. Keep one per connection and clear() it: its capacity stays.
using Buffer = std::string;

/// Reads a number in network byte order. The caller has checked that the bytes are there.
[[nodiscard]] constexpr std::uint16_t get_u16(const char* p) {
    return static_cast<std::uint16_t>(static_cast<unsigned char>(p[0]) << 8U |
                                      static_cast<unsigned char>(p[1]));
}
[[nodiscard]] constexpr std::uint32_t get_u32(const char* p) {
    return std::uint32_t{get_u16(p)} << 16U | get_u16(p + 2);
}

inline void put_u8(Buffer& out, std::uint8_t value) {
    out.push_back(static_cast<char>(value));
}
inline void put_u16(Buffer& out, std::uint16_t value) {
    const char bytes[] = {static_cast<char>(value >> 8U), static_cast<char>(value)};
    out.append(bytes, sizeof bytes);
}
inline void put_u32(Buffer& out, std::uint32_t value) {
    const char bytes[] = {static_cast<char>(value >> 24U), static_cast<char>(value >> 16U),
                          static_cast<char>(value >> 8U), static_cast<char>(value)};
    out.append(bytes, sizeof bytes);
}
/// Appends a zero-terminated string. A zero inside would end it early for the receiver, so text ends there.
inline void put_cstring(Buffer& out, std::string_view text) {
    out.append(text.substr(0, text.find('\0')));
    out.push_back('\0');
}

/// Reads a message body from front to back. After the first read beyond the end ok() is false for good and
/// every read gives zero or empty: check once, at the end.
class BodyReader {
  public:
    explicit BodyReader(Bytes body) : rest_(body) {}

    [[nodiscard]] std::uint8_t u8() {
        const Bytes b = take(1);
        return b.empty() ? 0 : static_cast<std::uint8_t>(b[0]);
    }
    [[nodiscard]] std::uint16_t u16() {
        const Bytes b = take(2);
        return b.empty() ? 0 : get_u16(b.data());
    }
    [[nodiscard]] std::uint32_t u32() {
        const Bytes b = take(4);
        return b.empty() ? 0 : get_u32(b.data());
    }
    /// The text up to the next zero byte, which is consumed too. A missing zero is an error.
    [[nodiscard]] std::string_view cstring() {
        const auto end = rest_.find('\0');
        if (end == Bytes::npos) {
            fail();
            return {};
        }
        const auto text = rest_.substr(0, end);
        rest_.remove_prefix(end + 1);
        return text;
    }
    [[nodiscard]] Bytes take(std::size_t bytes) {
        if (bytes > rest_.size()) {
            fail();
            return {};
        }
        const Bytes taken = rest_.substr(0, bytes);
        rest_.remove_prefix(bytes);
        return taken;
    }
    [[nodiscard]] Bytes rest() const { return rest_; }
    [[nodiscard]] bool ok() const { return ok_; }
    /// All consumed, and nothing was missing.
    [[nodiscard]] bool done() const { return ok_ && rest_.empty(); }

  private:
    void fail() {
        ok_ = false;
        rest_ = {};
    }
    Bytes rest_;
    bool ok_ = true;
};

}  // namespace pgxc::wire
