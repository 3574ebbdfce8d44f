#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "arena.hpp"

namespace kingpole::detail {
namespace {

TEST(arena, is_sealed_and_has_whole_pages) {
    const auto memory = arena::make(5000).value();
    EXPECT_EQ(memory->size() % 4096, 0U);
    EXPECT_EQ(::fcntl(memory->descriptor(), F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    EXPECT_NE(::ftruncate(memory->descriptor(), 0), 0);
}

TEST(arena, lends_ranges_that_are_free_again_when_their_last_owner_is_gone) {
    const auto memory = arena::make(8192).value();
    auto first = memory->take(4096);
    auto second = memory->take(4000);
    ASSERT_TRUE(first && second);
    EXPECT_EQ(second->offset % frame_alignment, 0U);
    EXPECT_FALSE(memory->take(4096));
    const auto copy = first->owner;
    first.reset();
    EXPECT_FALSE(memory->take(4096));
    const_cast<std::shared_ptr<void>&>(copy).reset();
    EXPECT_EQ(memory->take(4096)->offset, 0U);
    second.reset();
    EXPECT_TRUE(memory->take(8192));
    EXPECT_FALSE(memory->take(SIZE_MAX));
}

TEST(arena, copies_inputs_that_are_elsewhere_and_finds_those_that_are_in_it) {
    const auto memory = arena::make(1 << 16).value();
    auto inside = memory->take(4096).value();
    const std::vector<std::uint8_t> outside(4096, 7);
    const std::vector<std::uint8_t> small(10, 1);
    request asked{.model = "m"};
    asked.inputs.push_back({.name = "a", .datatype = datatype::uint8, .shape = {4096}, .data = inside.bytes});
    asked.inputs.push_back(tensor::view<std::uint8_t>("b", {4096}, outside));
    asked.inputs.push_back(tensor::view<std::uint8_t>("c", {10}, small));
    const auto placed = memory->place(asked);
    EXPECT_EQ(placed.inputs.at(0), inside.offset);
    EXPECT_NE(placed.inputs.at(1), inside.offset);
    EXPECT_FALSE(placed.inputs.contains(2));
    EXPECT_TRUE(placed.outputs.empty());
}

TEST(arena, reserves_room_for_outputs_as_large_as_the_last_ones) {
    const auto memory = arena::make(1 << 16).value();
    const request asked{.model = "m"};
    response answered;
    answered.outputs.push_back(tensor::own<float>("y", {2000}, std::vector<float>(2000)));
    answered.outputs.push_back(tensor::own<float>("z", {1}, {1}));
    memory->place(asked).learn(&answered);
    const auto placed = memory->place(asked);
    ASSERT_EQ(placed.outputs.size(), 2U);
    const auto& where = placed.outputs[0].where.value();
    EXPECT_EQ(where.bytes.size(), 8000U);
    EXPECT_FALSE(placed.outputs[1].where);
    EXPECT_TRUE(placed.find(arena::number, where.offset, 8000));
    EXPECT_FALSE(placed.find(arena::number, where.offset, 8001));
    EXPECT_FALSE(placed.find(arena::number, where.offset + 64, 8));
    EXPECT_FALSE(placed.find(1, where.offset, 8));
    placed.learn(nullptr);
    EXPECT_TRUE(memory->place(asked).outputs.empty());
}

}  // namespace
}  // namespace kingpole::detail
