// Elements of tensors as JSON, both ways. Knows no request.
#pragma once

#include <kingpole/tensor.hpp>

#include "json.hpp"

namespace kingpole::detail {

/// Write the elements as a flat list; `invalid_argument` for what JSON cannot hold.
[[nodiscard]] result<json> elements_to_json(const tensor& tensor);

/// Read elements, flat or nested, into a tensor that has its datatype and shape.
[[nodiscard]] result<void> elements_from_json(const json& data, tensor& to);

}  // namespace kingpole::detail
