// Element types of tensors, and the two that C++20 has no type for. Knows no tensor.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace kingpole {

/// Element types; the numbers are those of the frame's schema.
enum class datatype : std::uint8_t {
    none = 0,
    boolean = 1,
    uint8 = 2,
    uint16 = 3,
    uint32 = 4,
    uint64 = 5,
    int8 = 6,
    int16 = 7,
    int32 = 8,
    int64 = 9,
    fp16 = 10,
    fp32 = 11,
    fp64 = 12,
    bytes = 13,
    bf16 = 14,
};

/// Return the name that every protocol uses, for example `FP32`.
[[nodiscard]] std::string_view name(datatype datatype) noexcept;

/// Return the datatype of a name; nothing if there is none.
[[nodiscard]] std::optional<datatype> datatype_named(std::string_view name) noexcept;

/// Return the bytes of one element; 0 for `bytes`, whose elements differ, and for what is no datatype.
[[nodiscard]] std::size_t element_bytes(datatype datatype) noexcept;

/// IEEE 754 binary16, as its bits.
struct float16 {
    std::uint16_t bits = 0;

    float16() = default;
    /// Round to the nearest value, ties to even.
    explicit float16(float value) noexcept;
    explicit operator float() const noexcept;
    friend bool operator==(float16, float16) = default;
};

/// The upper half of an IEEE 754 binary32, as its bits.
struct bfloat16 {
    std::uint16_t bits = 0;

    bfloat16() = default;
    /// Round to the nearest value, ties to even.
    explicit bfloat16(float value) noexcept;
    explicit operator float() const noexcept;
    friend bool operator==(bfloat16, bfloat16) = default;
};

/// The datatype of a C++ type; `none` for one that tensors cannot hold.
template <class T>
inline constexpr datatype datatype_of = datatype::none;
template <>
inline constexpr datatype datatype_of<bool> = datatype::boolean;
template <>
inline constexpr datatype datatype_of<std::uint8_t> = datatype::uint8;
template <>
inline constexpr datatype datatype_of<std::uint16_t> = datatype::uint16;
template <>
inline constexpr datatype datatype_of<std::uint32_t> = datatype::uint32;
template <>
inline constexpr datatype datatype_of<std::uint64_t> = datatype::uint64;
template <>
inline constexpr datatype datatype_of<std::int8_t> = datatype::int8;
template <>
inline constexpr datatype datatype_of<std::int16_t> = datatype::int16;
template <>
inline constexpr datatype datatype_of<std::int32_t> = datatype::int32;
template <>
inline constexpr datatype datatype_of<std::int64_t> = datatype::int64;
template <>
inline constexpr datatype datatype_of<float16> = datatype::fp16;
template <>
inline constexpr datatype datatype_of<bfloat16> = datatype::bf16;
template <>
inline constexpr datatype datatype_of<float> = datatype::fp32;
template <>
inline constexpr datatype datatype_of<double> = datatype::fp64;

/// A C++ type that is an element of a tensor as it lies in memory.
template <class T>
concept element = datatype_of<T>
!= datatype::none;

}  // namespace kingpole
