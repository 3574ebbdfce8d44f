// Cases about requests that belong together: several responses to one, several requests of a sequence.
#include <vector>

#include "cases.hpp"

namespace kingpole::conformance {

namespace {

request counting(std::int32_t count) {
    return {.model = "count", .inputs = {tensor::own<std::int32_t>("count", {1}, {count})}};
}

void expect_value(const response& given, std::int32_t expected) {
    const auto values = good(given.as<std::int32_t>("value"), "value");
    expect_that(values.size() == 1 && values[0] == expected,
                "expected the value " + std::to_string(expected));
}

void expect_count(client& client, std::int32_t count) {
    auto responses = good(client.stream(counting(count)), "stream");
    for (std::int32_t value = 0; value < count; ++value) {
        const auto given = good(responses.next(), "response " + std::to_string(value));
        expect_that(given.has_value(), "only " + std::to_string(value) + " of " + std::to_string(count));
        expect_value(*given, value);
    }
    expect_that(!good(responses.next(), "the end").has_value(), "more than " + std::to_string(count));
}

}  // namespace

void stream(const situation& at) {
    auto client = connect(at.url);
    for (const std::int32_t count : {0, 1, 1000}) expect_count(client, count);

    auto failing = counting(10);
    failing.parameters.emplace("fail_at", std::int64_t{3});
    auto failed = good(client.stream(failing), "stream");
    for (std::int32_t value = 0; value < 3; ++value) {
        const auto given = good(failed.next(), "before the failure");
        expect_that(given.has_value(), "it ended before it failed");
        expect_value(*given, value);
    }
    bad(failed.next(), code::unavailable, "cannot count beyond 3", "fail_at 3");

    auto endless = counting(1'000'000);
    if (!at.extra.empty()) endless.parameters.emplace("mark", at.extra);
    {
        auto left = good(client.stream(endless), "stream");
        for (std::int32_t value = 0; value < 2; ++value)
            expect_value(good(left.next(), "left").value(), value);
    }
    wait_for_file(at.extra, std::chrono::seconds(10));

    auto single = good(client.stream({.model = "echo-fp32", .inputs = {x()}}), "stream of echo-fp32");
    expect_that(good(single.next(), "echo-fp32").has_value(), "no response");
    expect_that(!good(single.next(), "echo-fp32").has_value(), "more than one response");
    expect_echo(client);
}

void sequence_case(const situation& at) {
    auto client = connect(at.url);
    const std::vector<std::variant<std::uint64_t, std::string>> ids{std::uint64_t{7}, std::string("seven")};
    constexpr std::array<float, 3> sums{1, 3, 6};
    for (std::size_t turn = 0; turn < sums.size(); ++turn) {
        for (const auto& id : ids) {
            const request asked{.model = "sums",
                                .inputs = {x({static_cast<float>(turn + 1)})},
                                .sequence = sequence{id, turn == 0, turn + 1 == sums.size()}};
            const auto given = good(client.infer(asked), "sums");
            const auto values = good(given.as<float>("sum"), "sum");
            expect_that(values.size() == 1 && values[0] == sums.at(turn), "another sum");
        }
    }
}

}  // namespace kingpole::conformance
