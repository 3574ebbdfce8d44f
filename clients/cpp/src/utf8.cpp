#include "utf8.hpp"

#include <cstdint>

namespace kingpole::detail {

namespace {

struct form {
    std::size_t following;
    std::uint8_t second_least;
    std::uint8_t second_most;
};

/// What must follow a first byte of 0xC2 and above.
form form_of(std::uint8_t first) noexcept {
    if (first < 0xE0) return {1, 0x80, 0xBF};
    if (first < 0xF0)
        return {2, std::uint8_t(first == 0xE0 ? 0xA0 : 0x80), std::uint8_t(first == 0xED ? 0x9F : 0xBF)};
    return {3, std::uint8_t(first == 0xF0 ? 0x90 : 0x80), std::uint8_t(first == 0xF4 ? 0x8F : 0xBF)};
}

}  // namespace

bool is_utf8(std::string_view text) noexcept {
    const auto byte = [&](std::size_t at) { return static_cast<std::uint8_t>(text[at]); };
    for (std::size_t at = 0; at < text.size();) {
        const std::uint8_t first = byte(at++);
        if (first < 0x80) continue;
        if (first < 0xC2 || first > 0xF4) return false;
        const form form = form_of(first);
        if (text.size() - at < form.following) return false;
        if (byte(at) < form.second_least || byte(at) > form.second_most) return false;
        for (std::size_t next = 1; next < form.following; ++next) {
            if ((byte(at + next) & 0xC0) != 0x80) return false;
        }
        at += form.following;
    }
    return true;
}

}  // namespace kingpole::detail
