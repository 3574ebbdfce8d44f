// Cases about what goes wrong: time that runs out, callers that give up, servers that die or lie.
#include <fstream>
#include <iostream>
#include <thread>

#include "cases.hpp"

namespace kingpole::conformance {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

request sleeping(double for_seconds) {
    return {.model = "sleeps", .inputs = {x()}, .parameters = {{"seconds", for_seconds}}};
}

std::uint64_t resident_bytes() {
    std::ifstream file("/proc/self/statm");
    std::uint64_t total = 0;
    std::uint64_t resident = 0;
    file >> total >> resident;
    return resident * 4096;
}

std::string text(steady_clock::duration time) {
    return std::to_string(std::chrono::duration_cast<milliseconds>(time).count()) + " ms";
}

}  // namespace

void deadline(const situation& at) {
    auto client = connect(at.url);
    auto asked = sleeping(5);
    asked.timeout = milliseconds(300);
    const auto begun = steady_clock::now();
    bad(client.infer(asked), code::deadline_exceeded, "", "sleeps");
    const auto took = steady_clock::now() - begun;
    expect_that(took >= milliseconds(250) && took <= seconds(2), "expected 0.25 to 2 s, took " + text(took));
    expect_echo(client);
}

void cancel(const situation& at) {
    auto client = connect(at.url);
    std::stop_source stop;
    std::jthread giver([&] {
        std::this_thread::sleep_for(milliseconds(200));
        stop.request_stop();
    });
    const auto begun = steady_clock::now();
    bad(client.infer(sleeping(30), stop.get_token()), code::cancelled, "", "sleeps");
    const auto took = steady_clock::now() - begun;
    expect_that(took >= milliseconds(190) && took <= seconds(2), "expected 0.2 to 2 s, took " + text(took));
    expect_echo(client);
    wait_for_file(at.extra, seconds(5));
}

void killed(const situation& at) {
    auto client = connect(at.url);
    expect_echo(client);
    const auto asked = sleeping(60);
    auto waiting = good(client.submit(asked), "submit");
    // Over HTTP another thread sends it.
    std::this_thread::sleep_for(milliseconds(300));
    std::cout << "waiting" << std::endl;
    bad(waiting.get(), code::unavailable, "", "sleeps");
    std::cout << "lost" << std::endl;
    const auto until = steady_clock::now() + seconds(20);
    while (true) {
        const auto answered = client.infer({.model = "echo-fp32", .inputs = {x()}, .timeout = seconds(2)});
        if (answered) return;
        expect_that(steady_clock::now() < until, "20 s later: " + answered.error().text());
        std::this_thread::sleep_for(milliseconds(100));
    }
}

void hostile(const situation& at) {
    auto client = connect(at.url, {.max_frame_bytes = std::uint64_t{16} << 20});
    const std::uint64_t before = resident_bytes();
    for (int turn = 0; turn < 50; ++turn) {
        const auto begun = steady_clock::now();
        const auto answered = client.infer({.model = "echo-fp32", .inputs = {x()}, .timeout = seconds(5)});
        const auto took = steady_clock::now() - begun;
        const std::string which = "request " + std::to_string(turn);
        expect_that(!answered, which + " was answered");
        expect_that(took < seconds(10), which + " took " + text(took));
        const std::uint64_t now = resident_bytes();
        expect_that(now < before + (std::uint64_t{64} << 20),
                    which + ": memory grew from " + std::to_string(before) + " to " + std::to_string(now) +
                        " after " + answered.error().text());
    }
}

}  // namespace kingpole::conformance
