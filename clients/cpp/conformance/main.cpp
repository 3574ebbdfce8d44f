// conformance transports | CASE URL [EXTRA] | encode DIRECTORY OUT
#include <filesystem>
#include <iostream>
#include <map>
#include <thread>

#ifdef KINGPOLE_WITH_GRPC
#include <kingpole/grpc.hpp>
#endif

#include "cases.hpp"

namespace kingpole::conformance {

client connect(const std::string& url, options options) {
#ifdef KINGPOLE_WITH_GRPC
    return good(grpc::connect(url, std::move(options)), "connect");
#else
    return good(client::connect(url, std::move(options)), "connect");
#endif
}

std::string transport_of(const std::string& url) {
    std::string scheme = url.substr(0, url.find(':'));
    if (scheme.ends_with('s') && scheme != "https") scheme.pop_back();
    return scheme == "https" ? "http" : scheme;
}

tensor x(std::vector<float> values) {
    const auto columns = static_cast<std::int64_t>(values.size());
    return tensor::own<float>("x", {1, columns}, std::move(values));
}

void expect_echo(client& client, std::vector<float> values) {
    const tensor input = x(std::move(values));
    const auto answered = good(client.infer({.model = "echo-fp32", .inputs = {input}}), "echo-fp32");
    const auto* output = answered.find("x");
    expect_that(output != nullptr && std::ranges::equal(output->data, input.data),
                "echo-fp32 gave back other bytes");
}

void wait_for_file(const std::string& path, std::chrono::seconds limit) {
    if (path.empty()) return;
    const auto until = std::chrono::steady_clock::now() + limit;
    while (!std::filesystem::exists(path)) {
        expect_that(std::chrono::steady_clock::now() < until,
                    "nothing heard of it: " + path + " is not there");
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
}

}  // namespace kingpole::conformance

namespace {

using kingpole::conformance::situation;

const std::map<std::string, void (*)(const situation&)>& cases() {
    namespace each = kingpole::conformance;
    static const std::map<std::string, void (*)(const situation&)> all{
        {"server", each::server},
        {"datatypes", each::datatypes},
        {"shapes", each::shapes},
        {"parameters", each::parameters_case},
        {"errors", each::errors},
        {"deadline", each::deadline},
        {"cancel", each::cancel},
        {"stream", each::stream},
        {"sequence", each::sequence_case},
        {"pipeline", each::pipeline},
        {"large", each::large},
        {"killed", each::killed},
        {"hostile", each::hostile},
        {"open-inference", each::open_inference},
        {"tls", each::tls},
        {"token", each::token},
        {"shared-memory", each::shared_memory}};
    return all;
}

int run(const std::string& name, const situation& situation) {
    const auto found = cases().find(name);
    if (found == cases().end()) {
        std::cout << "there is no case '" << name << "'\n";
        return 2;
    }
    try {
        found->second(situation);
        return 0;
    } catch (const kingpole::conformance::not_applicable& reason) {
        std::cout << reason.what() << "\n";
        return 77;
    } catch (const std::exception& reason) {
        std::cout << reason.what() << "\n";
        return 1;
    }
}

}  // namespace

int main(int count, char** values) {
    const std::vector<std::string> arguments(values + 1, values + count);
    if (arguments.size() == 1 && arguments[0] == "transports") {
#ifdef KINGPOLE_WITH_GRPC
        std::cout << "http grpc frame unix\n";
#else
        std::cout << "http frame unix\n";
#endif
        return 0;
    }
    if (arguments.size() == 3 && arguments[0] == "encode") {
        return kingpole::conformance::encode_vectors(arguments[1], arguments[2]);
    }
    if (arguments.size() == 2 || arguments.size() == 3) {
        return run(arguments[0], {arguments[1], arguments.size() == 3 ? arguments[2] : ""});
    }
    std::cerr << "conformance transports | CASE URL [EXTRA] | encode DIRECTORY OUT\n";
    return 2;
}
