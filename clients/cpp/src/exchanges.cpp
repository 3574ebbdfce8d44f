#include "exchanges.hpp"

#include <algorithm>

namespace kingpole::detail {

namespace {

// No stream has more requests open than this, whatever its server grants.
constexpr std::uint64_t most_credit = 1 << 16;

/// Return whether the server has more to say to the same request.
bool goes_on(const answer& answer) {
    const auto* given = std::get_if<response>(&answer);
    return given != nullptr && given->stage == stage::part;
}

/// Make an error of one response of several, for a request that waits for one.
answer one_response(answer answer) {
    const auto* given = std::get_if<response>(&answer);
    if (given == nullptr || given->stage == stage::only) return answer;
    return error{
        .code = code::unimplemented,
        .message = "model '" + given->model + "' answers a request with any number of responses: use stream"};
}

}  // namespace

result<exchanges::begun> exchanges::begin(bool is_request, const deadline& deadline, std::stop_token stop) {
    std::unique_lock lock(mutex_);
    if (is_request) {
        const auto allowed = [this] { return credit_ > 0 || failure_; };
        const bool came = deadline ? credit_changed_.wait_until(lock, stop, *deadline, allowed)
                                   : credit_changed_.wait(lock, stop, allowed);
        if (!came && stop.stop_requested()) {
            return error{.code = code::cancelled, .message = "the caller gave up", .unsent = true};
        }
        if (!came) {
            return error{.code = code::deadline_exceeded,
                         .message = "the server answered none of the requests before this one in time",
                         .unsent = true};
        }
    }
    if (failure_) {
        error failure = *failure_;
        failure.unsent = true;
        return failure;
    }
    if (is_request) --credit_;
    begun begun{++last_, std::make_shared<detail::slot>()};
    open_.emplace(begun.exchange, open_exchange{is_request, begun.slot, nullptr});
    return begun;
}

void exchanges::place(std::uint64_t exchange, std::shared_ptr<const placement> placement) {
    const std::lock_guard lock(mutex_);
    if (const auto found = open_.find(exchange); found != open_.end()) {
        found->second.placement = std::move(placement);
    }
}

void exchanges::withdraw(std::uint64_t exchange) {
    {
        const std::lock_guard lock(mutex_);
        const auto found = open_.find(exchange);
        if (found == open_.end()) return;
        if (found->second.is_request) ++credit_;
        open_.erase(found);
    }
    credit_changed_.notify_one();
}

bool exchanges::give_up(std::uint64_t exchange) {
    const std::lock_guard lock(mutex_);
    const auto found = open_.find(exchange);
    if (found == open_.end() || !found->second.slot) return false;
    // Its answer still gives credit back, and frees what was placed for it.
    found->second.slot = nullptr;
    return true;
}

result<std::optional<std::uint64_t>> exchanges::answer(const received_frame& frame) {
    const std::uint64_t exchange = exchange_of(frame);
    std::shared_ptr<const placement> placement;
    {
        const std::lock_guard lock(mutex_);
        if (const auto found = open_.find(exchange); found != open_.end())
            placement = found->second.placement;
    }
    detail::answer answer = decode_or_error(frame, placement.get());
    if (placement && !goes_on(answer)) placement->learn(std::get_if<response>(&answer));
    const auto waiting = close(exchange, answer);
    if (waiting) {
        const bool is_unwanted = goes_on(answer);
        waiting->resolve(one_response(std::move(answer)));
        if (is_unwanted) return std::optional(exchange);
    } else if (exchange == 0 && std::holds_alternative<error>(answer)) {
        // No question has this number: the server means the stream as a whole.
        return std::get<error>(std::move(answer));
    }
    return std::optional<std::uint64_t>();
}

std::shared_ptr<slot> exchanges::close(std::uint64_t exchange, const detail::answer& answer) {
    std::shared_ptr<detail::slot> waiting;
    {
        const std::lock_guard lock(mutex_);
        const auto* granted = std::get_if<credit>(&answer);
        const auto found = open_.find(exchange);
        const bool is_open = found != open_.end();
        if (granted != nullptr) {
            credit_ = std::min(credit_ + granted->requests, most_credit);
            // In place of the answer to a request that was given up.
            if (is_open && !found->second.slot && granted->requests > 0) open_.erase(found);
        } else if (is_open) {
            waiting = std::move(found->second.slot);
            found->second.slot = nullptr;
            if (!goes_on(answer)) {
                if (found->second.is_request) credit_ = std::min(credit_ + 1, most_credit);
                open_.erase(found);
            }
        }
    }
    credit_changed_.notify_all();
    return waiting;
}

void exchanges::fail(const error& failure) {
    std::unordered_map<std::uint64_t, open_exchange> open;
    {
        const std::lock_guard lock(mutex_);
        if (!failure_) failure_ = failure;
        open.swap(open_);
    }
    credit_changed_.notify_all();
    for (auto& [exchange, each] : open) {
        if (each.slot) each.slot->resolve(failure);
    }
}

bool exchanges::failed() const {
    const std::lock_guard lock(mutex_);
    return failure_.has_value();
}

}  // namespace kingpole::detail
