// JSON that others wrote: read with limits, and without exceptions. Knows no protocol.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include <kingpole/result.hpp>

namespace kingpole::detail {

// Objects keep the order of their fields.
using json = nlohmann::ordered_json;

/// Read JSON; nothing nested deeper than any protocol here needs, and no more than `most` bytes.
[[nodiscard]] result<json> parse_json(std::string_view text, std::size_t most);

/// Return a field that is a text, or what stands in for it.
[[nodiscard]] std::string text_of(const json& object, std::string_view name, std::string_view otherwise = {});

}  // namespace kingpole::detail
