#include "json.hpp"

namespace kingpole::detail {

namespace {

constexpr std::size_t most_depth = 64;

/// Return whether brackets are nested deeper than the limit: found before any memory is asked for them.
bool is_too_deep(std::string_view text) {
    std::size_t depth = 0;
    bool in_text = false;
    for (std::size_t at = 0; at < text.size(); ++at) {
        const char each = text[at];
        if (in_text) {
            if (each == '\\') {
                ++at;
            } else if (each == '"') {
                in_text = false;
            }
        } else if (each == '"') {
            in_text = true;
        } else if (each == '[' || each == '{') {
            if (++depth > most_depth) return true;
        } else if ((each == ']' || each == '}') && depth > 0) {
            --depth;
        }
    }
    return false;
}

}  // namespace

result<json> parse_json(std::string_view text, std::size_t most) {
    if (text.size() > most) {
        return error{.code = code::resource_exhausted,
                     .message = "the answer has " + std::to_string(text.size()) + " bytes of JSON, at most " +
                                std::to_string(most) + " are taken"};
    }
    if (is_too_deep(text)) {
        return error{.code = code::internal, .message = "the server's answer is nested too deeply"};
    }
    json document = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (document.is_discarded()) {
        return error{.code = code::internal, .message = "the server's answer is not JSON"};
    }
    return document;
}

std::string text_of(const json& object, std::string_view name, std::string_view otherwise) {
    if (object.is_object()) {
        const auto found = object.find(std::string(name));
        if (found != object.end() && found->is_string()) return found->get<std::string>();
        if (found != object.end() && found->is_number_integer()) return found->dump();
    }
    return std::string(otherwise);
}

}  // namespace kingpole::detail
