// Cases about what tensors hold.
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>

#include "cases.hpp"

namespace kingpole::conformance {

namespace {

template <element T>
tensor six(std::array<T, 6> values) {
    return tensor::own<T>("x", {2, 3}, std::vector<T>(values.begin(), values.end()));
}

template <class T>
tensor integers() {
    using limits = std::numeric_limits<T>;
    return six<T>({limits::min(), limits::max(), 0, 1, 2, static_cast<T>(limits::max() - 1)});
}

template <class T>
tensor floats() {
    using limits = std::numeric_limits<T>;
    return six<T>({limits::lowest(), limits::max(), limits::quiet_NaN(), limits::infinity(),
                   -limits::infinity(), static_cast<T>(-0.0)});
}

template <class T>
T of_bits(std::uint16_t bits) {
    return std::bit_cast<T>(bits);
}

tensor booleans() {
    // std::vector<bool> has no elements that could be pointed to.
    static constexpr std::array<bool, 6> values{true, false, true, true, false, false};
    return tensor::view<bool>("x", {2, 3}, values);
}

tensor texts() {
    static constexpr std::array<std::string_view, 6> values{"",  "ünï",  std::string_view("\xff\xfe\x00", 3),
                                                            "a", "\x80", "日本"};
    return tensor::strings("x", {2, 3}, values);
}

void expect_same(client& client, const std::string& model, const tensor& input) {
    const auto answered = good(client.infer({.model = model, .inputs = {input}}), model);
    const tensor* output = answered.find("x");
    expect_that(output != nullptr, model + ": no output x");
    expect_that(output->datatype == input.datatype, model + ": another datatype");
    expect_that(output->shape == input.shape, model + ": another shape");
    expect_that(std::ranges::equal(output->data, input.data), model + ": other bytes");
}

std::vector<float> counting(std::size_t elements) {
    std::vector<float> values(elements);
    std::iota(values.begin(), values.end(), 0.0F);
    return values;
}

/// Whether a tensor is in the arena, whose first allocation lies at its start. What is there did not travel:
/// no system counts the bytes that recvmsg and sendmsg move over a Unix socket, so the tensors' places are
/// looked at instead.
bool lies_in(const tensor& tensor, const shared_buffer& first, std::size_t arena_bytes) {
    return tensor.data.data() >= first.data.data() && tensor.data.data() < first.data.data() + arena_bytes;
}

}  // namespace

void datatypes(const situation& at) {
    auto client = connect(at.url);
    const std::vector<std::pair<std::string, tensor>> each{
        {"echo-bool", booleans()},
        {"echo-uint8", integers<std::uint8_t>()},
        {"echo-uint16", integers<std::uint16_t>()},
        {"echo-uint32", integers<std::uint32_t>()},
        {"echo-uint64", integers<std::uint64_t>()},
        {"echo-int8", integers<std::int8_t>()},
        {"echo-int16", integers<std::int16_t>()},
        {"echo-int32", integers<std::int32_t>()},
        {"echo-int64", integers<std::int64_t>()},
        {"echo-fp16",
         six<float16>({of_bits<float16>(0xFBFF), of_bits<float16>(0x7BFF), of_bits<float16>(0x7E01),
                       of_bits<float16>(0x7C00), of_bits<float16>(0xFC00), of_bits<float16>(0x8000)})},
        {"echo-bf16",
         six<bfloat16>({of_bits<bfloat16>(0xFF7F), of_bits<bfloat16>(0x7F7F), of_bits<bfloat16>(0x7FC1),
                        of_bits<bfloat16>(0x7F80), of_bits<bfloat16>(0xFF80), of_bits<bfloat16>(0x8000)})},
        {"echo-fp32", floats<float>()},
        {"echo-fp64", floats<double>()},
        {"echo-bytes", texts()}};
    for (const auto& [model, input] : each) expect_same(client, model, input);
}

void shapes(const situation& at) {
    auto client = connect(at.url);
    expect_same(client, "scalar", tensor::own<float>("x", {}, {2.5F}));
    expect_same(client, "echo-fp32", tensor::own<float>("x", {0, 3}, {}));
    expect_same(client, "echo-fp32", tensor::own<float>("x", {1, 1}, {7}));
    expect_same(client, "echo-fp32", tensor::own<float>("x", {3, 0}, {}));
    expect_same(client, "rank8", tensor::own<float>("x", {1, 2, 1, 2, 1, 2, 1, 2}, counting(16)));
    expect_same(client, "echo-bytes", tensor::strings("x", {0, 2}, {}));
}

void pipeline(const situation& at) {
    auto client = connect(at.url);
    constexpr std::size_t most = 10'000;
    std::size_t next = 0;
    std::size_t answered = 0;
    client.infer_many(
        [&]() -> std::optional<request> {
            if (next == most) return std::nullopt;
            const auto value = static_cast<float>(next++);
            return request{.model = "echo-fp32", .inputs = {x({value, value + 0.5F})}};
        },
        [&](std::size_t index, result<response> response) {
            const auto given = good(std::move(response), "request " + std::to_string(index));
            const auto values = good(given.as<float>("x"), "x");
            expect_that(
                values.size() == 2 && values[0] == static_cast<float>(index) && values[1] == values[0] + 0.5F,
                "request " + std::to_string(index) + " has another's answer");
            ++answered;
        },
        64);
    expect_that(answered == most, std::to_string(answered) + " of 10000 requests were answered");
}

void large(const situation& at) {
    auto client = connect(at.url);
    expect_same(client, "echo-fp32", tensor::own<float>("x", {1000, 25'000}, counting(25'000'000)));
}

void shared_memory(const situation& at) {
    if (transport_of(at.url) != "unix") throw not_applicable("memory is shared over Unix sockets only");
    constexpr std::size_t nbytes = std::size_t{16} << 20;
    constexpr std::size_t arena_bytes = 4 * nbytes;
    auto client = connect(at.url, {.shared_memory_bytes = arena_bytes});
    auto memory = good(client.allocate(nbytes), "allocate");
    auto* elements = reinterpret_cast<float*>(memory.data.data());
    std::iota(elements, elements + nbytes / sizeof(float), 0.0F);
    tensor input =
        tensor::view<float>("x", {4, nbytes / sizeof(float) / 4}, {elements, nbytes / sizeof(float)});
    input.owner = memory.owner;
    // The first answer says how large the outputs are; from then on they are in the arena too.
    for (int turn = 0; turn < 21; ++turn) {
        elements[0] = static_cast<float>(turn);
        const auto given =
            good(client.infer({.model = "echo-fp32", .inputs = {input}}), "turn " + std::to_string(turn));
        const tensor* output = given.find("x");
        expect_that(output != nullptr && std::ranges::equal(output->data, input.data),
                    "other bytes came back");
        expect_that(turn == 0 || lies_in(*output, memory, arena_bytes),
                    "turn " + std::to_string(turn) + ": the output travelled through the socket");
    }
}

}  // namespace kingpole::conformance
