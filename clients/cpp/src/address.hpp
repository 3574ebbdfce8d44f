// A server's address, read from a URL. Opens no socket.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <kingpole/client.hpp>

namespace kingpole::detail {

enum class scheme : std::uint8_t { http, https, grpc, grpcs, frame, unix_socket };

/// Where a server is; `path` is set for Unix sockets only, then host and port are not.
struct address {
    detail::scheme scheme = scheme::http;
    std::string host;
    std::uint16_t port = 0;
    std::string path;
    /// What comes before every path over HTTP.
    std::string prefix;

    /// True where TLS is spoken.
    [[nodiscard]] bool secure() const noexcept { return scheme == scheme::https || scheme == scheme::grpcs; }
    [[nodiscard]] bool is_http() const noexcept { return scheme == scheme::http || scheme == scheme::https; }
    [[nodiscard]] bool is_grpc() const noexcept { return scheme == scheme::grpc || scheme == scheme::grpcs; }
    /// Host and port as they stand in a `Host` header.
    [[nodiscard]] std::string authority() const;
    /// The address as a person reads it.
    [[nodiscard]] std::string text() const;
};

/// Read a URL; `invalid_argument` if it is none that a client knows.
[[nodiscard]] result<address> parse_address(std::string_view url);

/// Refuse options that the address has no use for.
[[nodiscard]] result<void> check_options(const address& address, const options& options);

}  // namespace kingpole::detail
