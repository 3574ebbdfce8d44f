// Questions on a stream that wait for their answers. Knows no socket.
//
// Every exchange begun is answered exactly once: by its frame, by the end of its stream, or by being given
// up. No more requests are open than the server has granted: one, and what its Credit messages say.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <unordered_map>

#include "arena.hpp"
#include "slot.hpp"

namespace kingpole::detail {

/// The exchanges of one stream, by number. Safe between threads.
class exchanges {
  public:
    struct begun {
        std::uint64_t exchange = 0;
        std::shared_ptr<detail::slot> slot;
    };

    /// Take the next number; for a request, once the server allows one more. Errors are `unsent`.
    [[nodiscard]] result<begun> begin(bool is_request, const deadline& deadline, std::stop_token stop);

    /// Keep where a request's tensors are until the server says that it does not use them any more.
    void place(std::uint64_t exchange, std::shared_ptr<const placement> placement);

    /// Forget an exchange that the server was not told of.
    void withdraw(std::uint64_t exchange);

    /// Stop waiting for an exchange; returns whether it was waited for, and so is to be cancelled.
    [[nodiscard]] bool give_up(std::uint64_t exchange);

    /// Hand a received frame to whom it belongs; returns an exchange to cancel, if there is one. An error
    /// means that the stream cannot go on.
    [[nodiscard]] result<std::optional<std::uint64_t>> answer(const received_frame& frame);

    /// End the stream: everything that waits, and everything later, fails.
    void fail(const error& failure);

    /// Return whether the stream has ended.
    [[nodiscard]] bool failed() const;

  private:
    struct open_exchange {
        bool is_request = false;
        /// Null once it was given up.
        std::shared_ptr<detail::slot> slot;
        std::shared_ptr<const detail::placement> placement;
    };

    [[nodiscard]] std::shared_ptr<detail::slot> close(std::uint64_t exchange, const detail::answer& answer);

    mutable std::mutex mutex_;
    std::condition_variable_any credit_changed_;
    std::unordered_map<std::uint64_t, open_exchange> open_;
    std::uint64_t last_ = 0;
    std::uint64_t credit_ = 1;
    std::optional<error> failure_;
};

}  // namespace kingpole::detail
