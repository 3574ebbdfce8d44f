// Frames over gRPC: the component `kingpole::grpc`, apart because it brings gRPC.
#pragma once

#include <string_view>

#include <kingpole/client.hpp>

namespace kingpole::grpc {

/// Make a client of `grpc://host:port` or `grpcs://`, or of any URL that `kingpole::client::connect` takes.
[[nodiscard]] result<client> connect(std::string_view url, options options = {});

}  // namespace kingpole::grpc
