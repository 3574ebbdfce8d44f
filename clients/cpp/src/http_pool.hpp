// Connections to one address, each lent to one request at a time. Knows no frames.
#pragma once

#include <mutex>
#include <stop_token>

#include "http_connection.hpp"

namespace kingpole::detail {

/// Idle connections, kept for the next request. Safe between threads.
class http_pool {
  public:
    http_pool(address address, std::string token, std::shared_ptr<trust> trust, std::uint64_t limit);

    /// Send one request on an idle connection or a new one. Nothing is ever sent twice. A stop ends the
    /// connection.
    [[nodiscard]] result<http_answer> exchange(const http_request& request, const deadline& deadline,
                                               std::stop_token stop);

    /// A connection, and the head of the answer whose body comes on it.
    struct begun {
        std::unique_ptr<http_connection> connection;
        http_head head;
    };

    /// Send one request; the connection is to be given back.
    [[nodiscard]] result<begun> begin(const http_request& request, const deadline& deadline,
                                      std::stop_token stop);

    /// Take a connection back; one that cannot be used again is closed.
    void give_back(std::unique_ptr<http_connection> connection);

    /// Close what is idle, and the rest when it comes back.
    void close();

    [[nodiscard]] const address& to() const noexcept { return address_; }
    [[nodiscard]] std::uint64_t limit() const noexcept { return limit_; }

  private:
    [[nodiscard]] std::string head(const http_request& request) const;
    [[nodiscard]] result<std::unique_ptr<http_connection>> borrow(const deadline& deadline);

    address address_;
    std::string common_;
    std::shared_ptr<trust> trust_;
    std::uint64_t limit_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<http_connection>> idle_;
    bool closed_ = false;
};

}  // namespace kingpole::detail
