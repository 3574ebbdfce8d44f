// What a tensor's bytes must be. Every tensor that is sent or received is judged here, once.
#include <algorithm>
#include <cstring>

#include <kingpole/response.hpp>
#include <kingpole/tensor.hpp>

namespace kingpole {

namespace {

constexpr std::size_t most_dimensions = 32;

error wrong(const tensor& tensor, const std::string& text) {
    return {.code = code::invalid_argument, .message = "tensor '" + tensor.name + "': " + text};
}

/// Return the length of the element at `position` and move behind it; nothing if it passes the end.
std::optional<std::string_view> next_element(std::span<const std::byte> data,
                                             std::size_t& position) noexcept {
    std::uint32_t length = 0;
    if (data.size() - position < sizeof length) return std::nullopt;
    std::memcpy(&length, data.data() + position, sizeof length);
    position += sizeof length;
    if (data.size() - position < length) return std::nullopt;
    const std::string_view element(reinterpret_cast<const char*>(data.data() + position), length);
    position += length;
    return element;
}

result<std::uint64_t> elements_of(const tensor& tensor) {
    if (tensor.shape.size() > most_dimensions) {
        return wrong(tensor, "it has " + std::to_string(tensor.shape.size()) + " dimensions, the most is 32");
    }
    std::uint64_t elements = 1;
    bool overflows = false;
    for (const std::int64_t size : tensor.shape) {
        if (size < 0) return wrong(tensor, "a dimension is " + std::to_string(size) + ", below 0");
        std::uint64_t product = 0;
        overflows |= __builtin_mul_overflow(elements, static_cast<std::uint64_t>(size), &product);
        elements = product;
    }
    const bool is_empty = std::ranges::find(tensor.shape, 0) != tensor.shape.end();
    if (overflows && !is_empty) return wrong(tensor, "its shape has more elements than there can be");
    return is_empty ? 0 : elements;
}

result<void> check_strings(const tensor& tensor, std::uint64_t elements) {
    if (elements > tensor.data.size() / sizeof(std::uint32_t)) {
        return wrong(tensor, std::to_string(elements) + " elements of BYTES cannot be in " +
                                 std::to_string(tensor.data.size()) + " bytes");
    }
    std::size_t position = 0;
    for (std::uint64_t index = 0; index < elements; ++index) {
        if (!next_element(tensor.data, position)) {
            return wrong(tensor, "element " + std::to_string(index) + " passes the end of the bytes");
        }
    }
    if (position != tensor.data.size()) {
        return wrong(tensor,
                     std::to_string(tensor.data.size() - position) + " bytes follow the last element");
    }
    return {};
}

}  // namespace

tensor tensor::strings(std::string name, std::vector<std::int64_t> shape,
                       std::span<const std::string_view> elements) {
    std::size_t nbytes = 0;
    for (const auto& element : elements) nbytes += sizeof(std::uint32_t) + element.size();
    auto kept = std::make_shared<std::vector<std::byte>>(nbytes);
    std::byte* to = kept->data();
    for (const auto& element : elements) {
        const auto length = static_cast<std::uint32_t>(element.size());
        std::memcpy(to, &length, sizeof length);
        if (length != 0) std::memcpy(to + sizeof length, element.data(), length);
        to += sizeof length + length;
    }
    const std::span<const std::byte> data(*kept);
    return {std::move(name), kingpole::datatype::bytes, std::move(shape), data, std::move(kept)};
}

result<std::vector<std::string_view>> tensor::as_strings() const {
    if (datatype != kingpole::datatype::bytes) return mismatch(kingpole::datatype::bytes);
    std::vector<std::string_view> elements;
    for (std::size_t position = 0; position < data.size();) {
        const auto element = next_element(data, position);
        if (!element) return wrong(*this, "an element passes the end of the bytes");
        elements.push_back(*element);
    }
    return elements;
}

result<void> tensor::check() const {
    const auto number = static_cast<unsigned>(datatype);
    if (number == 0 || number > static_cast<unsigned>(kingpole::datatype::bf16)) {
        return wrong(*this, "unknown datatype " + std::to_string(number));
    }
    auto elements = elements_of(*this);
    if (!elements) return std::move(elements).error();
    if (datatype == kingpole::datatype::bytes) return check_strings(*this, *elements);
    const std::size_t each = element_bytes(datatype);
    if (data.size() % each != 0 || data.size() / each != *elements) {
        return wrong(*this, std::string(kingpole::name(datatype)) + " of " + std::to_string(*elements) +
                                " elements has " + std::to_string(each) + " bytes for each, got " +
                                std::to_string(data.size()) + " bytes");
    }
    if (datatype == kingpole::datatype::boolean &&
        std::ranges::any_of(data, [](std::byte value) { return value > std::byte{1}; })) {
        return wrong(*this, "an element of BOOL is neither 0 nor 1");
    }
    return {};
}

error tensor::mismatch(kingpole::datatype wanted) const {
    return wrong(*this, "it has the datatype " + std::string(kingpole::name(datatype)) + ", not " +
                            std::string(kingpole::name(wanted)));
}

error tensor::misaligned() const {
    return wrong(*this, "its bytes are not aligned for " + std::string(kingpole::name(datatype)));
}

const tensor* response::find(std::string_view name) const noexcept {
    const auto found = std::ranges::find(outputs, name, &tensor::name);
    return found == outputs.end() ? nullptr : &*found;
}

error response::absent(std::string_view name) const {
    return {.code = code::not_found, .message = "the response has no output '" + std::string(name) + "'"};
}

}  // namespace kingpole
