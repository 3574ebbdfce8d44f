// What can go wrong: one code table, the same in every language. Knows no transport.
//
// Source: protocol/spec/errors.md; the codes and their numbers are gRPC's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kingpole {

/// Says whose fault an error is, and so whether to try again.
enum class code : std::uint8_t {
    cancelled = 1,
    invalid_argument = 3,
    deadline_exceeded = 4,
    not_found = 5,
    already_exists = 6,
    permission_denied = 7,
    resource_exhausted = 8,
    failed_precondition = 9,
    unimplemented = 12,
    internal = 13,
    unavailable = 14,
    unauthenticated = 16,
};

/// Return the code's name as the protocol writes it, for example `NOT_FOUND`.
[[nodiscard]] std::string_view name(code code) noexcept;

/// An inference, or anything else asked of a server, that failed.
struct error {
    kingpole::code code = kingpole::code::internal;
    /// The server's own words, or the client's where no server spoke.
    std::string message;
    /// The request's id, if it had one and the server repeated it.
    std::optional<std::string> id = {};
    /// When trying again makes sense. 0: not said; with `resource_exhausted` it means that it is no use.
    std::uint32_t retry_after_ms = 0;
    /// True where the request certainly did not leave this process: trying again cannot run it twice.
    bool unsent = false;

    /// Return `CODE: message`.
    [[nodiscard]] std::string text() const;
};

namespace detail {

/// Make the error of a code's number; an unknown number is `internal`, and the text says so.
[[nodiscard]] error error_of_number(std::uint32_t number, std::string message);

/// Make the error of an HTTP status that came without a frame.
[[nodiscard]] error error_of_http_status(int status, std::string message);

/// A malformed answer is the server's fault: what a codec calls an invalid argument is internal to a caller.
[[nodiscard]] error as_servers_fault(error error);

}  // namespace detail
}  // namespace kingpole
