#include "address.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace kingpole::detail {

namespace {

struct known_scheme {
    std::string_view name;
    detail::scheme scheme;
    std::uint16_t port;
};

constexpr std::array<known_scheme, 5> schemes{{{"http", scheme::http, 80},
                                               {"https", scheme::https, 443},
                                               {"grpc", scheme::grpc, 8000},
                                               {"grpcs", scheme::grpcs, 443},
                                               {"frame", scheme::frame, 8000}}};
constexpr std::size_t longest_socket_path = 107;

error invalid(std::string message) { return {.code = code::invalid_argument, .message = std::move(message)}; }

error unreadable(std::string_view url, std::string_view why) {
    return invalid("the address '" + std::string(url) + "' " + std::string(why));
}

result<address> unix_address(std::string_view url, std::string_view path) {
    if (path.starts_with("//")) path.remove_prefix(2);
    if (path.empty()) return unreadable(url, "has no path");
    if (path.size() > longest_socket_path || path.find('\0') != std::string_view::npos) {
        return unreadable(url, "has a path that no Unix socket can have");
    }
    return address{scheme::unix_socket, {}, 0, std::string(path), {}};
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
    std::uint16_t port = 0;
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (failure != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return port;
}

/// Split host and port; the host of an IPv6 address stands in brackets.
result<void> read_authority(std::string_view url, std::string_view authority, address& to) {
    if (authority.find('@') != std::string_view::npos) {
        return unreadable(url, "may have no user: pass a token instead");
    }
    std::size_t host_end = authority.find(':');
    if (authority.starts_with('[')) {
        const std::size_t close = authority.find(']');
        if (close == std::string_view::npos) return unreadable(url, "has a '[' without a ']'");
        to.host = authority.substr(1, close - 1);
        host_end = close + 1 < authority.size() ? close + 1 : std::string_view::npos;
    } else {
        to.host = authority.substr(0, host_end);
    }
    if (to.host.empty()) return unreadable(url, "has no host");
    if (!std::ranges::all_of(to.host, [](char each) { return each > ' ' && each < 127; })) {
        return unreadable(url, "has a host with characters that no host has");
    }
    if (host_end == std::string_view::npos) return {};
    if (authority[host_end] != ':') return unreadable(url, "has something behind its host");
    const auto port = parse_port(authority.substr(host_end + 1));
    if (!port) return unreadable(url, "has a port that is no number below 65536");
    to.port = *port;
    return {};
}

}  // namespace

std::string address::authority() const {
    if (!path.empty()) return "localhost";
    const bool is_v6 = host.find(':') != std::string::npos;
    return (is_v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::string address::text() const {
    if (!path.empty()) return "unix:" + path;
    const auto* known = std::ranges::find(schemes, scheme, &known_scheme::scheme);
    return std::string(known->name) + "://" + authority() + prefix;
}

result<address> parse_address(std::string_view url) {
    if (url.starts_with("unix:")) return unix_address(url, url.substr(5));
    const std::size_t colon = url.find("://");
    const auto* known = colon == std::string_view::npos
                            ? schemes.end()
                            : std::ranges::find(schemes, url.substr(0, colon), &known_scheme::name);
    if (known == schemes.end()) {
        return unreadable(url,
                          "is none of http://host:port, https://, grpc://, grpcs://, frame://, unix:/path");
    }
    address to{known->scheme, {}, known->port, {}, {}};
    const std::string_view rest = url.substr(colon + 3);
    if (rest.find_first_of("?#") != std::string_view::npos)
        return unreadable(url, "may have no query or fragment");
    const std::size_t slash = rest.find('/');
    if (auto read = read_authority(url, rest.substr(0, slash), to); !read) return std::move(read).error();
    if (slash != std::string_view::npos) {
        to.prefix = rest.substr(slash);
        while (to.prefix.ends_with('/')) to.prefix.pop_back();
    }
    if (!to.prefix.empty() && !to.is_http()) return unreadable(url, "may have no path");
    if (!std::ranges::all_of(to.prefix, [](char each) { return each > ' ' && each < 127; })) {
        return unreadable(url, "has a path with characters that must be written as %XX");
    }
    return to;
}

result<void> check_options(const address& address, const options& options) {
    if (!options.token.empty()) {
        if (!address.is_http() && !address.is_grpc()) {
            return invalid("a token cannot travel over " + address.text() +
                           ": use http, https, grpc or grpcs");
        }
        if (!std::ranges::all_of(options.token, [](char each) { return each >= ' ' && each < 127; })) {
            return invalid("the token has characters that cannot stand in a header");
        }
    }
    if (!options.root_certificates.empty() && !address.secure()) {
        return invalid("root_certificates is for https and grpcs, the address is " + address.text());
    }
    if (options.shared_memory_bytes != 0 && address.scheme != scheme::unix_socket) {
        return invalid("memory is shared over Unix sockets only, not over " + address.text());
    }
    if (options.timeout && options.timeout->count() <= 0) {
        return invalid("the timeout is " + std::to_string(options.timeout->count()) +
                       " us, it must be above 0");
    }
    return {};
}

}  // namespace kingpole::detail
