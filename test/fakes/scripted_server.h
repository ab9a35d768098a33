#pragma once

#include <array>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/read.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>
#include <functional>
#include <memory>
#include <string>

#include "catalog/node.h"

namespace pgxc::test {

/// Lets everybody in, as PostgreSQL 15 would, and answers a statement with what the script says: bytes of the
/// protocol, or nothing, which closes the connection.
class ScriptedServer {
  public:
    using Script = std::function<std::string(const std::string& sql)>;

    ScriptedServer(asio::io_context& context, Script script)
        : acceptor_(std::make_shared<asio::ip::tcp::acceptor>(
              context, asio::ip::tcp::endpoint(asio::ip::address_v4::loopback(), 0))),
          script_(std::make_shared<Script>(std::move(script))),
          accepted_(std::make_shared<int>(0)) {
        asio::co_spawn(context, accept(acceptor_, script_, accepted_), asio::detached);
    }
    ~ScriptedServer() { acceptor_->close(); }
    ScriptedServer(const ScriptedServer&) = delete;
    ScriptedServer& operator=(const ScriptedServer&) = delete;

    [[nodiscard]] HostPort address() const { return {"127.0.0.1", acceptor_->local_endpoint().port()}; }
    [[nodiscard]] int accepted() const { return *accepted_; }

    /// A message: its type, its length, its text.
    static std::string message(char type, const std::string& text) {
        return type + number(static_cast<std::uint32_t>(text.size() + 4)) + text;
    }
    /// The answer to a statement that returns nothing.
    static std::string done() { return message('C', std::string("SELECT 0") + '\0') + message('Z', "I"); }

  private:
    using Socket = std::shared_ptr<asio::ip::tcp::socket>;

    static std::string number(std::uint32_t value) {
        std::string bytes;
        for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xFFU);
        return bytes;
    }
    static std::uint32_t number_in(const char* bytes) {
        std::uint32_t value = 0;
        for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
        return value;
    }
    static std::string parameter(const std::string& name, const std::string& value) {
        return message('S', name + '\0' + value + '\0');
    }

    static asio::awaitable<void> accept(std::shared_ptr<asio::ip::tcp::acceptor> acceptor,
                                        std::shared_ptr<Script> script, std::shared_ptr<int> accepted) {
        for (;;) {
            auto socket = std::make_shared<asio::ip::tcp::socket>(acceptor->get_executor());
            std::error_code failed;
            co_await acceptor->async_accept(*socket, asio::redirect_error(asio::use_awaitable, failed));
            if (failed == asio::error::operation_aborted) co_return;
            if (failed) continue;
            ++*accepted;
            asio::co_spawn(acceptor->get_executor(), serve(socket, script), asio::detached);
        }
    }

    /// What comes with its length in front, without that; `typed`: a letter comes before.
    static asio::awaitable<std::string> read(Socket socket, bool typed) {
        std::array<char, 5> head{};
        const std::size_t length = typed ? 5 : 4;
        co_await asio::async_read(*socket, asio::buffer(head.data(), length), asio::use_awaitable);
        std::string text(number_in(head.data() + length - 4) - 4, '\0');
        co_await asio::async_read(*socket, asio::buffer(text), asio::use_awaitable);
        co_return text;
    }

    static asio::awaitable<void> serve(Socket socket, std::shared_ptr<Script> script) {
        constexpr std::uint32_t tls_wanted = 80877103;
        std::string startup = co_await read(socket, false);
        if (number_in(startup.data()) == tls_wanted) {
            const std::string no = "N";
            co_await asio::async_write(*socket, asio::buffer(no), asio::use_awaitable);
            startup = co_await read(socket, false);
        }
        const std::string welcome = message('R', number(0)) + parameter("server_version", "15.0") +
                                    parameter("is_superuser", "on") + message('K', number(1) + number(2)) +
                                    message('Z', "I");
        co_await asio::async_write(*socket, asio::buffer(welcome), asio::use_awaitable);
        for (;;) {
            const std::string sql = co_await read(socket, true);
            const std::string answer = (*script)(sql.c_str());
            if (answer.empty()) co_return;
            co_await asio::async_write(*socket, asio::buffer(answer), asio::use_awaitable);
        }
    }

    std::shared_ptr<asio::ip::tcp::acceptor> acceptor_;
    std::shared_ptr<Script> script_;
    std::shared_ptr<int> accepted_;
};

}  // namespace pgxc::test
