// One answer that will come, and who waits for it. Knows neither frames nor sockets.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>

#include "clock.hpp"
#include "messages.hpp"

namespace kingpole::detail {

/// Filled once, by whoever is first; taken once.
class slot {
  public:
    /// Fill it; whoever comes later changes nothing.
    void resolve(answer answer);

    [[nodiscard]] bool is_resolved() const;

    /// Wait until it is filled; false if the deadline passed or a stop came first.
    [[nodiscard]] bool wait(const deadline& deadline, std::stop_token stop) const;

    /// Wait until it is filled, and take what is in it. When that takes too long, or a stop comes, the
    /// question is given up, and the answer says so.
    [[nodiscard]] answer take(const deadline& deadline, std::stop_token stop);

    /// Call `callback` once it is filled, or now if it is.
    void then(std::function<void()> callback);

    /// Say how the question is given up; at most once, before the slot is shared.
    void set_give_up(std::function<void()> give_up);

    /// Give the question up: it is answered with `reason`, unless there is an answer. Returns once nobody
    /// reads its tensors any more.
    void give_up(error reason);

    /// Begin to read the question's tensors, which a thread of the transport does; false if it was given up
    /// before. Until `release` nobody who gives it up goes on: the tensors are the caller's.
    [[nodiscard]] bool hold();
    void release();

  private:
    mutable std::mutex mutex_;
    mutable std::condition_variable_any changed_;
    std::optional<answer> answer_;
    bool taken_ = false;
    bool held_ = false;
    std::function<void()> callback_;
    std::function<void()> give_up_;
};

}  // namespace kingpole::detail
