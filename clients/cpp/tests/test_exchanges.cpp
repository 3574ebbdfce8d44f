#include <gtest/gtest.h>
#include <thread>

#include "exchanges.hpp"
#include "kingpole_generated.h"

namespace kingpole::detail {
namespace {

using std::chrono::milliseconds;

received_frame framed(wire::Message kind,
                      const std::function<flatbuffers::Offset<void>(flatbuffers::FlatBufferBuilder&)>& make,
                      std::uint64_t exchange) {
    flatbuffers::FlatBufferBuilder builder;
    const auto message = make(builder);
    builder.Finish(wire::CreateHeader(builder, kind, message, exchange));
    const auto frame =
        join_frame(std::as_bytes(std::span(builder.GetBufferPointer(), builder.GetSize())), {}).value();
    const auto memory = allocate_aligned(frame.head.size()).value();
    std::ranges::copy(frame.head, memory.bytes().begin());
    return split_frame(memory.bytes(), memory.owner, 1 << 20).value();
}

received_frame response_frame(std::uint64_t exchange, wire::Stage stage = wire::Stage::ONLY) {
    return framed(
        wire::Message::Response,
        [&](auto& to) {
            wire::ResponseBuilder table(to);
            table.add_stage(stage);
            return table.Finish().Union();
        },
        exchange);
}

received_frame credit_frame(std::uint32_t requests, std::uint64_t exchange) {
    return framed(
        wire::Message::Credit, [&](auto& to) { return wire::CreateCredit(to, requests).Union(); }, exchange);
}

deadline soon() { return clock::now() + milliseconds(20); }

bool may_begin(exchanges& all) {
    auto begun = all.begin(true, soon(), {});
    if (begun) return true;
    EXPECT_EQ(begun.error().code, code::deadline_exceeded);
    EXPECT_TRUE(begun.error().unsent);
    return false;
}

TEST(exchanges, allow_one_request_until_the_server_grants_more) {
    exchanges all;
    EXPECT_TRUE(may_begin(all));
    EXPECT_FALSE(may_begin(all));
    ASSERT_TRUE(all.answer(credit_frame(2, 0)));
    EXPECT_TRUE(may_begin(all));
    EXPECT_TRUE(may_begin(all));
    EXPECT_FALSE(may_begin(all));
}

TEST(exchanges, ask_other_questions_without_credit) {
    exchanges all;
    EXPECT_TRUE(may_begin(all));
    EXPECT_TRUE(all.begin(false, soon(), {}));
}

TEST(exchanges, give_credit_back_with_the_last_answer_only) {
    exchanges all;
    const auto begun = all.begin(true, {}, {}).value();
    const auto unwanted = all.answer(response_frame(begun.exchange, wire::Stage::PART)).value();
    EXPECT_EQ(unwanted, begun.exchange) << "of several responses the rest is not wanted";
    EXPECT_EQ(std::get<error>(begun.slot->take({}, {})).code, code::unimplemented);
    EXPECT_FALSE(may_begin(all));
    ASSERT_TRUE(all.answer(response_frame(begun.exchange, wire::Stage::END)));
    EXPECT_TRUE(may_begin(all));
}

TEST(exchanges, that_were_given_up_give_credit_back_once) {
    exchanges all;
    const auto begun = all.begin(true, {}, {}).value();
    EXPECT_TRUE(all.give_up(begun.exchange));
    EXPECT_FALSE(all.give_up(begun.exchange));
    EXPECT_FALSE(may_begin(all));
    ASSERT_TRUE(all.answer(credit_frame(1, begun.exchange)));
    ASSERT_TRUE(all.answer(response_frame(begun.exchange)));
    EXPECT_TRUE(may_begin(all));
    EXPECT_FALSE(may_begin(all));
}

TEST(exchanges, take_no_credit_from_answers_to_nobody) {
    exchanges all;
    EXPECT_TRUE(may_begin(all));
    for (int turn = 0; turn < 10; ++turn) ASSERT_TRUE(all.answer(response_frame(999)));
    EXPECT_FALSE(may_begin(all));
}

TEST(exchanges, fail_all_at_once_when_the_stream_ends) {
    exchanges all;
    const auto begun = all.begin(true, {}, {}).value();
    std::thread waiter([&] { EXPECT_EQ(all.begin(true, {}, {}).error().code, code::unavailable); });
    all.fail({.code = code::unavailable, .message = "gone"});
    waiter.join();
    EXPECT_EQ(std::get<error>(begun.slot->take({}, {})).message, "gone");
    EXPECT_TRUE(all.failed());
}

TEST(exchanges, end_the_stream_for_an_error_that_belongs_to_nobody) {
    exchanges all;
    const auto ended = all.answer(framed(
        wire::Message::Error, [](auto& to) { return wire::CreateErrorDirect(to, 13, "no").Union(); }, 0));
    EXPECT_EQ(ended.error().code, code::internal);
}

TEST(exchanges, wait_for_credit_until_a_stop_comes) {
    exchanges all;
    EXPECT_TRUE(may_begin(all));
    std::stop_source stop;
    std::jthread stopper([&] { stop.request_stop(); });
    EXPECT_EQ(all.begin(true, {}, stop.get_token()).error().code, code::cancelled);
}

TEST(slot, is_filled_once_by_whoever_is_first) {
    slot one;
    int calls = 0;
    one.then([&] { ++calls; });
    one.resolve(readiness{true});
    one.resolve(done{});
    EXPECT_EQ(calls, 1);
    EXPECT_TRUE(std::get<readiness>(one.take({}, {})).ready);
    EXPECT_EQ(std::get<error>(one.take({}, {})).code, code::invalid_argument) << "taken twice";
}

TEST(slot, gives_the_question_up_when_its_time_has_passed) {
    slot one;
    bool given_up = false;
    one.set_give_up([&] { given_up = true; });
    EXPECT_EQ(std::get<error>(one.take(soon(), {})).code, code::deadline_exceeded);
    EXPECT_TRUE(given_up);
}

TEST(slot, holds_up_who_gives_up_until_its_tensors_are_released) {
    slot one;
    ASSERT_TRUE(one.hold());
    std::atomic<bool> released = false;
    std::jthread sender([&] {
        std::this_thread::sleep_for(milliseconds(20));
        released = true;
        one.release();
    });
    EXPECT_EQ(std::get<error>(one.take(soon(), {})).code, code::deadline_exceeded);
    EXPECT_TRUE(released);
    EXPECT_FALSE(one.hold());
}

}  // namespace
}  // namespace kingpole::detail
