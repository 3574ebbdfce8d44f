#include "http_source.hpp"

#include "open_inference.hpp"

namespace kingpole::detail {

namespace {

/// The answer to one request, on a connection lent for it.
class http_source final : public source {
  public:
    http_source(std::shared_ptr<http_pool> pool, std::unique_ptr<http_connection> connection,
                deadline deadline, std::stop_token stop)
        : pool_(std::move(pool)),
          connection_(std::move(connection)),
          assembler_(pool_->limit()),
          deadline_(deadline),
          stop_(std::move(stop)),
          on_stop_(std::in_place, stop_, shutter{&connection_->stream()}) {}

    answer next() override {
        while (next_ == frames_.size()) {
            frames_.clear();
            next_ = 0;
            auto piece = connection_->piece(deadline_);
            if (stop_.stop_requested())
                return error{.code = code::cancelled, .message = "the caller gave up"};
            if (!piece) return std::move(piece).error();
            if (!*piece) {
                return error{.code = code::unavailable,
                             .message = "the server ended its answer before the last response"};
            }
            if (auto fed = assembler_.feed((*piece)->body, frames_); !fed && frames_.empty()) {
                return as_servers_fault(std::move(fed).error());
            }
        }
        const received_frame frame = std::move(frames_[next_++]);
        return decode_or_error(frame);
    }

    void close(bool ended) override {
        // A connection whose answer was not read whole is closed, which cancels the request.
        if (ended) {
            auto end = connection_->piece(deadline_);
            if (!end || *end) connection_->spoil();
        } else {
            connection_->spoil();
        }
        on_stop_.reset();
        pool_->give_back(std::move(connection_));
    }

  private:
    struct shutter {
        byte_stream* stream;
        void operator()() const noexcept { stream->shut_down(); }
    };

    std::shared_ptr<http_pool> pool_;
    std::unique_ptr<http_connection> connection_;
    frame_assembler assembler_;
    deadline deadline_;
    std::vector<received_frame> frames_;
    std::size_t next_ = 0;
    std::stop_token stop_;
    std::optional<std::stop_callback<shutter>> on_stop_;
};

/// One answer that is already there.
class answered_source final : public source {
  public:
    explicit answered_source(answer answer) : answer_(std::move(answer)) {}
    answer next() override { return std::move(answer_); }
    void close(bool) override {}

  private:
    answer answer_;
};

/// Read the answer of a server that does not stream: a frame, or a refusal.
answer other_answer(const http_answer& received, std::uint64_t limit) {
    if (received.head.header("content-type").starts_with(media_type)) {
        auto frame = split_frame(received.body, received.owner, limit);
        if (!frame) return as_servers_fault(std::move(frame).error());
        return decode_or_error(*frame);
    }
    if (received.head.status == 200 || refuses_frames(received)) return frames_unknown();
    return error_of_answer(received);
}

}  // namespace

error frames_unknown() {
    return {
        .code = code::unimplemented,
        .message = "this server takes no frames, and so gives one response to a request at most: use infer"};
}

result<std::unique_ptr<source>> open_http_source(std::shared_ptr<http_pool> pool, const http_request& request,
                                                 const deadline& deadline, std::stop_token stop) {
    auto begun = pool->begin(request, deadline, stop);
    if (!begun) return std::move(begun).error();
    auto& [connection, head] = *begun;
    if (head.status == 200 && head.header("content-type").starts_with(stream_media_type)) {
        return std::unique_ptr<source>(
            std::make_unique<http_source>(std::move(pool), std::move(connection), deadline, std::move(stop)));
    }
    auto received = connection->rest(std::move(head), deadline);
    answer answered = received ? other_answer(*received, pool->limit()) : answer(std::move(received).error());
    pool->give_back(std::move(connection));
    return std::unique_ptr<source>(std::make_unique<answered_source>(std::move(answered)));
}

}  // namespace kingpole::detail
