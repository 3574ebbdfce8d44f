#include "rest.hpp"

#include <algorithm>
#include <charconv>

#include "json.hpp"

namespace kingpole::detail {

namespace {

constexpr std::size_t most_error_bytes = 8192;
constexpr std::size_t most_document_bytes = std::size_t{1} << 20;

error unreadable(const std::string& what) {
    return {.code = code::internal, .message = "the server's " + what + " cannot be read"};
}

/// Write a text as one segment of a path.
std::string quoted(std::string_view text) {
    constexpr std::string_view digits = "0123456789ABCDEF";
    std::string written;
    for (const char each : text) {
        const auto byte = static_cast<unsigned char>(each);
        const bool is_plain = (each >= 'a' && each <= 'z') || (each >= 'A' && each <= 'Z') ||
                              (each >= '0' && each <= '9') ||
                              std::string_view("-._~").find(each) != std::string_view::npos;
        if (is_plain) {
            written += each;
        } else {
            written += {'%', digits[byte >> 4], digits[byte & 15]};
        }
    }
    return written;
}

result<json> read_document(const http_answer& answer) {
    if (answer.head.status != 200) return error_of_answer(answer);
    auto document = parse_json(answer.text(), most_document_bytes);
    if (document && !document->is_object()) return unreadable("answer");
    return document;
}

result<std::vector<tensor_spec>> read_specs(const json& document, const char* side) {
    std::vector<tensor_spec> specs;
    const auto found = document.find(side);
    if (found == document.end() || found->is_null()) return specs;
    if (!found->is_array()) return unreadable("metadata");
    for (const json& each : *found) {
        const auto kind = datatype_named(text_of(each, "datatype"));
        if (!kind || !each.contains("shape") || !each["shape"].is_array()) return unreadable("metadata");
        tensor_spec spec{text_of(each, "name"), *kind, {}, false};
        for (const json& size : each["shape"]) {
            if (!size.is_number_integer()) return unreadable("metadata");
            spec.shape.push_back(size.get<std::int64_t>());
        }
        specs.push_back(std::move(spec));
    }
    return specs;
}

std::vector<std::string> read_texts(const json& document, const char* name) {
    std::vector<std::string> texts;
    const auto found = document.find(name);
    if (found == document.end() || !found->is_array()) return texts;
    for (const json& each : *found) {
        if (each.is_string()) texts.push_back(each.get<std::string>());
    }
    return texts;
}

}  // namespace

std::string model_path(std::string_view model, std::string_view version) {
    std::string path = "/v2/models/" + quoted(model);
    if (!version.empty()) path += "/versions/" + quoted(version);
    return path;
}

error error_of_answer(const http_answer& answer) {
    const std::string text(answer.text(most_error_bytes));
    std::string message = text;
    if (text.starts_with('{')) {
        if (auto document = parse_json(text, most_error_bytes)) {
            // Servers made with FastAPI say `detail` for what they refuse themselves.
            message = text_of(*document, "error", text_of(*document, "detail", text));
        }
    }
    if (message.empty()) message = "HTTP status " + std::to_string(answer.head.status);
    error failure = error_of_http_status(answer.head.status, std::move(message));
    const auto retry_after = answer.head.header("retry-after");
    std::uint32_t seconds = 0;
    const auto [end, bad] =
        std::from_chars(retry_after.data(), retry_after.data() + retry_after.size(), seconds);
    if (bad == std::errc() && end == retry_after.data() + retry_after.size()) {
        failure.retry_after_ms = std::min(seconds, std::uint32_t{1'000'000}) * 1000;
    }
    return failure;
}

result<bool> read_ready(const http_answer& answer) {
    if (answer.head.status == 200) return true;
    // Triton says 400 for a model that is there and not ready.
    if (answer.head.status == 400 || answer.head.status == 503) return false;
    return error_of_answer(answer);
}

result<server_info> read_server_info(const http_answer& answer) {
    auto document = read_document(answer);
    if (!document) return std::move(document).error();
    if (!document->contains("name") || !document->contains("version")) return unreadable("metadata");
    return server_info{text_of(*document, "name"), text_of(*document, "version"),
                       read_texts(*document, "extensions"), 0};
}

result<model_metadata> read_model_metadata(const http_answer& answer) {
    auto document = read_document(answer);
    if (!document) return std::move(document).error();
    if (!document->contains("name")) return unreadable("metadata");
    auto inputs = read_specs(*document, "inputs");
    if (!inputs) return std::move(inputs).error();
    auto outputs = read_specs(*document, "outputs");
    if (!outputs) return std::move(outputs).error();
    return model_metadata{text_of(*document, "name"),
                          read_texts(*document, "versions"),
                          text_of(*document, "platform"),
                          *std::move(inputs),
                          *std::move(outputs),
                          std::nullopt,
                          {}};
}

}  // namespace kingpole::detail
