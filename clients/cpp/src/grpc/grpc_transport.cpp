// Frames over gRPC: `kingpole.v1.Inference/Stream`, whose messages are frames and not protobuf.
#include <algorithm>
#include <climits>
#include <cstring>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <kingpole/grpc.hpp>

#include "../byte_stream.hpp"
#include "../frame_stream.hpp"
#include "grpc_call.hpp"

namespace kingpole::detail {

namespace {

constexpr std::uint64_t only_exchange = 1;
/// Shorter parts are copied: that costs less than a slice of their own.
constexpr std::size_t smallest_slice_bytes = 4096;
/// A server that starts again is found again soon.
constexpr int longest_reconnect_ms = 2000;

class grpc_transport final : public stream_transport {
  public:
    explicit grpc_transport(std::shared_ptr<grpc_channel> channel) : channel_(std::move(channel)) {}

    result<std::unique_ptr<source>> open(const infer_question& asked, const deadline& deadline,
                                         std::stop_token stop) override {
        if (is_closed()) return closed_error();
        auto frame = encode(asked, only_exchange);
        if (!frame) return std::move(frame).error();
        return open_grpc_source(channel_, *std::move(frame), *asked.asked, deadline, std::move(stop));
    }

  private:
    result<std::shared_ptr<frame_stream>> connect(const deadline&) override {
        return open_grpc_stream(channel_);
    }

    std::shared_ptr<grpc_channel> channel_;
};

/// The owner of a part, if it is a tensor's that has one.
std::shared_ptr<const void> owner_of(bytes_view part, const request* request) {
    if (request == nullptr) return nullptr;
    const auto found = std::ranges::find_if(request->inputs, [&](const tensor& each) {
        return each.owner && each.data.data() == part.data() && each.data.size() == part.size();
    });
    return found == request->inputs.end() ? nullptr : found->owner;
}

::grpc::Slice slice_of(bytes_view part, std::shared_ptr<const void> owner) {
    if (!owner || part.size() < smallest_slice_bytes) return {part.data(), part.size()};
    auto* kept = new std::shared_ptr<const void>(std::move(owner));
    return {const_cast<std::byte*>(part.data()), part.size(),
            [](void* each) { delete static_cast<std::shared_ptr<const void>*>(each); }, kept};
}

std::shared_ptr<::grpc::ChannelCredentials> credentials_of(const address& address, const options& options) {
    if (!address.secure()) return ::grpc::InsecureChannelCredentials();
    ::grpc::SslCredentialsOptions trusted;
    trusted.pem_root_certs = options.root_certificates;
    return ::grpc::SslCredentials(trusted);
}

}  // namespace

void grpc_channel::prepare(::grpc::ClientContext& context) const {
    if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
}

::grpc::ByteBuffer to_message(outgoing_frame frame, const request* request) {
    std::vector<::grpc::Slice> slices;
    slices.reserve(1 + frame.parts.size());
    slices.emplace_back(frame.head.data(), frame.head.size());
    for (const bytes_view part : frame.parts) slices.push_back(slice_of(part, owner_of(part, request)));
    return {slices.data(), slices.size()};
}

result<received_frame> from_message(const ::grpc::ByteBuffer& message, std::uint64_t limit) {
    std::vector<::grpc::Slice> slices;
    if (!message.Dump(&slices).ok()) {
        return error{.code = code::internal, .message = "a message of gRPC could not be read"};
    }
    frame_assembler assembler(limit);
    std::vector<received_frame> frames;
    for (const auto& slice : slices) {
        const bytes_view piece(reinterpret_cast<const std::byte*>(slice.begin()), slice.size());
        if (auto fed = assembler.feed(piece, frames); !fed) return std::move(fed).error();
        if (frames.size() > 1) break;
    }
    if (frames.size() != 1 || !assembler.idle()) {
        return error{
            .code = code::internal,
            .message = "a message of " + std::to_string(message.Length()) + " bytes is not one frame"};
    }
    return std::move(frames.front());
}

error error_of_status(const ::grpc::Status& status, const std::string& name) {
    if (status.ok()) return {.code = code::unavailable, .message = name + " ended the stream"};
    std::string text = status.error_message().empty() ? "no reason given" : status.error_message();
    auto failure = error_of_number(static_cast<std::uint32_t>(status.error_code()), std::move(text));
    if (failure.code == code::unavailable) failure.message = name + ": " + failure.message;
    if (failure.code == code::unimplemented) {
        failure.message +=
            "; " + name + " takes no frames over gRPC: over http this client also speaks Open Inference";
    }
    return failure;
}

}  // namespace kingpole::detail

namespace kingpole::grpc {

result<client> connect(std::string_view url, options options) {
    auto address = detail::parse_address(url);
    if (!address) return std::move(address).error();
    if (!address->is_grpc()) return client::connect(url, std::move(options));
    if (auto checked = detail::check_options(*address, options); !checked) return std::move(checked).error();
    if (!options.root_certificates.empty()) {
        // gRPC says of certificates that it cannot read only that the connection failed.
        if (auto read = detail::make_trust(options.root_certificates); !read) return std::move(read).error();
    }
    ::grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(
        static_cast<int>(std::min<std::uint64_t>(options.max_frame_bytes, INT_MAX)));
    arguments.SetMaxSendMessageSize(-1);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, detail::longest_reconnect_ms);
    auto channel = ::grpc::CreateCustomChannel(address->authority(),
                                               detail::credentials_of(*address, options), arguments);
    auto shared = std::make_shared<detail::grpc_channel>(channel, address->text(), options.token,
                                                         options.max_frame_bytes);
    return client(std::make_unique<detail::grpc_transport>(std::move(shared)), std::move(options));
}

}  // namespace kingpole::grpc
