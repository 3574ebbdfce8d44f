// The calls that travel as Open Inference REST: what to ask, and how to read the answer. Opens no socket.
#pragma once

#include <string>

#include <kingpole/response.hpp>

#include "http_connection.hpp"

namespace kingpole::detail {

/// Return where a model is.
[[nodiscard]] std::string model_path(std::string_view model, std::string_view version);

/// Make the error of an answer whose status is not 200; the text is the server's, at most 8 KiB of it.
[[nodiscard]] error error_of_answer(const http_answer& answer);

/// Read whether something is ready.
[[nodiscard]] result<bool> read_ready(const http_answer& answer);

/// Read who the server is.
[[nodiscard]] result<server_info> read_server_info(const http_answer& answer);

/// Read what a model takes and gives.
[[nodiscard]] result<model_metadata> read_model_metadata(const http_answer& answer);

}  // namespace kingpole::detail
