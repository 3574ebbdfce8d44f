// HTTP as servers say it, well and badly, and the fallback to Open Inference.
#include <gtest/gtest.h>
#include <thread>

#include <kingpole/client.hpp>

#include "http_server.hpp"

namespace kingpole {
namespace {

using testing_server::scripted_server;
using answers = std::vector<scripted_server::answer>;

request asked() { return {.model = "m", .inputs = {tensor::own<float>("x", {1, 2}, {1, 2})}}; }

std::string http(const std::string& status, const std::string& body, const std::string& headers = {}) {
    return "HTTP/1.1 " + status + "\r\nContent-Type: application/json\r\n" + headers +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

client made(const scripted_server& server) {
    return client::connect(server.url(), {.timeout = std::chrono::seconds(2), .max_frame_bytes = 1 << 20})
        .value();
}

TEST(http, asks_in_open_inference_where_a_frame_is_refused_and_remembers_that) {
    const std::string json = R"({"model_name":"m","model_version":"3","outputs":[)"
                             R"({"name":"y","datatype":"FP32","shape":[1,2],"data":[[0.5,-1]]}]})";
    scripted_server server(
        answers{{http("404 Not Found", R"({"detail":"Not Found"})"), false},
                {http("200 OK", R"({"name":"other","version":"1","extensions":[]})"), false},
                {http("200 OK", json), false},
                {http("200 OK", json), false}});
    auto client = made(server);
    for (int turn = 0; turn < 2; ++turn) {
        const auto given = client.infer(asked());
        ASSERT_TRUE(given) << given.error().text();
        EXPECT_EQ(given->version, "3");
        EXPECT_EQ((*given->as<float>("y"))[1], -1);
    }
    const auto requests = server.requests();
    ASSERT_EQ(requests.size(), 4U);
    EXPECT_TRUE(requests[0].starts_with("POST /v1/infer "));
    EXPECT_TRUE(requests[1].starts_with("GET /v2 "));
    EXPECT_TRUE(requests[2].starts_with("POST /v2/models/m/infer "));
    EXPECT_NE(requests[2].find(R"("data":[1.0,2.0])"), std::string::npos) << requests[2];
    EXPECT_EQ(server.connections(), 1) << "connections are kept";
}

TEST(http, sends_tensors_as_bytes_where_the_server_says_that_it_takes_them) {
    const std::string head = R"({"model_name":"m","outputs":[{"name":"y","datatype":"INT8","shape":[3],)"
                             R"("parameters":{"binary_data_size":3}}]})";
    scripted_server server(answers{
        {http("415 Unsupported Media Type", "{}"), false},
        {http("200 OK", R"({"name":"triton","version":"2","extensions":["binary_tensor_data"]})"), false},
        {http("200 OK", head + "abc",
              "Inference-Header-Content-Length: " + std::to_string(head.size()) + "\r\n"),
         false}});
    auto client = made(server);
    const auto given = client.infer(asked());
    ASSERT_TRUE(given) << given.error().text();
    EXPECT_EQ((*given->as<std::int8_t>("y"))[2], 'c');
    EXPECT_NE(server.requests()[2].find(R"("binary_data_size":8)"), std::string::npos);
}

TEST(http, gives_the_servers_words_and_code) {
    scripted_server server(
        answers{{http("429 Too Many Requests", R"({"error":"the queue is full"})", "Retry-After: 2\r\n")}});
    const auto refused = made(server).infer(asked());
    EXPECT_EQ(refused.error().code, code::resource_exhausted);
    EXPECT_EQ(refused.error().message, "the queue is full");
    EXPECT_EQ(refused.error().retry_after_ms, 2000U);
}

TEST(http, that_is_none_ends_in_an_error) {
    const std::vector<std::string> bad{
        "",
        "\x16\x03\x01",
        "HTTP/1.1 banana\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc",
        "HTTP/1.1 200 OK\r\nX: " + std::string(100'000, 'x'),
        http("200 OK", "[[[[["),
        http("500 Oh", std::string(100'000, '['))};
    answers all;
    for (const auto& each : bad) all.push_back({each});
    scripted_server server(all);
    auto client = made(server);
    for (const auto& each : bad) {
        const auto answered = client.infer(asked());
        EXPECT_FALSE(answered) << each.substr(0, 80);
    }
}

TEST(http, is_given_up_when_a_stop_comes) {
    scripted_server server(answers{{"", false}, {"", false}});
    auto client = made(server);
    std::stop_source stop;
    std::jthread giver([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        stop.request_stop();
    });
    EXPECT_EQ(client.infer(asked(), stop.get_token()).error().code, code::cancelled);
}

TEST(http, waits_no_longer_than_the_timeout) {
    scripted_server server(answers{{"", false}, {"", false}});
    auto late = asked();
    late.timeout = std::chrono::milliseconds(50);
    EXPECT_EQ(made(server).infer(late).error().code, code::deadline_exceeded);
}

TEST(retries, are_made_only_where_nothing_has_run) {
    const std::string good = R"({"model_name":"m","outputs":[]})";
    scripted_server server(
        answers{{http("404 Not Found", "{}"), false},
                {http("200 OK", R"({"name":"other","version":"1"})"), false},
                {http("429 Too Many Requests", "{}", "Retry-After: 1\r\n"), false},
                {http("200 OK", good), false},
                {http("503 Service Unavailable", R"({"error":"a worker went away"})"), false}});
    auto client =
        client::connect(server.url(), {.timeout = std::chrono::seconds(5), .retry = {.attempts = 3}}).value();
    EXPECT_TRUE(client.infer(asked())) << "refused before it was queued: asked again";
    EXPECT_EQ(client.infer(asked()).error().code, code::unavailable) << "it may have run: not asked again";
    EXPECT_EQ(server.requests().size(), 5U);
}

TEST(retries, are_off_unless_asked_for) {
    auto client = client::connect("http://127.0.0.1:1").value();
    const auto refused = client.infer(asked());
    EXPECT_EQ(refused.error().code, code::unavailable);
    EXPECT_TRUE(refused.error().unsent);
}

TEST(requests, that_make_no_sense_are_refused_before_anything_is_sent) {
    auto client = client::connect("http://127.0.0.1:1").value();
    auto wrong = asked();
    wrong.inputs[0].shape = {3};
    EXPECT_EQ(client.infer(wrong).error().code, code::invalid_argument);
    wrong = asked();
    wrong.timeout = std::chrono::microseconds(0);
    EXPECT_EQ(client.infer(wrong).error().code, code::invalid_argument);
    wrong = asked();
    wrong.sequence = sequence{std::uint64_t{0}};
    EXPECT_EQ(client.infer(wrong).error().code, code::invalid_argument);
    wrong = asked();
    wrong.model = "\xff";
    EXPECT_EQ(client.infer(wrong).error().code, code::invalid_argument);
}

}  // namespace
}  // namespace kingpole
