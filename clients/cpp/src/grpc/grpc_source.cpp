// A call of its own for one request; a response is read when somebody takes it, so that the server sees who
// does not.
#include "../clock.hpp"
#include "../transport.hpp"
#include "grpc_call.hpp"

namespace kingpole::detail {

namespace {

/// The call; it keeps itself until it has ended.
class grpc_call final : public ::grpc::ClientBidiReactor<::grpc::ByteBuffer, ::grpc::ByteBuffer> {
  public:
    grpc_call(grpc_channel& channel, const ::grpc::ByteBuffer& request)
        : call_(channel.calls), channel_(&channel), request_(request) {}

    void run(std::shared_ptr<grpc_call> self) {
        self_ = std::move(self);
        channel_->prepare(context_);
        channel_->stub.PrepareBidiStreamingCall(&context_, stream_method, {}, this);
        AddHold();
        StartWriteLast(&request_, {});
        StartCall();
    }

    /// Wait for the next message; the status of the call when there is none.
    answer next(const deadline& deadline) {
        std::unique_lock lock(mutex_);
        state_ = state::reading;
        StartRead(&incoming_);
        const auto came = [this] { return state_ == state::read || state_ == state::done; };
        if (deadline && !changed_.wait_until(lock, *deadline, came)) {
            cancel();
            return error{.code = code::deadline_exceeded,
                         .message = "no answer came from " + channel_->name + " in time"};
        }
        changed_.wait(lock, came);
        if (state_ == state::done) {
            if (status_.ok()) {
                return error{.code = code::unavailable,
                             .message = channel_->name + " ended the stream before the last response"};
            }
            return error_of_status(status_, channel_->name);
        }
        auto frame = from_message(incoming_, channel_->limit);
        incoming_.Clear();
        if (!frame) return as_servers_fault(std::move(frame).error());
        return decode_or_error(*frame);
    }

    void cancel() { context_.TryCancel(); }

    /// Wait until the call has ended; false if that takes too long.
    bool wait_done(clock::time_point until) {
        std::unique_lock lock(mutex_);
        return changed_.wait_until(lock, until, [this] { return state_ == state::done; });
    }

    /// Let the call end.
    void release() {
        if (!released_.exchange(true)) RemoveHold();
    }

  private:
    enum class state : std::uint8_t { idle, reading, read, done };

    void OnReadDone(bool good) override {
        if (!good) {
            // No more reads: the status comes once the call may end.
            release();
            return;
        }
        const std::lock_guard lock(mutex_);
        state_ = state::read;
        changed_.notify_all();
    }

    void OnDone(const ::grpc::Status& status) override {
        const auto self = std::move(self_);
        const std::lock_guard lock(mutex_);
        status_ = status;
        state_ = state::done;
        changed_.notify_all();
    }

    grpc_calls::one call_;
    grpc_channel* channel_;
    ::grpc::ByteBuffer request_;
    ::grpc::ByteBuffer incoming_;
    ::grpc::ClientContext context_;
    std::mutex mutex_;
    std::condition_variable changed_;
    state state_ = state::idle;
    ::grpc::Status status_;
    std::atomic<bool> released_ = false;
    std::shared_ptr<grpc_call> self_;
};

class grpc_source final : public source {
  public:
    grpc_source(std::shared_ptr<grpc_channel> channel, std::shared_ptr<grpc_call> call, deadline deadline,
                std::stop_token stop)
        : channel_(std::move(channel)),
          call_(std::move(call)),
          deadline_(deadline),
          stop_(std::move(stop)),
          on_stop_(stop_, canceller{call_.get()}) {}
    ~grpc_source() override { grpc_source::close(false); }

    answer next() override {
        answer answered = call_->next(deadline_);
        if (stop_.stop_requested()) return error{.code = code::cancelled, .message = "the caller gave up"};
        return answered;
    }

    void close(bool ended) override {
        call_->release();
        // The server ends a call by itself once its only request is answered, if it is an honest one.
        if (!ended || !call_->wait_done(clock::now() + grace)) call_->cancel();
    }

  private:
    struct canceller {
        grpc_call* call;
        void operator()() const noexcept { call->cancel(); }
    };

    std::shared_ptr<grpc_channel> channel_;
    std::shared_ptr<grpc_call> call_;
    deadline deadline_;
    std::stop_token stop_;
    std::stop_callback<canceller> on_stop_;
};

}  // namespace

result<std::unique_ptr<source>> open_grpc_source(const std::shared_ptr<grpc_channel>& channel,
                                                 outgoing_frame frame, const request& request,
                                                 const deadline& deadline, std::stop_token stop) {
    auto call = std::make_shared<grpc_call>(*channel, to_message(std::move(frame), &request));
    call->run(call);
    return std::unique_ptr<source>(
        std::make_unique<grpc_source>(channel, std::move(call), deadline, std::move(stop)));
}

}  // namespace kingpole::detail
