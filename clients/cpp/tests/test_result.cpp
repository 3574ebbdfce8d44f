#include <gtest/gtest.h>

#include <kingpole/result.hpp>

namespace kingpole {
namespace {

error lost() { return {.code = code::not_found, .message = "no model 'm'"}; }

TEST(result, holds_a_value_or_an_error) {
    const result<int> good = 3;
    const result<int> bad = lost();
    EXPECT_TRUE(good.has_value());
    EXPECT_EQ(*good, 3);
    EXPECT_EQ(bad.value_or(7), 7);
    EXPECT_EQ(bad.error().text(), "NOT_FOUND: no model 'm'");
}

TEST(result, goes_on_with_a_value_and_passes_an_error_on) {
    const auto half = [](int value) -> result<int> {
        if (value % 2 != 0) return lost();
        return value / 2;
    };
    EXPECT_EQ(result<int>(8).and_then(half).transform([](int value) { return value + 1; }).value(), 5);
    EXPECT_EQ(result<int>(3).and_then(half).and_then(half).error().code, code::not_found);
}

TEST(result, throws_the_error_where_a_value_is_demanded) {
    try {
        (void)result<int>(lost()).value();
        FAIL();
    } catch (const bad_result_access& thrown) {
        EXPECT_EQ(thrown.error().code, code::not_found);
        EXPECT_STREQ(thrown.what(), "NOT_FOUND: no model 'm'");
    }
    EXPECT_THROW(result<void>(lost()).value(), bad_result_access);
}

TEST(errors, have_the_codes_of_the_table) {
    EXPECT_EQ(detail::error_of_number(14, "x").code, code::unavailable);
    EXPECT_EQ(detail::error_of_number(77, "x").code, code::internal);
    EXPECT_EQ(detail::error_of_http_status(429, "x").code, code::resource_exhausted);
    EXPECT_EQ(detail::error_of_http_status(418, "x").code, code::invalid_argument);
    EXPECT_EQ(detail::error_of_http_status(599, "x").code, code::internal);
}

}  // namespace
}  // namespace kingpole
