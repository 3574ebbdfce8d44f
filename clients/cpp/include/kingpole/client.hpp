// The client: what a program that asks a model server uses. Knows no bytes and no socket.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>

#include <kingpole/request.hpp>
#include <kingpole/response.hpp>
#include <kingpole/result.hpp>

namespace kingpole {

namespace detail {
class slot;
class source;
class transport;
}  // namespace detail

/// When `client::infer` asks again by itself. Only where it is certain that nothing has run: a request that
/// never left this process, or that the server refused before queueing it and said when to come back.
struct retry {
    /// How often to ask again; 0, the default, never.
    unsigned attempts = 0;
    /// The longest wait before one of them; a server that says more is not asked again.
    std::chrono::milliseconds longest_pause{1000};
};

/// How a client behaves.
struct options {
    /// For requests that have no timeout of their own. Absent: they wait for as long as it takes.
    std::optional<std::chrono::microseconds> timeout = {};
    /// Sent as `authorization: Bearer ...`, over http, https, grpc and grpcs.
    std::string token = {};
    /// Whom TLS trusts, in PEM. Empty: whom the system trusts.
    std::string root_certificates = {};
    /// Answers that would be longer are refused before memory is asked for.
    std::uint64_t max_frame_bytes = std::uint64_t{4} << 30;
    /// Bytes of memory shared with the server, over `unix:` only. 0: none.
    std::size_t shared_memory_bytes = 0;
    kingpole::retry retry = {};
};

/// An answer that will come. Destroying it before that gives the request up.
class pending {
  public:
    pending(pending&&) noexcept;
    pending& operator=(pending&&) noexcept;
    pending(const pending&) = delete;
    pending& operator=(const pending&) = delete;
    ~pending();

    /// Wait for the answer, no longer than the request's timeout allows; a stop gives the request up.
    [[nodiscard]] result<response> get(std::stop_token stop = {});

    /// Return whether `get` returns at once.
    [[nodiscard]] bool done() const;

    /// Say that the answer is no longer wanted; `get` then gives `cancelled`, unless it was already there.
    void cancel();

    /// Call `callback` once the answer is there, from the thread that received it, or now if it is. Once. It
    /// must not wait, nor destroy the client.
    void then(std::function<void()> callback);

  private:
    friend class client;
    pending(std::shared_ptr<detail::slot> slot,
            std::optional<std::chrono::steady_clock::time_point> deadline);
    void abandon() noexcept;

    std::shared_ptr<detail::slot> slot_;
    std::optional<std::chrono::steady_clock::time_point> deadline_;
};

/// The responses to one request, as they come. Destroying it before the last one tells the model to stop.
///
/// It has a connection or call of its own: responses that are not taken hold up the model that makes them,
/// and nothing else. Not for use from several threads at once; a stop of the token it was made with may come
/// from anywhere.
class response_stream {
  public:
    response_stream(response_stream&&) noexcept;
    response_stream& operator=(response_stream&&) noexcept;
    response_stream(const response_stream&) = delete;
    response_stream& operator=(const response_stream&) = delete;
    ~response_stream();

    /// Wait for the next response; nothing after the last. An error ends it; what came before stays good.
    [[nodiscard]] result<std::optional<response>> next();

    /// Take no more responses.
    void close();

  private:
    friend class client;
    explicit response_stream(std::unique_ptr<detail::source> source);
    void end(bool ended);

    std::unique_ptr<detail::source> source_;
    bool last_ = false;
};

/// Memory that the server sees too. Tensors whose `data` lies in it and whose `owner` is `owner` do not
/// travel.
struct shared_buffer {
    std::span<std::byte> data;
    std::shared_ptr<void> owner;
};

/// A connection to one server; safe to share between threads. Destroying it answers what waits `cancelled`.
///
/// Nothing is sent twice (see `retry`): a request whose connection breaks fails with `unavailable`, and it is
/// the caller who knows whether to ask again. Idle connections that the server closed are replaced before
/// anything is written to them. The one exception is the first request over HTTP to a server that knows no
/// frames: it refused that one unread, and is asked again in Open Inference.
class client {
  public:
    /// Make a client of `http://host:port`, `https://`, `frame://host:port` or `unix:/path`; `grpc://` and
    /// `grpcs://` are for `kingpole::grpc::connect`. Nothing is sent before the first call.
    [[nodiscard]] static result<client> connect(std::string_view url, options options = {});

    client(client&&) noexcept;
    client& operator=(client&&) noexcept;
    client(const client&) = delete;
    client& operator=(const client&) = delete;
    ~client();

    /// Ask a model for an inference and wait for the answer. A stop gives it up: the error is `cancelled`.
    [[nodiscard]] result<response> infer(const request& request, std::stop_token stop = {});

    /// Ask for an inference without waiting. The inputs must stay as they are until the answer is there.
    [[nodiscard]] result<pending> submit(const request& request);

    /// Ask for many inferences, up to `in_flight` at a time. Calls `each` in the requests' order, from this
    /// thread, and goes on after errors; a stop answers what is left `cancelled`.
    void infer_many(std::span<const request> requests,
                    const std::function<void(std::size_t, result<response>)>& each,
                    std::size_t in_flight = 64, std::stop_token stop = {});

    /// The same for requests that are made as they are needed: `make` gives the next, or nothing at the end.
    void infer_many(const std::function<std::optional<request>()>& make,
                    const std::function<void(std::size_t, result<response>)>& each,
                    std::size_t in_flight = 64, std::stop_token stop = {});

    /// Ask for an inference that may be answered by any number of responses.
    [[nodiscard]] result<response_stream> stream(const request& request, std::stop_token stop = {});

    /// Return whether the server answers at all.
    [[nodiscard]] result<bool> live();

    /// Return whether the server is ready to infer.
    [[nodiscard]] result<bool> ready();

    /// Return whether a model is; `not_found` if there is none.
    [[nodiscard]] result<bool> ready(std::string_view model, std::string_view version = {});

    /// Return who the server is.
    [[nodiscard]] result<server_info> server();

    /// Return what a model takes and gives; `not_found` if there is none.
    [[nodiscard]] result<model_metadata> metadata(std::string_view model, std::string_view version = {});

    /// Reserve memory that the server sees too; it is free again when the last owner is gone. If the
    /// connection is replaced it stays usable, and travels like any other.
    [[nodiscard]] result<shared_buffer> allocate(std::size_t nbytes);

    /// Of the library's own transports.
    client(std::unique_ptr<detail::transport> transport, options options);

  private:
    std::unique_ptr<detail::transport> transport_;
    options options_;
};

}  // namespace kingpole
