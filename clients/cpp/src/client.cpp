// The client: checks what is asked, keeps time, asks again where that is safe. Knows no transport.
#include <deque>
#include <thread>

#include <kingpole/client.hpp>

#include "http_transport.hpp"
#include "socket_transport.hpp"

namespace kingpole {

using detail::deadline;

namespace {

deadline ask_deadline() { return detail::clock::now() + detail::ask_timeout; }

/// Whether it is certain that nothing has run, and when to come back.
std::optional<std::chrono::milliseconds> pause_before_retry(const error& failure, const retry& retry) {
    const std::chrono::milliseconds said(failure.retry_after_ms);
    if (failure.code == code::resource_exhausted && said.count() > 0 && said <= retry.longest_pause)
        return said;
    constexpr std::chrono::milliseconds reconnect_pause{50};
    if (failure.code == code::unavailable && failure.unsent)
        return std::min(reconnect_pause, retry.longest_pause);
    return std::nullopt;
}

/// Wait, unless a stop comes first; returns whether the whole time passed.
bool pause(std::chrono::milliseconds time, const std::stop_token& stop) {
    std::mutex mutex;
    std::condition_variable_any never;
    std::unique_lock lock(mutex);
    return !never.wait_for(lock, stop, time, [&] { return stop.stop_requested(); });
}

}  // namespace

pending::pending(std::shared_ptr<detail::slot> slot, deadline deadline)
    : slot_(std::move(slot)), deadline_(deadline) {}
pending::pending(pending&&) noexcept = default;
pending& pending::operator=(pending&& other) noexcept {
    if (this != &other) {
        abandon();
        slot_ = std::move(other.slot_);
        deadline_ = other.deadline_;
    }
    return *this;
}
pending::~pending() { abandon(); }

void pending::abandon() noexcept {
    if (slot_) slot_->give_up({.code = code::cancelled, .message = "the caller gave up"});
}

result<response> pending::get(std::stop_token stop) {
    return detail::expect<response>(slot_->take(deadline_, std::move(stop)));
}

bool pending::done() const { return slot_->is_resolved(); }

void pending::cancel() { abandon(); }

void pending::then(std::function<void()> callback) { slot_->then(std::move(callback)); }

response_stream::response_stream(std::unique_ptr<detail::source> source) : source_(std::move(source)) {}
response_stream::response_stream(response_stream&&) noexcept = default;
response_stream& response_stream::operator=(response_stream&& other) noexcept {
    if (this != &other) {
        close();
        source_ = std::move(other.source_);
        last_ = other.last_;
    }
    return *this;
}
response_stream::~response_stream() { close(); }

result<std::optional<response>> response_stream::next() {
    while (source_) {
        if (last_) {
            end(true);
            break;
        }
        auto answer = source_->next();
        if (std::holds_alternative<detail::credit>(answer)) continue;
        auto given = detail::expect<response>(std::move(answer));
        if (!given) {
            end(false);
            return std::move(given).error();
        }
        last_ = given->stage != stage::part;
        if (given->stage != stage::end) return std::optional(*std::move(given));
    }
    return std::optional<response>();
}

void response_stream::close() { end(last_); }

void response_stream::end(bool ended) {
    if (auto source = std::move(source_)) source->close(ended);
}

client::client(std::unique_ptr<detail::transport> transport, options options)
    : transport_(std::move(transport)), options_(std::move(options)) {}
client::client(client&&) noexcept = default;
client& client::operator=(client&& other) noexcept {
    if (this != &other) {
        if (transport_) transport_->close();
        transport_ = std::move(other.transport_);
        options_ = std::move(other.options_);
    }
    return *this;
}
client::~client() {
    if (transport_) transport_->close();
}

result<client> client::connect(std::string_view url, options options) {
    auto address = detail::parse_address(url);
    if (!address) return std::move(address).error();
    if (auto checked = detail::check_options(*address, options); !checked) return std::move(checked).error();
    auto transport = detail::make_transport(*address, options);
    if (!transport) return std::move(transport).error();
    return client(*std::move(transport), std::move(options));
}

result<std::unique_ptr<detail::transport>> detail::make_transport(const address& address,
                                                                  const options& options) {
    if (address.is_grpc()) {
        return error{
            .code = code::unimplemented,
            .message = address.text() + " needs the component kingpole::grpc: kingpole::grpc::connect"};
    }
    if (!address.is_http()) {
        return std::unique_ptr<transport>(std::make_unique<socket_transport>(address, options.max_frame_bytes,
                                                                             options.shared_memory_bytes));
    }
    std::shared_ptr<trust> trusted;
    if (address.secure()) {
        auto made = make_trust(options.root_certificates);
        if (!made) return std::move(made).error();
        trusted = *std::move(made);
    }
    return std::unique_ptr<transport>(std::make_unique<http_transport>(
        address, options.token, std::move(trusted), options.max_frame_bytes));
}

result<response> client::infer(const request& request, std::stop_token stop) {
    const auto timeout = request.timeout ? request.timeout : options_.timeout;
    if (auto checked = detail::check_request(request, timeout); !checked) return std::move(checked).error();
    const deadline until = detail::wait_deadline(timeout);
    for (unsigned attempt = 0;; ++attempt) {
        auto given = detail::expect<response>(transport_->infer({&request, timeout}, until, stop));
        if (given || attempt >= options_.retry.attempts) return given;
        const auto wait = pause_before_retry(given.error(), options_.retry);
        if (!wait || (until && detail::clock::now() + *wait >= *until) || !pause(*wait, stop)) return given;
    }
}

result<pending> client::submit(const request& request) {
    const auto timeout = request.timeout ? request.timeout : options_.timeout;
    if (auto checked = detail::check_request(request, timeout); !checked) return std::move(checked).error();
    const deadline until = detail::wait_deadline(timeout);
    auto slot = transport_->submit({&request, timeout}, until);
    if (!slot) return std::move(slot).error();
    return pending(*std::move(slot), until);
}

void client::infer_many(std::span<const request> requests,
                        const std::function<void(std::size_t, result<response>)>& each, std::size_t in_flight,
                        std::stop_token stop) {
    std::size_t next = 0;
    infer_many(
        [&]() -> std::optional<request> {
            return next < requests.size() ? std::optional(requests[next++]) : std::nullopt;
        },
        each, in_flight, std::move(stop));
}

void client::infer_many(const std::function<std::optional<request>()>& make,
                        const std::function<void(std::size_t, result<response>)>& each, std::size_t in_flight,
                        std::stop_token stop) {
    struct asked {
        std::unique_ptr<request> made;
        result<pending> answer;
    };
    std::deque<asked> waiting;
    std::size_t answered = 0;
    const auto take = [&] {
        asked oldest = std::move(waiting.front());
        waiting.pop_front();
        each(answered++, oldest.answer ? oldest.answer->get(stop) : std::move(oldest.answer).error());
    };
    while (!stop.stop_requested()) {
        auto made = make();
        if (!made) break;
        auto kept = std::make_unique<request>(*std::move(made));
        auto answer = submit(*kept);
        waiting.push_back({std::move(kept), std::move(answer)});
        if (waiting.size() >= std::max<std::size_t>(in_flight, 1)) take();
    }
    while (!waiting.empty()) take();
}

result<response_stream> client::stream(const request& request, std::stop_token stop) {
    const auto timeout = request.timeout ? request.timeout : options_.timeout;
    if (auto checked = detail::check_request(request, timeout); !checked) return std::move(checked).error();
    auto source = transport_->open({&request, timeout}, detail::wait_deadline(timeout), std::move(stop));
    if (!source) return std::move(source).error();
    return response_stream(*std::move(source));
}

result<bool> client::live() { return transport_->live(ask_deadline()); }

result<bool> client::ready() { return ready({}); }

result<bool> client::ready(std::string_view model, std::string_view version) {
    auto answer =
        transport_->ask(detail::ready_question{std::string(model), std::string(version)}, ask_deadline());
    auto said = detail::expect<detail::readiness>(std::move(answer));
    if (said) return said->ready;
    if (said.error().code == code::unavailable) return false;
    return std::move(said).error();
}

result<server_info> client::server() {
    return detail::expect<server_info>(transport_->ask(detail::server_info_question{}, ask_deadline()));
}

result<model_metadata> client::metadata(std::string_view model, std::string_view version) {
    const detail::metadata_question asked{std::string(model), std::string(version)};
    return detail::expect<model_metadata>(transport_->ask(asked, ask_deadline()));
}

result<shared_buffer> client::allocate(std::size_t nbytes) {
    auto memory = transport_->memory();
    if (!memory) return std::move(memory).error();
    auto block = (*memory)->take(nbytes);
    if (!block) {
        return error{.code = code::resource_exhausted,
                     .message = "no room for " + std::to_string(nbytes) + " bytes in " +
                                std::to_string((*memory)->size()) + " bytes of shared memory"};
    }
    return shared_buffer{block->bytes, std::move(block->owner)};
}

}  // namespace kingpole
