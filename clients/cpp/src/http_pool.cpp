#include "http_pool.hpp"

#include "transport.hpp"

namespace kingpole::detail {

namespace {

/// Ends a connection when a stop comes, for as long as it lives.
class stop_guard {
  public:
    stop_guard(std::stop_token stop, byte_stream& stream)
        : stop_(std::move(stop)), on_stop_(stop_, shutter{&stream}) {}

    /// Say that the caller gave up, where that is why it failed.
    [[nodiscard]] error reason(error failure) const {
        if (!stop_.stop_requested()) return failure;
        return {.code = code::cancelled, .message = "the caller gave up"};
    }

  private:
    struct shutter {
        byte_stream* stream;
        void operator()() const noexcept { stream->shut_down(); }
    };

    std::stop_token stop_;
    std::stop_callback<shutter> on_stop_;
};

}  // namespace

http_pool::http_pool(address address, std::string token, std::shared_ptr<trust> trust, std::uint64_t limit)
    : address_(std::move(address)), trust_(std::move(trust)), limit_(limit) {
    common_ = "Host: " + address_.authority() + "\r\nUser-Agent: kingpole-cpp/0.1\r\n";
    if (!token.empty()) common_ += "Authorization: Bearer " + token + "\r\n";
}

std::string http_pool::head(const http_request& request) const {
    std::string head(request.method);
    head += " " + address_.prefix + request.path + " HTTP/1.1\r\n" + common_;
    if (!request.body.empty()) {
        std::size_t nbytes = 0;
        for (const bytes_view buffer : request.body) nbytes += buffer.size();
        head += request.headers + "Content-Length: " + std::to_string(nbytes) + "\r\n";
    }
    head += "\r\n";
    return head;
}

result<http_answer> http_pool::exchange(const http_request& request, const deadline& deadline,
                                        std::stop_token stop) {
    auto connection = borrow(deadline);
    if (!connection) return std::move(connection).error();
    result<http_answer> answer = [&]() -> result<http_answer> {
        const stop_guard guard(std::move(stop), (*connection)->stream());
        auto exchanged = (*connection)->exchange(head(request), request.body, deadline);
        if (!exchanged) return guard.reason(std::move(exchanged).error());
        return exchanged;
    }();
    give_back(*std::move(connection));
    return answer;
}

result<http_pool::begun> http_pool::begin(const http_request& request, const deadline& deadline,
                                          std::stop_token stop) {
    auto connection = borrow(deadline);
    if (!connection) return std::move(connection).error();
    const stop_guard guard(std::move(stop), (*connection)->stream());
    auto head = (*connection)->begin(this->head(request), request.body, deadline);
    if (!head) return guard.reason(std::move(head).error());
    return begun{*std::move(connection), *std::move(head)};
}

result<std::unique_ptr<http_connection>> http_pool::borrow(const deadline& deadline) {
    while (true) {
        std::unique_ptr<http_connection> idle;
        {
            const std::lock_guard lock(mutex_);
            if (closed_) return closed_error();
            if (!idle_.empty()) {
                idle = std::move(idle_.back());
                idle_.pop_back();
            }
        }
        if (!idle) break;
        if (!idle->stream().is_dead()) return idle;
    }
    auto stream = open_stream(address_, deadline, trust_);
    if (!stream) return std::move(stream).error();
    return std::make_unique<http_connection>(*std::move(stream), address_.text(), limit_);
}

void http_pool::give_back(std::unique_ptr<http_connection> connection) {
    const std::lock_guard lock(mutex_);
    if (connection->reusable() && !closed_) idle_.push_back(std::move(connection));
}

void http_pool::close() {
    std::vector<std::unique_ptr<http_connection>> idle;
    const std::lock_guard lock(mutex_);
    closed_ = true;
    idle.swap(idle_);
}

}  // namespace kingpole::detail
