#include "http_transport.hpp"

#include "http_source.hpp"
#include "open_inference.hpp"

namespace kingpole::detail {

namespace {

constexpr std::size_t most_threads = 64;
constexpr std::uint64_t only_exchange = 1;

/// Read the body of an answer to a frame: a frame, whatever the status, unless something in between spoke.
answer read_infer_answer(const http_answer& received, std::uint64_t limit) {
    const bool is_frame = received.head.header("content-type").starts_with(media_type) ||
                          received.text(8).starts_with("KINGPOL");
    if (!is_frame) {
        if (received.head.status != 200) return error_of_answer(received);
        return error{.code = code::internal,
                     .message = "the server answered with something else than a frame"};
    }
    auto frame = split_frame(received.body, received.owner, limit);
    if (!frame) return as_servers_fault(std::move(frame).error());
    answer answer = decode_or_error(*frame);
    if (const auto* given = std::get_if<response>(&answer); given != nullptr && given->stage != stage::only) {
        return error{.code = code::unimplemented,
                     .message = "model '" + given->model +
                                "' answers a request with any number of responses: use stream"};
    }
    return answer;
}

/// Two stops in one: the caller's, and that of the whole client.
class either_stop {
  public:
    either_stop(std::stop_token one, std::stop_token other)
        : on_one_(std::move(one), stopper{&source_}), on_other_(std::move(other), stopper{&source_}) {}
    [[nodiscard]] std::stop_token token() const { return source_.get_token(); }

  private:
    struct stopper {
        std::stop_source* source;
        void operator()() const noexcept { source->request_stop(); }
    };

    std::stop_source source_;
    std::stop_callback<stopper> on_one_;
    std::stop_callback<stopper> on_other_;
};

}  // namespace

http_transport::http_transport(address address, std::string token, std::shared_ptr<trust> trust,
                               std::uint64_t limit)
    : pool_(std::make_shared<http_pool>(std::move(address), std::move(token), std::move(trust), limit)) {}

http_transport::~http_transport() { http_transport::close(); }

answer http_transport::infer(const infer_question& asked, const deadline& deadline, std::stop_token stop) {
    const either_stop stops(std::move(stop), all_.get_token());
    dialect spoken = dialect_;
    if (spoken == dialect::frames) {
        bool refused = false;
        answer answered = infer_in_frames(asked, deadline, stops.token(), refused);
        if (!refused) return answered;
        auto info = expect<server_info>(ask(server_info_question{}, deadline));
        if (!info) return std::move(info).error();
        spoken = takes_binary_tensors(*info) ? dialect::binary_open_inference : dialect::json_open_inference;
        dialect_ = spoken;
    }
    auto posted = encode_open_inference(asked, spoken == dialect::binary_open_inference);
    if (!posted) return std::move(posted).error();
    http_request request{"POST", posted->path, posted->headers, {std::as_bytes(std::span(posted->json))}};
    request.body.insert(request.body.end(), posted->tensors.begin(), posted->tensors.end());
    auto received = pool_->exchange(request, deadline, stops.token());
    if (!received) return std::move(received).error();
    return decode_open_inference(*received);
}

answer http_transport::infer_in_frames(const infer_question& asked, const deadline& deadline,
                                       const std::stop_token& stop, bool& refused) {
    auto frame = encode(asked, only_exchange);
    if (!frame) return std::move(frame).error();
    const http_request request{"POST", "/v1/infer", "Content-Type: " + std::string(media_type) + "\r\n",
                               buffers_of(*frame)};
    auto received = pool_->exchange(request, deadline, stop);
    if (!received) return std::move(received).error();
    refused = refuses_frames(*received);
    if (refused) return done{};
    return read_infer_answer(*received, pool_->limit());
}

result<std::shared_ptr<slot>> http_transport::submit(const infer_question& asked, const deadline& deadline) {
    auto waiting = std::make_shared<slot>();
    auto stop = std::make_shared<std::stop_source>();
    waiting->set_give_up([stop] { stop->request_stop(); });
    const std::lock_guard lock(mutex_);
    if (closed_) return closed_error();
    // The tensors stay the caller's; what says where they are need not outlive this call.
    auto kept = std::make_shared<request>(*asked.asked);
    work_.emplace_back([this, waiting, stop, kept, timeout = asked.timeout, deadline] {
        if (!waiting->hold()) return;
        answer answered = infer({kept.get(), timeout}, deadline, stop->get_token());
        waiting->release();
        waiting->resolve(std::move(answered));
    });
    if (idle_threads_ < work_.size() && threads_.size() < most_threads)
        threads_.emplace_back([this] { work(); });
    work_changed_.notify_one();
    return waiting;
}

void http_transport::work() {
    std::unique_lock lock(mutex_);
    while (true) {
        ++idle_threads_;
        work_changed_.wait(lock, [this] { return closed_ || !work_.empty(); });
        --idle_threads_;
        if (work_.empty()) return;
        auto next = std::move(work_.front());
        work_.pop_front();
        lock.unlock();
        next();
        next = nullptr;
        lock.lock();
    }
}

result<std::unique_ptr<source>> http_transport::open(const infer_question& asked, const deadline& deadline,
                                                     std::stop_token stop) {
    if (dialect_ != dialect::frames) return frames_unknown();
    auto frame = encode(asked, only_exchange);
    if (!frame) return std::move(frame).error();
    const http_request request{
        "POST", "/v1/infer",
        "Content-Type: " + std::string(media_type) + "\r\nAccept: " + std::string(stream_media_type) + "\r\n",
        buffers_of(*frame)};
    return open_http_source(pool_, request, deadline, std::move(stop));
}

answer http_transport::ask(const question& asked, const deadline& deadline) {
    const auto get = [&](std::string path) {
        return pool_->exchange({"GET", std::move(path)}, deadline, all_.get_token());
    };
    const auto as_answer = [](auto read) -> answer {
        if (!read) return std::move(read).error();
        return *std::move(read);
    };
    if (const auto* ready = std::get_if<ready_question>(&asked)) {
        auto received = get(ready->model.empty() ? std::string("/v2/health/ready")
                                                 : model_path(ready->model, ready->version) + "/ready");
        if (!received) return std::move(received).error();
        auto read = read_ready(*received);
        if (!read) return std::move(read).error();
        return readiness{*read};
    }
    if (const auto* metadata = std::get_if<metadata_question>(&asked)) {
        auto received = get(model_path(metadata->model, metadata->version));
        return received ? as_answer(read_model_metadata(*received)) : std::move(received).error();
    }
    auto received = get("/v2");
    return received ? as_answer(read_server_info(*received)) : std::move(received).error();
}

result<bool> http_transport::live(const deadline& deadline) {
    auto received = pool_->exchange({"GET", "/v2/health/live"}, deadline, all_.get_token());
    if (received) return read_ready(*received);
    if (received.error().code == code::unavailable) return false;
    return std::move(received).error();
}

void http_transport::close() {
    std::vector<std::thread> threads;
    {
        const std::lock_guard lock(mutex_);
        closed_ = true;
        threads.swap(threads_);
    }
    all_.request_stop();
    pool_->close();
    work_changed_.notify_all();
    for (auto& each : threads) each.join();
}

}  // namespace kingpole::detail
