// What takes part in the benchmark: a way to send FP32 values to echo-fp32 and to get them back.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace kingpole::bench {

/// Sends one request of prepared values, waits for the answer, and fails loudly if it is not one.
using ask = std::function<void()>;

struct contender {
    std::string name;
    /// Prepare requests of so many values.
    std::function<ask(std::size_t values)> prepare;
};

/// Values as every contender sends them.
inline std::vector<float> values_of(std::size_t count) {
    std::vector<float> values(count, 0.5F);
    return values;
}

/// The bytes of a frame made in advance, there and back over the bare transport.
contender floor_over_http(const std::string& url);
contender floor_over_grpc(const std::string& url);
/// The same by libcurl, which copies what is sent and received: why the client does without.
contender libcurl(const std::string& url);
/// The plain generated stubs of Open Inference, with raw contents.
contender stubs(const std::string& authority);

}  // namespace kingpole::bench
