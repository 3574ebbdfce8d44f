// Frames one after another, many requests in flight, answers in any order. Knows no socket and no gRPC.
#pragma once

#include <atomic>
#include <memory>

#include "exchanges.hpp"
#include "transport.hpp"

namespace kingpole::detail {

/// One stream, whatever carries it.
class frame_stream : public std::enable_shared_from_this<frame_stream> {
  public:
    frame_stream() = default;
    frame_stream(const frame_stream&) = delete;
    frame_stream& operator=(const frame_stream&) = delete;
    virtual ~frame_stream() = default;

    /// Send a question; the answer will be in the slot.
    [[nodiscard]] result<std::shared_ptr<slot>> start(const question& asked, const deadline& deadline,
                                                      std::stop_token stop);

    /// True once nothing more can be asked here.
    [[nodiscard]] bool failed() const { return exchanges_.failed(); }

    /// End it; what waits is answered with the failure. Returns once nothing of it runs any more, but in the
    /// thread that reads it.
    virtual void end(const error& failure) = 0;

    /// The memory shared with the server; null without.
    [[nodiscard]] const std::shared_ptr<arena>& memory() const noexcept { return memory_; }

  protected:
    /// Send a frame. Its parts may be the caller's: they are not read after this returns. `request` is what
    /// they belong to, null for what has no parts.
    [[nodiscard]] virtual result<void> send(outgoing_frame frame, const request* request,
                                            const deadline& deadline) = 0;

    /// Hand a received frame on; an error means that the stream cannot go on.
    [[nodiscard]] result<void> receive(const received_frame& frame);

    void cancel(std::uint64_t exchange);

    exchanges exchanges_;
    std::shared_ptr<arena> memory_;
};

/// A stream to a server, opened when first needed and again after it has ended.
class stream_transport : public transport {
  public:
    [[nodiscard]] answer infer(const infer_question& asked, const deadline& deadline,
                               std::stop_token stop) override;
    [[nodiscard]] result<std::shared_ptr<slot>> submit(const infer_question& asked,
                                                       const deadline& deadline) override;
    [[nodiscard]] answer ask(const question& asked, const deadline& deadline) override;
    [[nodiscard]] result<bool> live(const deadline& deadline) override;
    void close() override;

  protected:
    /// Open a stream; one thread at a time calls it.
    [[nodiscard]] virtual result<std::shared_ptr<frame_stream>> connect(const deadline& deadline) = 0;

    [[nodiscard]] result<std::shared_ptr<frame_stream>> connected(const deadline& deadline);
    [[nodiscard]] bool is_closed();

  private:
    std::mutex mutex_;
    std::shared_ptr<frame_stream> stream_;
    bool closed_ = false;
};

}  // namespace kingpole::detail
