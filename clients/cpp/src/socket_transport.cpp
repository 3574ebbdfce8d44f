#include "socket_transport.hpp"

#include <thread>

namespace kingpole::detail {

namespace {

constexpr std::size_t scratch_bytes = std::size_t{64} * 1024;
constexpr std::chrono::seconds hand_over_timeout{10};
constexpr std::uint64_t only_exchange = 1;

/// Read once from a stream into an assembler; false at the end.
result<bool> read_into(byte_stream& stream, frame_assembler& assembler, std::span<std::byte> scratch,
                       const deadline& deadline, std::vector<received_frame>& frames) {
    // What is large is received where it belongs; what is small, many at a time.
    const auto space = assembler.space();
    const bool is_large = space.size() >= scratch.size();
    auto received = stream.read(is_large ? space : scratch, deadline);
    if (!received) return std::move(received).error();
    if (*received == 0) return false;
    auto taken =
        is_large ? assembler.filled(*received, frames) : assembler.feed(scratch.first(*received), frames);
    if (!taken) return as_servers_fault(std::move(taken).error());
    return true;
}

/// One socket, and the thread that reads it, which ends with the socket.
class socket_stream final : public frame_stream {
  public:
    socket_stream(std::unique_ptr<byte_stream> stream, std::string name, std::uint64_t limit)
        : stream_(std::move(stream)), name_(std::move(name)), assembler_(limit) {}

    void run() {
        auto self = std::static_pointer_cast<socket_stream>(shared_from_this());
        std::thread reader([self] {
            self->read();
            self->ended_ = true;
            self->ended_.notify_all();
        });
        reader_ = reader.get_id();
        reader.detach();
    }

    /// Give the server the memory, before anything else is asked.
    result<void> hand_over(std::shared_ptr<arena> memory, const deadline& deadline) {
        auto begun = exchanges_.begin(false, deadline, {});
        if (!begun) return std::move(begun).error();
        auto frame = encode(hand_over_question{arena::number, memory->size()}, begun->exchange);
        if (!frame) return std::move(frame).error();
        if (auto sent = stream_->write_with_descriptor(frame->head, memory->descriptor()); !sent) return sent;
        auto answered = expect<done>(begun->slot->take(deadline, {}));
        if (!answered) return std::move(answered).error();
        memory_ = std::move(memory);
        return {};
    }

    void end(const error& failure) override {
        exchanges_.fail(failure);
        stream_->shut_down();
        if (std::this_thread::get_id() != reader_) ended_.wait(false);
    }

  protected:
    result<void> send(outgoing_frame frame, const request*, const deadline& deadline) override {
        const auto buffers = buffers_of(frame);
        const std::lock_guard lock(send_mutex_);
        auto sent = stream_->write(buffers, deadline);
        if (sent) return sent;
        if (sent.error().code == code::deadline_exceeded) {
            if (!sent.error().unsent) {
                // Half a frame is out: what follows on this stream could not be read.
                exchanges_.fail({.code = code::unavailable,
                                 .message = name_ + " stopped reading in the middle of a request"});
                stream_->shut_down();
            }
            return error{.code = code::deadline_exceeded,
                         .message = name_ + " did not take the request in time"};
        }
        exchanges_.fail(sent.error());
        stream_->shut_down();
        return sent;
    }

  private:
    void read() {
        std::vector<std::byte> scratch(scratch_bytes);
        std::vector<received_frame> frames;
        while (true) {
            auto more = read_into(*stream_, assembler_, scratch, std::nullopt, frames);
            // The frames before a malformed one are answers as good as any.
            for (const auto& frame : frames) {
                if (auto received = receive(frame); !received) {
                    fail(received.error());
                    return;
                }
            }
            frames.clear();
            if (!more) {
                fail(more.error());
                return;
            }
            if (!*more) {
                fail({.code = code::unavailable, .message = name_ + " closed the connection"});
                return;
            }
        }
    }

    void fail(const error& failure) {
        exchanges_.fail(failure);
        stream_->shut_down();
    }

    std::unique_ptr<byte_stream> stream_;
    std::string name_;
    frame_assembler assembler_;
    std::mutex send_mutex_;
    std::atomic<bool> ended_ = false;
    std::thread::id reader_;
};

/// Frames on a socket of their own.
class socket_source final : public source {
  public:
    socket_source(std::unique_ptr<byte_stream> stream, std::string name, std::uint64_t limit,
                  deadline deadline, std::stop_token stop)
        : stream_(std::move(stream)),
          name_(std::move(name)),
          assembler_(limit),
          deadline_(deadline),
          stop_(std::move(stop)),
          on_stop_(stop_, shutter{stream_.get()}) {}

    answer next() override {
        while (next_ == frames_.size()) {
            frames_.clear();
            next_ = 0;
            auto more = read_into(*stream_, assembler_, scratch_, deadline_, frames_);
            if (stop_.stop_requested())
                return error{.code = code::cancelled, .message = "the caller gave up"};
            if (!frames_.empty()) break;
            if (!more) return std::move(more).error();
            if (!*more) {
                return error{.code = code::unavailable,
                             .message = name_ + " closed the connection within its answer"};
            }
        }
        const received_frame frame = std::move(frames_[next_++]);
        return decode_or_error(frame);
    }

    void close(bool ended) override {
        if (!ended) {
            // A server need not have answered to hear that nobody wants it to.
            if (const auto frame = encode(cancel_question{}, only_exchange)) {
                (void)stream_->write(buffers_of(*frame), clock::now() + grace);
            }
        }
        stream_->shut_down();
    }

  private:
    struct shutter {
        byte_stream* stream;
        void operator()() const noexcept { stream->shut_down(); }
    };

    std::unique_ptr<byte_stream> stream_;
    std::string name_;
    frame_assembler assembler_;
    deadline deadline_;
    std::vector<std::byte> scratch_ = std::vector<std::byte>(scratch_bytes);
    std::vector<received_frame> frames_;
    std::size_t next_ = 0;
    std::stop_token stop_;
    std::stop_callback<shutter> on_stop_;
};

}  // namespace

socket_transport::socket_transport(address address, std::uint64_t limit, std::size_t shared_memory_bytes)
    : address_(std::move(address)), limit_(limit), shared_memory_bytes_(shared_memory_bytes) {}

socket_transport::~socket_transport() = default;

result<std::shared_ptr<frame_stream>> socket_transport::connect(const deadline& deadline) {
    auto opened = open_stream(address_, deadline, nullptr);
    if (!opened) return std::move(opened).error();
    auto stream = std::make_shared<socket_stream>(*std::move(opened), address_.text(), limit_);
    stream->run();
    if (shared_memory_bytes_ != 0) {
        auto until = clock::now() + hand_over_timeout;
        if (deadline) until = std::min(until, *deadline);
        auto memory = arena::make(shared_memory_bytes_);
        auto handed = memory ? stream->hand_over(*std::move(memory), until) : std::move(memory).error();
        if (!handed) {
            stream->end(handed.error());
            return std::move(handed).error();
        }
    }
    return std::shared_ptr<frame_stream>(std::move(stream));
}

result<std::unique_ptr<source>> socket_transport::open(const infer_question& asked, const deadline& deadline,
                                                       std::stop_token stop) {
    if (is_closed()) return closed_error();
    auto frame = encode(asked, only_exchange);
    if (!frame) return std::move(frame).error();
    auto stream = open_stream(address_, deadline, nullptr);
    if (!stream) return std::move(stream).error();
    if (auto sent = (*stream)->write(buffers_of(*frame), deadline); !sent) return std::move(sent).error();
    return std::unique_ptr<source>(std::make_unique<socket_source>(*std::move(stream), address_.text(),
                                                                   limit_, deadline, std::move(stop)));
}

result<std::shared_ptr<arena>> socket_transport::memory() {
    if (shared_memory_bytes_ == 0) return transport::memory();
    auto stream = connected(clock::now() + hand_over_timeout);
    if (!stream) return std::move(stream).error();
    return (*stream)->memory();
}

}  // namespace kingpole::detail
