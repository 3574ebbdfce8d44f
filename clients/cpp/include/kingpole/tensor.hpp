// A tensor: a name, a datatype, a shape, and bytes that lie somewhere else. Knows no request.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <kingpole/datatype.hpp>
#include <kingpole/result.hpp>

namespace kingpole {

/// A named tensor of a request or a response. Copying one copies no elements.
///
/// `data` is little-endian, row-major and dense. If `owner` is set it keeps the bytes alive; if not, they are
/// the caller's and must stay until the answer to the request is there. Outputs of a response always have
/// one.
struct tensor {
    std::string name = {};
    kingpole::datatype datatype = kingpole::datatype::none;
    /// Sizes of the dimensions, outermost first; empty for a scalar.
    std::vector<std::int64_t> shape = {};
    std::span<const std::byte> data = {};
    std::shared_ptr<const void> owner = {};

    /// Refer to elements of the caller's.
    template <element T>
    [[nodiscard]] static tensor view(std::string name, std::vector<std::int64_t> shape,
                                     std::span<const T> elements) {
        return {std::move(name), datatype_of<T>, std::move(shape), std::as_bytes(elements), nullptr};
    }

    /// Keep elements: they travel without a copy over every transport.
    template <element T>
    [[nodiscard]] static tensor own(std::string name, std::vector<std::int64_t> shape,
                                    std::vector<T> elements) {
        auto kept = std::make_shared<const std::vector<T>>(std::move(elements));
        return {std::move(name), datatype_of<T>, std::move(shape), std::as_bytes(std::span<const T>(*kept)),
                kept};
    }

    /// Make a BYTES tensor of texts, which need not be UTF-8; they are copied.
    [[nodiscard]] static tensor strings(std::string name, std::vector<std::int64_t> shape,
                                        std::span<const std::string_view> elements);

    /// Return the elements where they lie, if they are of this type.
    template <element T>
    [[nodiscard]] result<std::span<const T>> as() const {
        if (datatype != datatype_of<T> || data.size() % sizeof(T) != 0) return mismatch(datatype_of<T>);
        if (reinterpret_cast<std::uintptr_t>(data.data()) % alignof(T) != 0) return misaligned();
        return std::span<const T>(reinterpret_cast<const T*>(data.data()), data.size() / sizeof(T));
    }

    /// Return the elements of a BYTES tensor, as views of its bytes.
    [[nodiscard]] result<std::vector<std::string_view>> as_strings() const;

    /// Say what is wrong: datatype, a size below 0, or bytes that are not those of the shape.
    [[nodiscard]] result<void> check() const;

  private:
    [[nodiscard]] error mismatch(kingpole::datatype wanted) const;
    [[nodiscard]] error misaligned() const;
};

}  // namespace kingpole
