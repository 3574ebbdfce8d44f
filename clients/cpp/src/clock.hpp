// How long to wait. A deadline is a point on the monotonic clock and never travels.
#pragma once

#include <chrono>
#include <optional>

namespace kingpole::detail {

using clock = std::chrono::steady_clock;
/// When to give up; absent: never.
using deadline = std::optional<clock::time_point>;

/// The server knows the timeout too and answers when it expires: its word, which says more, gets this long to
/// arrive before we give up ourselves.
inline constexpr std::chrono::milliseconds grace{250};

/// Asking who is there needs no model and must not wait for ever.
inline constexpr std::chrono::seconds ask_timeout{10};

/// Opening a connection must not either.
inline constexpr std::chrono::seconds connect_timeout{10};

/// Return when to give up waiting for an answer that was asked for with a timeout.
inline deadline wait_deadline(std::optional<std::chrono::microseconds> timeout) {
    if (!timeout) return std::nullopt;
    // So long that the clock cannot hold it is as good as for ever.
    if (*timeout > std::chrono::hours(24 * 365)) return std::nullopt;
    return clock::now() + *timeout + grace;
}

inline bool has_passed(const deadline& deadline) { return deadline && clock::now() >= *deadline; }

}  // namespace kingpole::detail
