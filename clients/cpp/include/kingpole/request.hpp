// One inference asked for. Knows no bytes.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <kingpole/tensor.hpp>

namespace kingpole {

/// The value of a parameter of a request or a response.
using parameter = std::variant<bool, std::int64_t, std::uint64_t, double, std::string>;
/// Parameters by name.
using parameters = std::map<std::string, parameter, std::less<>>;

/// A request's place in a sequence of requests that a stateful model keeps together.
struct sequence {
    /// A number above 0, or a text that is not empty.
    std::variant<std::uint64_t, std::string> id;
    bool start = false;
    bool end = false;
};

/// One inference asked for.
struct request {
    /// Empty: the server's default model.
    std::string model = {};
    std::vector<tensor> inputs = {};
    /// Names of the outputs wanted, in that order. Empty: all.
    std::vector<std::string> outputs = {};
    /// Absent: the latest ready version.
    std::optional<std::string> version = {};
    /// The caller's own id, echoed in the response.
    std::optional<std::string> id = {};
    kingpole::parameters parameters = {};
    /// Travels with the request and bounds the wait here, a quarter of a second later. Absent: the client's.
    std::optional<std::chrono::microseconds> timeout = {};
    /// 0 is the default, 1 the highest.
    std::uint32_t priority = 0;
    std::optional<kingpole::sequence> sequence = {};
};

}  // namespace kingpole
