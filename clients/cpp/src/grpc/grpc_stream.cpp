// One bidirectional call that carries many exchanges.
#include <deque>

#include "../frame_stream.hpp"
#include "grpc_call.hpp"

namespace kingpole::detail {

namespace {

/// The call calls us; it keeps the stream until it has ended.
class grpc_stream final : public frame_stream,
                          private ::grpc::ClientBidiReactor<::grpc::ByteBuffer, ::grpc::ByteBuffer> {
  public:
    explicit grpc_stream(grpc_channel& channel) : call_(channel.calls), channel_(&channel) {}

    void run() {
        self_ = shared_from_this();
        channel_->prepare(context_);
        channel_->stub.PrepareBidiStreamingCall(&context_, stream_method, {}, this);
        // So that a write may begin whenever there is something to write.
        AddHold();
        StartRead(&incoming_);
        StartCall();
    }

    void end(const error& failure) override {
        exchanges_.fail(failure);
        release();
        context_.TryCancel();
    }

  protected:
    result<void> send(outgoing_frame frame, const request* request, const deadline&) override {
        auto message = to_message(std::move(frame), request);
        const std::lock_guard lock(mutex_);
        // Whoever waits for an answer learns of it from the exchanges.
        if (released_) return {};
        waiting_.push_back(std::move(message));
        if (waiting_.size() == 1) StartWrite(&waiting_.front());
        return {};
    }

  private:
    void OnWriteDone(bool good) override {
        {
            const std::lock_guard lock(mutex_);
            waiting_.pop_front();
            if (good && !released_) {
                if (!waiting_.empty()) StartWrite(&waiting_.front());
                return;
            }
        }
        release();
    }

    void OnReadDone(bool good) override {
        if (!good) {
            release();
            return;
        }
        auto frame = from_message(incoming_, channel_->limit);
        incoming_.Clear();
        auto received = frame ? receive(*frame) : result<void>(as_servers_fault(std::move(frame).error()));
        if (!received) {
            end(received.error());
            return;
        }
        StartRead(&incoming_);
    }

    void OnDone(const ::grpc::Status& status) override {
        exchanges_.fail(error_of_status(status, channel_->name));
        // This may be the last owner.
        const auto self = std::move(self_);
    }

    /// Begin no more writes, so that the call can end.
    void release() {
        {
            const std::lock_guard lock(mutex_);
            if (std::exchange(released_, true)) return;
        }
        RemoveHold();
    }

    grpc_calls::one call_;
    grpc_channel* channel_;
    ::grpc::ClientContext context_;
    ::grpc::ByteBuffer incoming_;
    std::mutex mutex_;
    std::deque<::grpc::ByteBuffer> waiting_;
    bool released_ = false;
    std::shared_ptr<frame_stream> self_;
};

}  // namespace

result<std::shared_ptr<frame_stream>> open_grpc_stream(const std::shared_ptr<grpc_channel>& channel) {
    auto stream = std::make_shared<grpc_stream>(*channel);
    stream->run();
    return std::shared_ptr<frame_stream>(std::move(stream));
}

}  // namespace kingpole::detail
