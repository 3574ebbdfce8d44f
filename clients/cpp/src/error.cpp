// The code table, read from both sides. Knows no transport.
#include <array>
#include <utility>

#include <kingpole/error.hpp>

namespace kingpole {

namespace {

constexpr std::array<std::pair<code, std::string_view>, 12> names{{
    {code::cancelled, "CANCELLED"},
    {code::invalid_argument, "INVALID_ARGUMENT"},
    {code::deadline_exceeded, "DEADLINE_EXCEEDED"},
    {code::not_found, "NOT_FOUND"},
    {code::already_exists, "ALREADY_EXISTS"},
    {code::permission_denied, "PERMISSION_DENIED"},
    {code::resource_exhausted, "RESOURCE_EXHAUSTED"},
    {code::failed_precondition, "FAILED_PRECONDITION"},
    {code::unimplemented, "UNIMPLEMENTED"},
    {code::internal, "INTERNAL"},
    {code::unavailable, "UNAVAILABLE"},
    {code::unauthenticated, "UNAUTHENTICATED"},
}};

code code_of_http_status(int status) noexcept {
    switch (status) {
        case 401:
            return code::unauthenticated;
        case 403:
            return code::permission_denied;
        case 404:
            return code::not_found;
        case 408:
        case 504:
            return code::deadline_exceeded;
        case 409:
            return code::failed_precondition;
        case 413:
        case 429:
            return code::resource_exhausted;
        case 499:
            return code::cancelled;
        case 501:
            return code::unimplemented;
        case 502:
        case 503:
            return code::unavailable;
        default:
            return status >= 400 && status < 500 ? code::invalid_argument : code::internal;
    }
}

}  // namespace

std::string_view name(code code) noexcept {
    for (const auto& [known, text] : names) {
        if (known == code) return text;
    }
    return "UNKNOWN";
}

std::string error::text() const { return std::string(name(code)) + ": " + message; }

namespace detail {

error error_of_number(std::uint32_t number, std::string message) {
    for (const auto& [known, text] : names) {
        if (static_cast<std::uint32_t>(known) == number)
            return {.code = known, .message = std::move(message)};
    }
    return {.code = code::internal,
            .message = "unknown code " + std::to_string(number) + ": " + std::move(message)};
}

error error_of_http_status(int status, std::string message) {
    return {.code = code_of_http_status(status), .message = std::move(message)};
}

error as_servers_fault(error error) {
    if (error.code == code::invalid_argument) error.code = code::internal;
    return error;
}

}  // namespace detail
}  // namespace kingpole
