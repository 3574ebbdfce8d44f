// What a client is given: responses, metadata, server info. Knows no bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <kingpole/request.hpp>

namespace kingpole {

/// How the server served a request.
struct timing {
    std::uint64_t queue_us = 0;
    std::uint64_t execute_us = 0;
    std::uint32_t batch_rows = 0;
    /// Why the batch left when it did, for example `full`.
    std::string reason;
};

/// Where a response stands among those of its request.
enum class stage : std::uint8_t { only = 0, part = 1, end = 2 };

/// One inference answered. Outputs are views of what was received, which they keep alive.
struct response {
    std::string model;
    std::string version;
    std::optional<std::string> id;
    std::vector<tensor> outputs;
    kingpole::parameters parameters;
    kingpole::timing timing;
    kingpole::stage stage = kingpole::stage::only;

    /// Return an output by name; null if it is not there.
    [[nodiscard]] const tensor* find(std::string_view name) const noexcept;

    /// Return the elements of an output, where they lie.
    template <element T>
    [[nodiscard]] result<std::span<const T>> as(std::string_view name) const {
        const tensor* output = find(name);
        if (output == nullptr) return absent(name);
        return output->as<T>();
    }

  private:
    [[nodiscard]] error absent(std::string_view name) const;
};

/// An input or output of a model; -1 in the shape is any size.
struct tensor_spec {
    std::string name;
    kingpole::datatype datatype = kingpole::datatype::none;
    std::vector<std::int64_t> shape;
    bool optional = false;
};

/// What a model takes and gives.
struct model_metadata {
    std::string name;
    /// Versions that are ready.
    std::vector<std::string> versions;
    std::string platform;
    std::vector<tensor_spec> inputs;
    std::vector<tensor_spec> outputs;
    /// 0: does not batch. Absent: not said by this transport.
    std::optional<std::uint32_t> max_batch_size;
    std::string description;
};

/// Who the server is.
struct server_info {
    std::string name;
    std::string version;
    std::vector<std::string> extensions;
    /// Largest frame that it takes; 0: not said.
    std::uint64_t max_frame_bytes = 0;
};

}  // namespace kingpole
