#include <cmath>
#include <gtest/gtest.h>
#include <limits>

#include <kingpole/response.hpp>
#include <kingpole/tensor.hpp>

#include "utf8.hpp"

namespace kingpole {
namespace {

TEST(tensor, views_elements_where_they_lie) {
    const std::array<float, 6> elements{1, 2, 3, 4, 5, 6};
    const auto x = tensor::view<float>("x", {2, 3}, elements);
    EXPECT_TRUE(x.check());
    EXPECT_EQ(x.as<float>()->data(), elements.data());
    EXPECT_EQ(x.as<double>().error().code, code::invalid_argument);
}

TEST(tensor, keeps_elements_that_it_owns) {
    const auto x = tensor::own<std::int64_t>("x", {3}, {7, 8, 9});
    const tensor copy = x;
    EXPECT_EQ(copy.data.data(), x.data.data());
    EXPECT_EQ((*copy.as<std::int64_t>())[2], 9);
}

TEST(tensor, writes_and_reads_texts) {
    const std::array<std::string_view, 3> texts{"", "ünï", std::string_view("\xff\x00", 2)};
    const auto x = tensor::strings("x", {3}, texts);
    EXPECT_TRUE(x.check());
    const auto read = x.as_strings().value();
    EXPECT_TRUE(std::ranges::equal(read, texts));
}

TEST(tensor, says_what_is_wrong_with_its_bytes) {
    const std::array<float, 6> elements{};
    EXPECT_FALSE(tensor::view<float>("x", {2, 4}, elements).check());
    EXPECT_FALSE(tensor::view<float>("x", {-2, -3}, elements).check());
    EXPECT_FALSE(tensor::view<float>("x", {std::int64_t{1} << 62, std::int64_t{1} << 62}, elements).check());
    EXPECT_FALSE(tensor::view<float>("x", std::vector<std::int64_t>(33, 1), elements).check());
    const std::array<std::uint8_t, 2> truths{1, 2};
    auto judged = tensor::view<std::uint8_t>("x", {2}, truths);
    judged.datatype = datatype::boolean;
    EXPECT_FALSE(judged.check());
    judged.datatype = datatype::bytes;
    EXPECT_FALSE(judged.check());
    judged.datatype = static_cast<datatype>(99);
    EXPECT_FALSE(judged.check());
    EXPECT_TRUE(tensor::view<float>("x", {0, std::int64_t{1} << 62, 5}, {}).check());
}

TEST(float16, rounds_to_the_nearest_and_ties_to_even) {
    EXPECT_EQ(float16(1.0F).bits, 0x3C00);
    EXPECT_EQ(float16(-2.0F).bits, 0xC000);
    EXPECT_EQ(float16(65504.0F).bits, 0x7BFF);
    EXPECT_EQ(float16(65519.99F).bits, 0x7BFF);
    EXPECT_EQ(float16(65520.0F).bits, 0x7C00);
    EXPECT_EQ(float16(0x1p-24F).bits, 0x0001);
    EXPECT_EQ(float16(0x1p-25F).bits, 0x0000);
    EXPECT_EQ(float16(0x1.8p-25F).bits, 0x0001);
    EXPECT_EQ(float16(1.0F + 0x1p-11F).bits, 0x3C00);
    EXPECT_EQ(float16(1.0F + 0x1.8p-10F).bits, 0x3C02);
    EXPECT_TRUE(std::isnan(static_cast<float>(float16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(float16, of_every_bits_is_read_and_written_back) {
    for (unsigned bits = 0; bits < 0x10000; ++bits) {
        float16 half;
        half.bits = static_cast<std::uint16_t>(bits);
        const auto wide = static_cast<float>(half);
        if (std::isnan(wide)) continue;
        ASSERT_EQ(float16(wide).bits, bits);
    }
}

TEST(bfloat16, rounds_to_the_nearest_and_ties_to_even) {
    EXPECT_EQ(bfloat16(1.0F).bits, 0x3F80);
    EXPECT_EQ(bfloat16(1.0F + 0x1p-8F).bits, 0x3F80);
    EXPECT_EQ(bfloat16(1.0F + 0x1.8p-7F).bits, 0x3F82);
    EXPECT_EQ(bfloat16(std::numeric_limits<float>::max()).bits, 0x7F80);
    EXPECT_TRUE(std::isnan(static_cast<float>(bfloat16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(utf8, is_told_from_what_looks_like_it) {
    EXPECT_TRUE(detail::is_utf8("aü€𝄞"));
    for (const char* bad :
         {"\x80", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE2\x82", "\xFF"}) {
        EXPECT_FALSE(detail::is_utf8(bad)) << bad;
    }
}

}  // namespace
}  // namespace kingpole
