// Frames one after another in the body of one HTTP answer, which is read while it is made.
#pragma once

#include "http_pool.hpp"
#include "transport.hpp"

namespace kingpole::detail {

/// Return the error of a server that cannot answer with any number of responses.
[[nodiscard]] error frames_unknown();

/// Send a request, and read the head of what answers it.
[[nodiscard]] result<std::unique_ptr<source>> open_http_source(std::shared_ptr<http_pool> pool,
                                                               const http_request& request,
                                                               const deadline& deadline,
                                                               std::stop_token stop);

}  // namespace kingpole::detail
