// What streams and sources of gRPC share: a channel, and how frames become messages. Knows no exchanges.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <memory>
#include <string>

#include "../address.hpp"
#include "../messages.hpp"

namespace kingpole::detail {

/// Where frames go, and what goes with every call.
struct grpc_channel {
    std::shared_ptr<::grpc::Channel> channel;
    ::grpc::GenericStub stub;
    std::string name;
    std::string token;
    std::uint64_t limit = 0;

    /// Add what a call says of itself.
    void prepare(::grpc::ClientContext& context) const;
};

inline constexpr const char* stream_method = "/kingpole.v1.Inference/Stream";

/// Make a message of a frame. Tensors with an owner are referred to, the caller's own are copied: gRPC says
/// nobody when it has read them.
[[nodiscard]] ::grpc::ByteBuffer to_message(outgoing_frame frame, const request* request);

/// Read the one frame of a message, into aligned memory.
[[nodiscard]] result<received_frame> from_message(const ::grpc::ByteBuffer& message, std::uint64_t limit);

/// Make ours of gRPC's status.
[[nodiscard]] error error_of_status(const ::grpc::Status& status, const std::string& name);

/// Open a stream on the channel.
[[nodiscard]] result<std::shared_ptr<class frame_stream>> open_grpc_stream(
    const std::shared_ptr<grpc_channel>& channel);

/// Send a request on a call of its own.
[[nodiscard]] result<std::unique_ptr<class source>> open_grpc_source(
    const std::shared_ptr<grpc_channel>& channel, outgoing_frame frame, const request& request,
    const std::optional<std::chrono::steady_clock::time_point>& deadline, std::stop_token stop);

}  // namespace kingpole::detail
