// Against the real server, over every transport: runs if KINGPOLE says its command.
#include <chrono>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <future>
#include <gtest/gtest.h>
#include <memory>
#include <regex>
#include <signal.h>
#include <sstream>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#ifdef KINGPOLE_WITH_GRPC
#include <kingpole/grpc.hpp>
#endif
#include <kingpole/kingpole.hpp>

namespace kingpole {
namespace {

namespace fs = std::filesystem;

constexpr const char* echo_model = R"(
INPUTS = [("x", "FP32", [-1, -1])]
OUTPUTS = [("x", "FP32", [-1, -1])]

def infer(x):
    return x
)";
constexpr const char* slow_model = R"(
import time

INPUTS = [("x", "FP32", [-1, -1])]
OUTPUTS = [("x", "FP32", [-1, -1])]

def infer(x):
    if x.any():
        time.sleep(10)
    return x
)";

/// The server of two models, in a folder of its own, until it is destroyed.
class real_server {
  public:
    explicit real_server(const std::string& command) : directory_(make_directory()) {
        write("models/echo/1/model.py", echo_model);
        write("models/slow/1/model.py", slow_model);
        const std::string log = directory_ / "log";
        const std::string line = "exec " + command + " serve " + (directory_ / "models").string() +
                                 " --listen 127.0.0.1:0 --listen unix:" + (directory_ / "s").string() +
                                 " --management off";
        process_ = ::fork();
        if (process_ == 0) {
            const int to = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
            ::dup2(to, STDERR_FILENO);
            ::dup2(to, STDOUT_FILENO);
            ::execl("/bin/sh", "sh", "-c", line.c_str(), static_cast<char*>(nullptr));
            ::_exit(127);
        }
        for (int turn = 0; turn < 1200; ++turn) {
            const std::string said = read(log);
            if (said.find("\nready,") != std::string::npos || said.starts_with("ready,")) {
                std::smatch found;
                std::regex_search(said, found, std::regex(R"(listens on https?://([\d.]+:\d+))"));
                authority_ = found[1];
                return;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        }
        ADD_FAILURE() << "the server did not become ready: " << read(log);
    }
    ~real_server() {
        ::kill(process_, SIGTERM);
        ::waitpid(process_, nullptr, 0);
        fs::remove_all(directory_);
    }
    real_server(const real_server&) = delete;
    real_server& operator=(const real_server&) = delete;

    [[nodiscard]] std::string url(const std::string& transport) const {
        return transport == "unix" ? "unix:" + (directory_ / "s").string() : transport + "://" + authority_;
    }

  private:
    static fs::path make_directory() {
        std::string path = fs::temp_directory_path() / "kingpole-XXXXXX";
        return ::mkdtemp(path.data());
    }
    void write(const std::string& path, const char* text) const {
        fs::create_directories((directory_ / path).parent_path());
        std::ofstream(directory_ / path) << text;
    }
    static std::string read(const std::string& path) {
        std::ostringstream text;
        text << std::ifstream(path).rdbuf();
        return text.str();
    }

    fs::path directory_;
    pid_t process_ = -1;
    std::string authority_;
};

class every_transport : public testing::TestWithParam<std::string> {
  protected:
    static void SetUpTestSuite() {
        if (const char* command = std::getenv("KINGPOLE")) server_ = std::make_unique<real_server>(command);
    }
    static void TearDownTestSuite() { server_.reset(); }
    void SetUp() override {
        if (!server_) GTEST_SKIP() << "KINGPOLE does not say the server's command";
    }
    static client connect(options options = {}) {
#ifdef KINGPOLE_WITH_GRPC
        return grpc::connect(server_->url(GetParam()), std::move(options)).value();
#else
        return client::connect(server_->url(GetParam()), std::move(options)).value();
#endif
    }
    static request asked(const std::string& model, std::vector<float> values) {
        const auto columns = static_cast<std::int64_t>(values.size());
        return {.model = model, .inputs = {tensor::own<float>("x", {1, columns}, std::move(values))}};
    }

    static std::unique_ptr<real_server> server_;
};
std::unique_ptr<real_server> every_transport::server_;

TEST_P(every_transport, gives_answers_that_stay_when_the_client_is_gone) {
    std::optional<response> kept;
    {
        auto client = connect();
        kept = client.infer(asked("echo", {1, 2, 3})).value();
    }
    EXPECT_EQ(kept->as<float>("x").value()[2], 3);
}

TEST_P(every_transport, sends_what_the_caller_keeps_and_large_tensors) {
    auto client = connect();
    const std::vector<float> elements(1'000'000, 0.25F);
    const request large{.model = "echo", .inputs = {tensor::view<float>("x", {1000, 1000}, elements)}};
    const auto given = client.infer(large).value();
    EXPECT_TRUE(std::ranges::equal(given.as<float>("x").value(), elements));
}

TEST_P(every_transport, answers_what_was_submitted_in_any_order_and_calls_back) {
    auto client = connect();
    auto slow = client.submit(asked("slow", {0})).value();
    std::promise<void> told;
    auto quick = client.submit(asked("echo", {5})).value();
    quick.then([&] { told.set_value(); });
    told.get_future().wait();
    EXPECT_TRUE(quick.done());
    EXPECT_EQ(quick.get().value().as<float>("x").value()[0], 5);
    EXPECT_TRUE(slow.get());
}

TEST_P(every_transport, gives_up_when_told_to_and_goes_on) {
    auto client = connect();
    auto waiting = client.submit(asked("slow", {1})).value();
    waiting.cancel();
    EXPECT_EQ(waiting.get().error().code, code::cancelled);
    EXPECT_TRUE(client.infer(asked("echo", {1})));
}

TEST_P(every_transport, answers_what_waits_when_the_client_is_closed) {
    std::optional<pending> waiting;
    {
        auto client = connect();
        waiting = client.submit(asked("slow", {1})).value();
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    EXPECT_EQ(waiting->get().error().code, code::cancelled);
}

TEST_P(every_transport, is_shared_between_threads) {
    auto client = connect();
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 8; ++thread) {
        threads.emplace_back([&client, thread] {
            for (int turn = 0; turn < 25; ++turn) {
                const auto value = static_cast<float>(thread * 100 + turn);
                const auto given = client.infer(asked("echo", {value}));
                ASSERT_TRUE(given) << given.error().text();
                ASSERT_EQ(given->as<float>("x").value()[0], value);
            }
        });
    }
}

TEST_P(every_transport, goes_on_with_many_after_errors) {
    auto client = connect();
    const std::vector<request> all{asked("echo", {1}), asked("absent", {2}), asked("echo", {3})};
    std::vector<std::string> said;
    client.infer_many(
        all,
        [&](std::size_t index, result<response> answer) {
            said.push_back(std::to_string(index) + (answer ? "" : std::string(name(answer.error().code))));
        },
        2);
    EXPECT_EQ(said, (std::vector<std::string>{"0", "1NOT_FOUND", "2"}));
}

TEST_P(every_transport, shares_memory_over_unix_sockets) {
    if (GetParam() != "unix") GTEST_SKIP() << "memory is shared over Unix sockets only";
    auto client = connect({.shared_memory_bytes = std::size_t{4} << 20});
    for (int turn = 0; turn < 50; ++turn) {
        const std::vector<float> elements(100'000, static_cast<float>(turn));
        const auto given =
            client.infer({.model = "echo", .inputs = {tensor::view<float>("x", {100, 1000}, elements)}});
        ASSERT_TRUE(given) << given.error().text();
        ASSERT_TRUE(std::ranges::equal(given->as<float>("x").value(), elements));
    }
    EXPECT_EQ(client.allocate(std::size_t{8} << 20).error().code, code::resource_exhausted);
}

#ifdef KINGPOLE_WITH_GRPC
INSTANTIATE_TEST_SUITE_P(over, every_transport, testing::Values("http", "frame", "unix", "grpc"),
                         [](const auto& over) { return over.param; });
#else
INSTANTIATE_TEST_SUITE_P(over, every_transport, testing::Values("http", "frame", "unix"),
                         [](const auto& over) { return over.param; });
#endif

}  // namespace
}  // namespace kingpole
