// Names and sizes of datatypes, and rounding to half precision. Knows no tensor.
#include <array>
#include <bit>

#include <kingpole/datatype.hpp>

namespace kingpole {

namespace {

struct described {
    std::string_view name;
    std::size_t element_bytes;
};

// By number.
constexpr std::array<described, 15> datatypes{{{"NONE", 0},
                                               {"BOOL", 1},
                                               {"UINT8", 1},
                                               {"UINT16", 2},
                                               {"UINT32", 4},
                                               {"UINT64", 8},
                                               {"INT8", 1},
                                               {"INT16", 2},
                                               {"INT32", 4},
                                               {"INT64", 8},
                                               {"FP16", 2},
                                               {"FP32", 4},
                                               {"FP64", 8},
                                               {"BYTES", 0},
                                               {"BF16", 2}}};

constexpr std::uint32_t fp32_infinity = 0x7F800000;

}  // namespace

std::string_view name(datatype datatype) noexcept {
    const auto index = static_cast<std::size_t>(datatype);
    return index < datatypes.size() ? datatypes[index].name : "UNKNOWN";
}

std::optional<datatype> datatype_named(std::string_view name) noexcept {
    for (std::size_t index = 1; index < datatypes.size(); ++index) {
        if (datatypes[index].name == name) return static_cast<datatype>(index);
    }
    return std::nullopt;
}

std::size_t element_bytes(datatype datatype) noexcept {
    const auto index = static_cast<std::size_t>(datatype);
    return index < datatypes.size() ? datatypes[index].element_bytes : 0;
}

float16::float16(float value) noexcept {
    const auto wide = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>((wide >> 16) & 0x8000);
    const std::uint32_t magnitude = wide & 0x7FFFFFFF;
    if (magnitude > fp32_infinity) {
        bits = sign | 0x7E00;  // NaN stays one
    } else if (magnitude >= 0x477FF000) {
        bits = sign | 0x7C00;  // 65520 and above round to infinity
    } else if (magnitude >= 0x38800000) {
        const std::uint32_t rounded = magnitude + 0xFFF + ((magnitude >> 13) & 1);
        bits = static_cast<std::uint16_t>(sign | ((rounded - 0x38000000) >> 13));
    } else if (magnitude < 0x33000000) {
        bits = sign;  // below half of the smallest
    } else {
        const std::uint32_t exponent = magnitude >> 23;
        const std::uint32_t mantissa = (magnitude & 0x7FFFFF) | 0x800000;
        const std::uint32_t shift = 126 - exponent;
        const std::uint32_t kept = mantissa >> shift;
        const std::uint32_t lost = mantissa & ((1U << shift) - 1);
        const std::uint32_t half = 1U << (shift - 1);
        bits =
            static_cast<std::uint16_t>(sign | (kept + (lost > half || (lost == half && (kept & 1)) ? 1 : 0)));
    }
}

float16::operator float() const noexcept {
    const std::uint32_t sign = std::uint32_t{bits & 0x8000U} << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1F;
    const std::uint32_t mantissa = bits & 0x3FF;
    if (exponent == 0x1F) return std::bit_cast<float>(sign | fp32_infinity | (mantissa << 13));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
    const float small = static_cast<float>(mantissa) * 0x1p-24F;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(small));
}

bfloat16::bfloat16(float value) noexcept {
    const auto wide = std::bit_cast<std::uint32_t>(value);
    if ((wide & 0x7FFFFFFF) > fp32_infinity) {
        bits = static_cast<std::uint16_t>((wide >> 16) | 0x40);
    } else {
        bits = static_cast<std::uint16_t>((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16);
    }
}

bfloat16::operator float() const noexcept { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

}  // namespace kingpole
