// Inference as Open Inference over HTTP, for servers that take no frames. Opens no socket.
//
// The client asks with a frame first. A server that does not know what that is says so before anything has
// run, and is asked like this from then on: with binary tensors if it offers them, else as JSON.
#pragma once

#include <string>

#include "messages.hpp"
#include "rest.hpp"

namespace kingpole::detail {

/// A request as it is posted; `json` is the first buffer, the others are the request's tensors.
struct posted_request {
    std::string path;
    std::string headers;
    std::string json;
    std::vector<bytes_view> tensors;
};

/// Return whether an answer to a frame says that the server knows no frames: it did not run anything.
[[nodiscard]] bool refuses_frames(const http_answer& answer);

/// Return whether a server takes tensors as bytes.
[[nodiscard]] bool takes_binary_tensors(const server_info& info);

/// Write a request; tensors are sent from where they are if the server takes them as bytes.
[[nodiscard]] result<posted_request> encode_open_inference(const infer_question& asked, bool is_binary);

/// Read the answer to it; binary outputs are views of it.
[[nodiscard]] answer decode_open_inference(const http_answer& answer);

}  // namespace kingpole::detail
