#include "slot.hpp"

#include <utility>

namespace kingpole::detail {

void slot::resolve(answer answer) {
    std::function<void()> callback;
    {
        const std::lock_guard lock(mutex_);
        if (answer_ || taken_) return;
        answer_ = std::move(answer);
        callback = std::exchange(callback_, nullptr);
    }
    changed_.notify_all();
    if (callback) callback();
}

bool slot::is_resolved() const {
    const std::lock_guard lock(mutex_);
    return answer_ || taken_;
}

bool slot::wait(const deadline& deadline, std::stop_token stop) const {
    std::unique_lock lock(mutex_);
    const auto resolved = [this] { return answer_ || taken_; };
    if (deadline) return changed_.wait_until(lock, std::move(stop), *deadline, resolved);
    return changed_.wait(lock, std::move(stop), resolved);
}

answer slot::take(const deadline& deadline, std::stop_token stop) {
    if (!wait(deadline, stop)) {
        if (stop.stop_requested()) {
            give_up({.code = code::cancelled, .message = "the caller gave up"});
        } else {
            give_up({.code = code::deadline_exceeded, .message = "no answer came in time"});
        }
    }
    const std::lock_guard lock(mutex_);
    if (taken_) return error{.code = code::invalid_argument, .message = "the answer was taken before"};
    taken_ = true;
    answer taken = *std::move(answer_);
    answer_.reset();
    return taken;
}

void slot::then(std::function<void()> callback) {
    {
        const std::lock_guard lock(mutex_);
        if (!answer_ && !taken_) {
            callback_ = std::move(callback);
            return;
        }
    }
    callback();
}

void slot::set_give_up(std::function<void()> give_up) {
    const std::lock_guard lock(mutex_);
    give_up_ = std::move(give_up);
}

void slot::give_up(error reason) {
    std::function<void()> give_up;
    {
        const std::lock_guard lock(mutex_);
        if (answer_ || taken_) return;
        give_up = std::exchange(give_up_, nullptr);
    }
    if (give_up) give_up();
    resolve(std::move(reason));
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !held_; });
}

bool slot::hold() {
    const std::lock_guard lock(mutex_);
    held_ = !answer_ && !taken_;
    return held_;
}

void slot::release() {
    {
        const std::lock_guard lock(mutex_);
        held_ = false;
    }
    changed_.notify_all();
}

}  // namespace kingpole::detail
