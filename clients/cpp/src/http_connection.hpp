// HTTP/1.1 from the client's side, over one connection. Knows no frames and no Open Inference.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "byte_stream.hpp"

namespace kingpole::detail {

/// Status and headers, whose names are in lower case.
struct http_head {
    int status = 0;
    std::map<std::string, std::string, std::less<>> headers = {};

    /// Return a header's value; empty if it is not there.
    [[nodiscard]] std::string_view header(std::string_view name) const;
};

/// A whole answer.
struct http_answer {
    http_head head = {};
    bytes_view body = {};
    std::shared_ptr<const void> owner = {};

    /// Return the body as text, at most `most` bytes of it.
    [[nodiscard]] std::string_view text(std::size_t most = SIZE_MAX) const;
};

/// What is asked. The buffers are the caller's.
struct http_request {
    std::string_view method = "GET";
    std::string path = {};
    /// `Name: value\r\n` for each header that describes the body.
    std::string headers = {};
    std::vector<bytes_view> body = {};
};

/// One connection; one request at a time.
class http_connection {
  public:
    http_connection(std::unique_ptr<byte_stream> stream, std::string name, std::uint64_t limit);

    /// Send one request and receive its answer.
    [[nodiscard]] result<http_answer> exchange(const std::string& head, const std::vector<bytes_view>& body,
                                               const deadline& deadline);

    /// Send one request and receive the head of its answer; `piece` or `rest` gives the body.
    [[nodiscard]] result<http_head> begin(const std::string& head, const std::vector<bytes_view>& body,
                                          const deadline& deadline);

    /// Receive the whole body.
    [[nodiscard]] result<http_answer> rest(http_head head, const deadline& deadline);

    /// Receive the next chunk of a body that is sent while it is made; nothing at its end.
    [[nodiscard]] result<std::optional<http_answer>> piece(const deadline& deadline);

    /// Return whether another request may follow on this connection.
    [[nodiscard]] bool reusable() const noexcept { return reusable_; }
    void spoil() noexcept { reusable_ = false; }

    [[nodiscard]] byte_stream& stream() noexcept { return *stream_; }

  private:
    [[nodiscard]] result<void> more(const deadline& deadline);
    [[nodiscard]] result<http_head> receive_head(const deadline& deadline);
    [[nodiscard]] result<std::string> receive_line(const deadline& deadline);
    [[nodiscard]] result<std::uint64_t> receive_chunk_size(const deadline& deadline);
    [[nodiscard]] result<void> receive_into(std::span<std::byte> into, const deadline& deadline);
    [[nodiscard]] result<http_answer> receive_body(std::uint64_t nbytes, const deadline& deadline);
    [[nodiscard]] result<http_answer> receive_chunks(const deadline& deadline);
    [[nodiscard]] result<void> receive_trailers(const deadline& deadline);

    std::unique_ptr<byte_stream> stream_;
    std::string name_;
    std::uint64_t limit_;
    /// Received and not yet looked at.
    std::string rest_;
    bool reusable_ = false;
};

}  // namespace kingpole::detail
