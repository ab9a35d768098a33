#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

/// What a node answers to a statement, or why it doesn't. Plain data: what decides needs no connection.
namespace pgxc {

/// Why there is no answer; what the failover policy must tell apart (DESIGN 6.2, step 1).
enum class Silence : std::uint8_t {
    None,     // the server answered: it lives, whatever it said
    Refused,  // nothing listens at that address
    Lost,     // an established connection was reset or closed
    Timeout,  // no answer in time
    Other,    // the address can't be resolved, no route, ...: says nothing about the server
};

/// An Error, and what it means for the life of the server.
struct NodeError {
    Error error;
    Silence silence = Silence::Other;
    /// SQLSTATE that the server itself sent; empty where none came.
    std::string server_sqlstate;
};

struct ServerNotice {
    std::string sqlstate;
    std::string message;
    std::string
        routine;  // the C function that reported it: SyncRepWaitForLSN is a cancelled synchronous wait
};

/// The result of one statement: text, nullopt for NULL.
struct Rows {
    std::vector<std::vector<std::optional<std::string>>> rows;
    std::vector<ServerNotice> notices;
    /// The first row's column; empty text for NULL or where there is no row.
    [[nodiscard]] std::string text(std::size_t column = 0, std::size_t row = 0) const;
    [[nodiscard]] bool is_null(std::size_t column, std::size_t row = 0) const;
};

template <class T>
class [[nodiscard]] NodeResult {
  public:
    NodeResult(T value) : value_(std::move(value)) {}
    NodeResult(NodeError error) : error_(std::move(error)) {}
    [[nodiscard]] bool ok() const { return value_.has_value(); }
    [[nodiscard]] T& operator*() { return *value_; }
    [[nodiscard]] T* operator->() { return &*value_; }
    [[nodiscard]] const NodeError& error() const { return error_; }

  private:
    std::optional<T> value_;
    NodeError error_;
};

}  // namespace pgxc
