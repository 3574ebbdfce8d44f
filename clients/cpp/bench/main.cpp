// bench URL: CPU and latency of one request at a time. One JSON object a line: see
// protocol/conformance/README.md.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <sys/resource.h>

#include <kingpole/grpc.hpp>
#include <kingpole/kingpole.hpp>

#include "contender.hpp"

namespace kingpole::bench {

namespace {

constexpr int blocks = 5;

double cpu_us() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto us = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_usec);
    };
    return us(usage.ru_utime) + us(usage.ru_stime);
}

struct measured {
    double cpu_us = 0;
    std::vector<double> latencies_us = {};
};

void measure(const ask& ask, int requests, measured& into) {
    const double before = cpu_us();
    for (int turn = 0; turn < requests; ++turn) {
        const auto begun = std::chrono::steady_clock::now();
        ask();
        const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begun;
        into.latencies_us.push_back(took.count());
    }
    into.cpu_us += cpu_us() - before;
}

double quantile(std::vector<double>& values, double share) {
    std::ranges::sort(values);
    return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
}

contender ours(const std::string& url) {
    auto client = std::make_shared<kingpole::client>(grpc::connect(url).value());
    return {"kingpole", [client](std::size_t count) -> ask {
                const auto columns = static_cast<std::int64_t>(count);
                request request{.model = "echo-fp32",
                                .inputs = {tensor::own<float>("x", {1, columns}, values_of(count))}};
                return [client, request, count] {
                    const auto answered = client->infer(request).value();
                    if (answered.as<float>("x").value().size() != count)
                        throw std::runtime_error("another answer");
                };
            }};
}

void run(const std::string& url) {
    const bool is_grpc = url.starts_with("grpc://");
    std::vector<contender> contenders{ours(url)};
    if (is_grpc) {
        contenders.push_back(stubs(url.substr(7)));
        contenders.push_back(floor_over_grpc(url));
    } else {
        contenders.push_back(stubs(url.substr(7)));
        contenders.push_back(floor_over_http(url));
        contenders.push_back(libcurl(url));
    }
    for (const auto& [count, requests] :
         {std::pair{4, 2000}, {1'000, 2000}, {250'000, 200}, {2'500'000, 40}}) {
        std::vector<ask> asks;
        std::vector<measured> results(contenders.size());
        for (const auto& contender : contenders) {
            asks.push_back(contender.prepare(static_cast<std::size_t>(count)));
            for (int turn = 0; turn < std::max(5, requests / 20); ++turn) asks.back()();
        }
        for (int block = 0; block < blocks; ++block) {
            for (std::size_t each = 0; each < asks.size(); ++each)
                measure(asks[each], requests / blocks, results[each]);
        }
        for (std::size_t each = 0; each < asks.size(); ++each) {
            std::printf(
                R"({"contender": "%s", "bytes": %d, "requests": %d, "cpu_us": %.1f, "p50_us": %.1f, "p99_us": %.1f})"
                "\n",
                contenders[each].name.c_str(), count * 4, requests, results[each].cpu_us / requests,
                quantile(results[each].latencies_us, 0.5), quantile(results[each].latencies_us, 0.99));
        }
        std::fflush(stdout);
    }
}

}  // namespace

}  // namespace kingpole::bench

int main(int count, char** arguments) {
    const std::string url = count == 2 ? arguments[1] : "";
    if (!url.starts_with("http://") && !url.starts_with("grpc://")) {
        std::cerr << "bench http://host:port | grpc://host:port\n";
        return 2;
    }
    try {
        kingpole::bench::run(url);
        return 0;
    } catch (const std::exception& failure) {
        std::cerr << failure.what() << "\n";
        return 1;
    }
}
