// What streams and sources of gRPC share: a channel, and how frames become messages. Knows no exchanges.
#pragma once

#include <condition_variable>
#include <grpcpp/channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <memory>
#include <mutex>
#include <string>

#include "../address.hpp"
#include "../messages.hpp"

namespace kingpole::detail {

/// How many calls of a channel there are. A channel must not end in one of gRPC's own threads, which its end
/// waits for; but calls end there, and keep the channel.
class grpc_calls {
  public:
    void wait_for_none() {
        std::unique_lock lock(mutex_);
        ended_.wait(lock, [this] { return open_ == 0; });
    }

    /// One call; the first member of what makes it, so that it goes last.
    class one {
      public:
        explicit one(std::shared_ptr<grpc_calls> all) : all_(std::move(all)) {
            const std::lock_guard lock(all_->mutex_);
            ++all_->open_;
        }
        one(const one&) = delete;
        one& operator=(const one&) = delete;
        ~one() {
            const std::lock_guard lock(all_->mutex_);
            --all_->open_;
            all_->ended_.notify_all();
        }

      private:
        std::shared_ptr<grpc_calls> all_;
    };

  private:
    std::mutex mutex_;
    std::condition_variable ended_;
    std::size_t open_ = 0;
};

/// Where frames go, and what goes with every call. Its calls have ended, or been cancelled, when it ends.
struct grpc_channel {
    std::shared_ptr<::grpc::Channel> channel;
    ::grpc::GenericStub stub;
    std::string name;
    std::string token;
    std::uint64_t limit = 0;
    std::shared_ptr<grpc_calls> calls = std::make_shared<grpc_calls>();

    grpc_channel(std::shared_ptr<::grpc::Channel> to, std::string name, std::string token,
                 std::uint64_t limit)
        : channel(std::move(to)),
          stub(channel),
          name(std::move(name)),
          token(std::move(token)),
          limit(limit) {}
    grpc_channel(const grpc_channel&) = delete;
    grpc_channel& operator=(const grpc_channel&) = delete;
    ~grpc_channel() { calls->wait_for_none(); }

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
