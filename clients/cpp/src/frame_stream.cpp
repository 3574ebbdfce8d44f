#include "frame_stream.hpp"

namespace kingpole::detail {

error closed_error() { return {.code = code::cancelled, .message = "the client was closed", .unsent = true}; }

result<std::shared_ptr<arena>> transport::memory() {
    return error{.code = code::invalid_argument,
                 .message = "this client shares no memory: connect to unix:/path with shared_memory_bytes"};
}

result<std::shared_ptr<slot>> frame_stream::start(const question& asked, const deadline& deadline,
                                                  std::stop_token stop) {
    const auto* inference = std::get_if<infer_question>(&asked);
    auto begun = exchanges_.begin(inference != nullptr, deadline, std::move(stop));
    if (!begun) return std::move(begun).error();
    const auto [exchange, slot] = *std::move(begun);
    std::shared_ptr<placement> placed;
    if (memory_ && inference != nullptr) {
        placed = std::make_shared<placement>(memory_->place(*inference->asked));
        exchanges_.place(exchange, placed);
    }
    auto frame = encode(asked, exchange, placed.get());
    if (!frame || has_passed(deadline)) {
        exchanges_.withdraw(exchange);
        if (!frame) return std::move(frame).error();
        return error{.code = code::deadline_exceeded,
                     .message = "the timeout passed before the request was sent",
                     .unsent = true};
    }
    slot->set_give_up([weak = weak_from_this(), exchange = exchange] {
        if (const auto stream = weak.lock(); stream && stream->exchanges_.give_up(exchange))
            stream->cancel(exchange);
    });
    auto sent = send(*std::move(frame), inference == nullptr ? nullptr : inference->asked, deadline);
    if (!sent) return std::move(sent).error();
    return slot;
}

result<void> frame_stream::receive(const received_frame& frame) {
    auto unwanted = exchanges_.answer(frame);
    if (!unwanted) return std::move(unwanted).error();
    if (*unwanted) cancel(**unwanted);
    return {};
}

void frame_stream::cancel(std::uint64_t exchange) {
    auto frame = encode(cancel_question{}, exchange);
    // A stream that takes no more has ended, and the request with it.
    if (frame) (void)send(*std::move(frame), nullptr, clock::now() + grace);
}

answer stream_transport::infer(const infer_question& asked, const deadline& deadline, std::stop_token stop) {
    auto stream = connected(deadline);
    if (!stream) return std::move(stream).error();
    auto slot = (*stream)->start(asked, deadline, stop);
    if (!slot) return std::move(slot).error();
    return (*slot)->take(deadline, std::move(stop));
}

result<std::shared_ptr<slot>> stream_transport::submit(const infer_question& asked,
                                                       const deadline& deadline) {
    auto stream = connected(deadline);
    if (!stream) return std::move(stream).error();
    return (*stream)->start(asked, deadline, {});
}

answer stream_transport::ask(const question& asked, const deadline& deadline) {
    auto stream = connected(deadline);
    if (!stream) return std::move(stream).error();
    auto slot = (*stream)->start(asked, deadline, {});
    if (!slot) return std::move(slot).error();
    return (*slot)->take(deadline, {});
}

result<bool> stream_transport::live(const deadline& deadline) {
    auto answer = expect<server_info>(ask(server_info_question{}, deadline));
    if (answer) return true;
    if (answer.error().code == code::unavailable) return false;
    return std::move(answer).error();
}

result<std::shared_ptr<frame_stream>> stream_transport::connected(const deadline& deadline) {
    const std::lock_guard lock(mutex_);
    if (closed_) return closed_error();
    if (!stream_ || stream_->failed()) {
        auto opened = connect(deadline);
        if (!opened) return opened;
        stream_ = *std::move(opened);
    }
    return stream_;
}

bool stream_transport::is_closed() {
    const std::lock_guard lock(mutex_);
    return closed_;
}

void stream_transport::close() {
    std::shared_ptr<frame_stream> stream;
    {
        const std::lock_guard lock(mutex_);
        closed_ = true;
        stream.swap(stream_);
    }
    if (stream) stream->end(closed_error());
}

}  // namespace kingpole::detail
