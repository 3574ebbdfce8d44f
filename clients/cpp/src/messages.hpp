// Questions to frames, and frames to answers. Knows the schema, not how frames travel.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include <kingpole/response.hpp>

#include "frame.hpp"

namespace kingpole::detail {

struct placement;

/// The server will take this many more requests on this stream.
struct credit {
    std::uint32_t requests = 0;
};

/// What was asked for is done.
struct done {};

/// Whether what was asked about is ready.
struct readiness {
    bool ready = false;
};

/// What a server says. An error is a value like any other.
using answer = std::variant<response, error, credit, done, readiness, server_info, model_metadata>;

/// An inference; what it refers to is the caller's.
struct infer_question {
    const request* asked = nullptr;
    std::optional<std::chrono::microseconds> timeout = {};
};
/// Whether a model is ready; without a name, the server.
struct ready_question {
    std::string model;
    std::string version;
};
struct server_info_question {};
struct metadata_question {
    std::string model;
    std::string version;
};
struct cancel_question {};
struct hand_over_question {
    std::uint32_t arena = 0;
    std::uint64_t nbytes = 0;
};
struct release_question {
    std::uint32_t arena = 0;
};
/// What a client says.
using question = std::variant<infer_question, ready_question, server_info_question, metadata_question,
                              cancel_question, hand_over_question, release_question>;

/// Write a question as a frame; payloads refer to the request's tensors. What has a place in an arena is left
/// out.
[[nodiscard]] result<outgoing_frame> encode(const question& question, std::uint64_t exchange,
                                            const placement* placement = nullptr);

/// Say what is wrong with a request, before anything of it is sent.
[[nodiscard]] result<void> check_request(const request& request,
                                         std::optional<std::chrono::microseconds> timeout);

/// Return the number that ties an answer to its question.
[[nodiscard]] std::uint64_t exchange_of(const received_frame& frame);

/// Read what a server sent; the result's own error says that it is malformed.
///
/// `placement` says where in an arena outputs of the request may be.
[[nodiscard]] result<answer> decode(const received_frame& frame, const placement* placement = nullptr);

/// The same, where the server is to blame for what is malformed.
[[nodiscard]] answer decode_or_error(const received_frame& frame, const placement* placement = nullptr);

/// Return the answer that is of the kind asked for, or its error.
template <class T>
[[nodiscard]] result<T> expect(answer answer) {
    if (auto* value = std::get_if<T>(&answer)) return std::move(*value);
    if (auto* failure = std::get_if<error>(&answer)) return std::move(*failure);
    return error{.code = code::internal,
                 .message = "the server answered with another message than was asked for"};
}

}  // namespace kingpole::detail
