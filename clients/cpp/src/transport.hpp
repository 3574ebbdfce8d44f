// What carries questions to a server and answers back. Knows no bytes.
#pragma once

#include <memory>
#include <stop_token>

#include "address.hpp"
#include "slot.hpp"

namespace kingpole::detail {

class arena;

/// Where the frames of one answer come from.
class source {
  public:
    source() = default;
    source(const source&) = delete;
    source& operator=(const source&) = delete;
    virtual ~source() = default;

    /// Wait for the next answer; errors are answers.
    [[nodiscard]] virtual answer next() = 0;

    /// Let go of it; before the answer has ended this cancels the request.
    virtual void close(bool ended) = 0;
};

/// What carries questions to one server. Safe between threads.
class transport {
  public:
    transport() = default;
    transport(const transport&) = delete;
    transport& operator=(const transport&) = delete;
    virtual ~transport() = default;

    /// Ask for an inference and wait.
    [[nodiscard]] virtual answer infer(const infer_question& asked, const deadline& deadline,
                                       std::stop_token stop) = 0;

    /// Ask for an inference; the answer will be in the slot.
    [[nodiscard]] virtual result<std::shared_ptr<slot>> submit(const infer_question& asked,
                                                               const deadline& deadline) = 0;

    /// Ask for any number of responses.
    [[nodiscard]] virtual result<std::unique_ptr<source>> open(const infer_question& asked,
                                                               const deadline& deadline,
                                                               std::stop_token stop) = 0;

    /// Ask anything else, and wait.
    [[nodiscard]] virtual answer ask(const question& asked, const deadline& deadline) = 0;

    /// Return whether the server answers at all.
    [[nodiscard]] virtual result<bool> live(const deadline& deadline) = 0;

    /// Return the memory shared with the server.
    [[nodiscard]] virtual result<std::shared_ptr<arena>> memory();

    /// End it; what waits is answered `cancelled`.
    virtual void close() = 0;
};

/// Return the error of a client that was closed.
[[nodiscard]] error closed_error();

/// Make the transport of an address; gRPC is not among them.
[[nodiscard]] result<std::unique_ptr<transport>> make_transport(const address& address,
                                                                const options& options);

}  // namespace kingpole::detail
