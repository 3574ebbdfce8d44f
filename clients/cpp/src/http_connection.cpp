#include "http_connection.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace kingpole::detail {

namespace {

constexpr std::size_t max_head_bytes = std::size_t{64} * 1024;
constexpr std::size_t read_bytes = std::size_t{16} * 1024;
constexpr std::size_t max_interim_answers = 16;

error nonsense(std::string message) { return {.code = code::internal, .message = std::move(message)}; }

error too_long(std::uint64_t nbytes, std::uint64_t limit) {
    return {.code = code::resource_exhausted,
            .message = "the answer has at least " + std::to_string(nbytes) + " bytes, this client takes " +
                       std::to_string(limit)};
}

std::string lower(std::string_view text) {
    std::string lowered(text);
    std::ranges::transform(lowered, lowered.begin(), [](char each) {
        return each >= 'A' && each <= 'Z' ? static_cast<char>(each - 'A' + 'a') : each;
    });
    return lowered;
}

std::string_view trimmed(std::string_view text) {
    const std::size_t first = text.find_first_not_of(" \t");
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

result<std::uint64_t> parse_length(std::string_view text, int base) {
    std::uint64_t length = 0;
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), length, base);
    if (text.empty() || failure != std::errc() || end != text.data() + text.size()) {
        return nonsense("the answer's length is '" + std::string(text.substr(0, 40)) + "'");
    }
    return length;
}

bool is_chunked(const http_head& head) {
    return lower(head.header("transfer-encoding")).ends_with("chunked");
}

}  // namespace

std::string_view http_head::header(std::string_view name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

std::string_view http_answer::text(std::size_t most) const {
    return {reinterpret_cast<const char*>(body.data()), std::min(most, body.size())};
}

http_connection::http_connection(std::unique_ptr<byte_stream> stream, std::string name, std::uint64_t limit)
    : stream_(std::move(stream)), name_(std::move(name)), limit_(limit) {}

result<http_answer> http_connection::exchange(const std::string& head, const std::vector<bytes_view>& body,
                                              const deadline& deadline) {
    auto begun = begin(head, body, deadline);
    if (!begun) return std::move(begun).error();
    return rest(*std::move(begun), deadline);
}

result<http_head> http_connection::begin(const std::string& head, const std::vector<bytes_view>& body,
                                         const deadline& deadline) {
    reusable_ = false;
    std::vector<bytes_view> buffers{std::as_bytes(std::span(head))};
    buffers.insert(buffers.end(), body.begin(), body.end());
    auto sent = stream_->write(buffers, deadline);
    if (!sent && (sent.error().unsent || sent.error().code == code::deadline_exceeded)) {
        return std::move(sent).error();
    }
    // A server that refuses a body answers and closes before it has read all of it.
    auto received = receive_head(deadline);
    for (std::size_t interim = 0; received && received->status >= 100 && received->status < 200; ++interim) {
        if (interim == max_interim_answers) return nonsense(name_ + " says again and again that it goes on");
        received = receive_head(deadline);
    }
    if (!received) return sent ? std::move(received).error() : std::move(sent).error();
    reusable_ = sent.has_value() && lower(received->header("connection")) != "close";
    return received;
}

result<http_answer> http_connection::rest(http_head head, const deadline& deadline) {
    const bool may_reuse = std::exchange(reusable_, false);
    result<http_answer> answer = http_answer{};
    if (head.status == 204 || head.status == 304) {
        // These have no body.
    } else if (is_chunked(head)) {
        answer = receive_chunks(deadline);
    } else {
        const auto said = head.header("content-length");
        if (said.empty()) return nonsense(name_ + " answered with a body of no announced length");
        auto nbytes = parse_length(said, 10);
        if (!nbytes) return std::move(nbytes).error();
        answer = receive_body(*nbytes, deadline);
    }
    if (!answer) return answer;
    answer->head = std::move(head);
    reusable_ = may_reuse && rest_.empty();
    return answer;
}

result<std::optional<http_answer>> http_connection::piece(const deadline& deadline) {
    const bool may_reuse = std::exchange(reusable_, false);
    auto size = receive_chunk_size(deadline);
    if (!size) return std::move(size).error();
    if (*size == 0) {
        if (auto received = receive_trailers(deadline); !received) return std::move(received).error();
        reusable_ = may_reuse && rest_.empty();
        return std::optional<http_answer>();
    }
    auto chunk = receive_body(*size, deadline);
    if (!chunk) return std::move(chunk).error();
    if (auto line = receive_line(deadline); !line) return std::move(line).error();
    reusable_ = may_reuse;
    return std::optional(*std::move(chunk));
}

result<void> http_connection::more(const deadline& deadline) {
    const std::size_t have = rest_.size();
    rest_.resize(have + read_bytes);
    auto received = stream_->read(std::as_writable_bytes(std::span(rest_).subspan(have)), deadline);
    rest_.resize(have + (received ? *received : 0));
    if (!received) return std::move(received).error();
    if (*received == 0) {
        return error{.code = code::unavailable,
                     .message = name_ + " closed the connection before it had answered"};
    }
    return {};
}

result<http_head> http_connection::receive_head(const deadline& deadline) {
    std::size_t end = 0;
    for (std::size_t from = 0; (end = rest_.find("\r\n\r\n", from)) == std::string::npos;) {
        if (rest_.size() > max_head_bytes) {
            return nonsense("the answer's headers have more than " + std::to_string(max_head_bytes) +
                            " bytes");
        }
        from = rest_.size() < 3 ? 0 : rest_.size() - 3;
        if (auto read = more(deadline); !read) return std::move(read).error();
    }
    const std::string text = rest_.substr(0, end + 2);
    rest_.erase(0, end + 4);
    const std::size_t first_end = text.find("\r\n");
    const std::string_view first = std::string_view(text).substr(0, first_end);
    http_head head;
    const bool is_http = first.size() >= 12 && first.starts_with("HTTP/1.") && first[8] == ' ';
    if (is_http) std::from_chars(first.data() + 9, first.data() + 12, head.status);
    if (head.status < 100 || (first.size() > 12 && first[12] != ' ')) {
        return nonsense(name_ + " does not speak HTTP/1.1");
    }
    for (std::size_t at = first_end + 2; at < text.size();) {
        const std::size_t line_end = text.find("\r\n", at);
        const std::string_view line = std::string_view(text).substr(at, line_end - at);
        at = line_end + 2;
        const std::size_t colon = line.find(':');
        if (colon == std::string_view::npos) continue;
        head.headers.insert_or_assign(lower(trimmed(line.substr(0, colon))), trimmed(line.substr(colon + 1)));
    }
    return head;
}

result<std::string> http_connection::receive_line(const deadline& deadline) {
    std::size_t end = 0;
    while ((end = rest_.find("\r\n")) == std::string::npos) {
        if (rest_.size() > max_head_bytes) return nonsense("a chunk of the answer has no size");
        if (auto read = more(deadline); !read) return std::move(read).error();
    }
    std::string line = rest_.substr(0, end);
    rest_.erase(0, end + 2);
    return line;
}

result<std::uint64_t> http_connection::receive_chunk_size(const deadline& deadline) {
    auto line = receive_line(deadline);
    if (!line) return std::move(line).error();
    return parse_length(trimmed(std::string_view(*line).substr(0, line->find(';'))), 16);
}

result<void> http_connection::receive_into(std::span<std::byte> into, const deadline& deadline) {
    const std::size_t have = std::min(into.size(), rest_.size());
    std::memcpy(into.data(), rest_.data(), have);
    rest_.erase(0, have);
    into = into.subspan(have);
    while (!into.empty()) {
        auto received = stream_->read(into, deadline);
        if (!received) return std::move(received).error();
        if (*received == 0) {
            return error{.code = code::unavailable,
                         .message = name_ + " closed the connection within its answer"};
        }
        into = into.subspan(*received);
    }
    return {};
}

result<http_answer> http_connection::receive_body(std::uint64_t nbytes, const deadline& deadline) {
    if (nbytes > limit_) return too_long(nbytes, limit_);
    auto memory = allocate_aligned(nbytes);
    if (!memory) return std::move(memory).error();
    if (auto received = receive_into(memory->bytes(), deadline); !received)
        return std::move(received).error();
    return http_answer{{}, memory->bytes(), memory->owner};
}

result<http_answer> http_connection::receive_chunks(const deadline& deadline) {
    aligned_memory memory;
    std::size_t have = 0;
    while (true) {
        auto size = receive_chunk_size(deadline);
        if (!size) return std::move(size).error();
        if (*size == 0) break;
        if (*size > limit_ || have + *size > limit_) return too_long(have + std::min(*size, limit_), limit_);
        if (have + *size > memory.size) {
            // Twice as much each time, so that many chunks are not copied many times.
            auto larger = allocate_aligned(std::max<std::size_t>(have + *size, 2 * memory.size));
            if (!larger) return std::move(larger).error();
            if (have != 0) std::memcpy(larger->bytes().data(), memory.bytes().data(), have);
            memory = *std::move(larger);
        }
        if (auto received = receive_into(memory.bytes().subspan(have, *size), deadline); !received) {
            return std::move(received).error();
        }
        have += *size;
        if (auto line = receive_line(deadline); !line) return std::move(line).error();
    }
    if (auto received = receive_trailers(deadline); !received) return std::move(received).error();
    return http_answer{{}, memory.bytes().first(have), memory.owner};
}

result<void> http_connection::receive_trailers(const deadline& deadline) {
    for (std::size_t nbytes = 0; nbytes <= max_head_bytes;) {
        auto line = receive_line(deadline);
        if (!line) return std::move(line).error();
        if (line->empty()) return {};
        nbytes += line->size() + 2;
    }
    return nonsense("the answer's trailers have more than " + std::to_string(max_head_bytes) + " bytes");
}

}  // namespace kingpole::detail
