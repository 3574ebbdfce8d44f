#include "json_tensor.hpp"

#include <cmath>
#include <cstring>

#include "utf8.hpp"

namespace kingpole::detail {

namespace {

error cannot_write(const tensor& tensor, const char* what) {
    return {
        .code = code::invalid_argument,
        .message = "input '" + tensor.name + "': this server takes tensors as JSON, which has no " + what};
}

error cannot_read(const tensor& tensor) {
    return {.code = code::internal,
            .message =
                "output '" + tensor.name + "': an element is not of " + std::string(name(tensor.datatype))};
}

template <class T>
result<json> numbers_to_json(const tensor& tensor) {
    json list = json::array();
    for (std::size_t at = 0; at < tensor.data.size(); at += sizeof(T)) {
        T value{};
        std::memcpy(&value, tensor.data.data() + at, sizeof value);
        if constexpr (std::is_same_v<T, float16> || std::is_same_v<T, bfloat16> ||
                      std::is_floating_point_v<T>) {
            const auto wide =
                static_cast<std::conditional_t<std::is_same_v<T, double>, double, float>>(value);
            if (!std::isfinite(wide)) return cannot_write(tensor, "NaN and no infinity");
            list.push_back(wide);
        } else {
            list.push_back(value);
        }
    }
    return list;
}

result<json> strings_to_json(const tensor& tensor) {
    auto strings = tensor.as_strings();
    if (!strings) return std::move(strings).error();
    json list = json::array();
    for (const auto& each : *strings) {
        if (!is_utf8(each)) return cannot_write(tensor, "text that is not UTF-8");
        list.push_back(std::string(each));
    }
    return list;
}

template <class T>
bool read_number(const json& from, T& to) {
    if constexpr (std::is_same_v<T, bool>) {
        if (!from.is_boolean()) return false;
        to = from.get<bool>();
    } else if constexpr (std::is_integral_v<T>) {
        if (from.is_number_unsigned()) {
            const auto wide = from.get<std::uint64_t>();
            to = static_cast<T>(wide);
            return std::in_range<T>(wide);
        }
        if (!from.is_number_integer()) return false;
        const auto wide = from.get<std::int64_t>();
        to = static_cast<T>(wide);
        return std::in_range<T>(wide);
    } else {
        if (!from.is_number()) return false;
        if constexpr (std::is_same_v<T, double>) {
            to = from.get<double>();
        } else {
            to = T(static_cast<float>(from.get<double>()));
        }
    }
    return true;
}

/// Lists may be nested as the shape says, or flat; the order of the elements is the same.
template <class Visit>
bool each_element(const json& data, const Visit& visit) {
    if (!data.is_array()) return visit(data);
    for (const json& each : data) {
        if (!each_element(each, visit)) return false;
    }
    return true;
}

template <class T>
result<void> numbers_from_json(const json& data, tensor& to) {
    auto bytes = std::make_shared<std::vector<std::byte>>();
    const bool good = each_element(data, [&](const json& from) {
        T value{};
        if (!read_number(from, value)) return false;
        const auto* first = reinterpret_cast<const std::byte*>(&value);
        bytes->insert(bytes->end(), first, first + sizeof value);
        return true;
    });
    if (!good) return cannot_read(to);
    to.data = *bytes;
    to.owner = std::move(bytes);
    return {};
}

result<void> strings_from_json(const json& data, tensor& to) {
    std::vector<std::string_view> elements;
    const bool good = each_element(data, [&](const json& from) {
        if (!from.is_string()) return false;
        elements.emplace_back(from.get_ref<const std::string&>());
        return true;
    });
    if (!good) return cannot_read(to);
    to = tensor::strings(std::move(to.name), std::move(to.shape), elements);
    return {};
}

/// Call `visit.operator()<T>()` with the C++ type of a datatype that has one.
template <class Visit>
auto with_type(datatype datatype, const Visit& visit) {
    switch (datatype) {
        case datatype::boolean:
            return visit.template operator()<bool>();
        case datatype::uint8:
            return visit.template operator()<std::uint8_t>();
        case datatype::uint16:
            return visit.template operator()<std::uint16_t>();
        case datatype::uint32:
            return visit.template operator()<std::uint32_t>();
        case datatype::uint64:
            return visit.template operator()<std::uint64_t>();
        case datatype::int8:
            return visit.template operator()<std::int8_t>();
        case datatype::int16:
            return visit.template operator()<std::int16_t>();
        case datatype::int32:
            return visit.template operator()<std::int32_t>();
        case datatype::int64:
            return visit.template operator()<std::int64_t>();
        case datatype::fp16:
            return visit.template operator()<float16>();
        case datatype::bf16:
            return visit.template operator()<bfloat16>();
        case datatype::fp64:
            return visit.template operator()<double>();
        default:
            return visit.template operator()<float>();
    }
}

}  // namespace

result<json> elements_to_json(const tensor& tensor) {
    if (tensor.datatype == datatype::bytes) return strings_to_json(tensor);
    return with_type(tensor.datatype, [&]<class T>() { return numbers_to_json<T>(tensor); });
}

result<void> elements_from_json(const json& data, tensor& to) {
    if (to.datatype == datatype::bytes) return strings_from_json(data, to);
    return with_type(to.datatype, [&]<class T>() { return numbers_from_json<T>(data, to); });
}

}  // namespace kingpole::detail
