// Cases about what is asked beside tensors, and what is said of servers, models and errors.
#include <array>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cases.hpp"

namespace kingpole::conformance {

namespace {

std::string text_of(const response& given) {
    const tensor* output = given.find("text");
    expect_that(output != nullptr, "no output text");
    const auto texts = good(output->as_strings(), "text");
    expect_that(texts.size() == 1, "text has " + std::to_string(texts.size()) + " elements");
    return std::string(texts[0]);
}

void expect_values(const response& given, std::size_t position, const std::string& name, float factor) {
    expect_that(given.outputs.size() > position && given.outputs[position].name == name, "no output " + name);
    const auto values = good(given.outputs[position].as<float>(), name);
    expect_that(values.size() == 3 && values[2] == 3 * factor, name + " has other values");
}

std::string read_file(const std::string& path) {
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

}  // namespace

void server(const situation& at) {
    auto client = connect(at.url);
    expect_that(good(client.live(), "live"), "not live");
    expect_that(good(client.ready(), "ready"), "not ready");
    expect_that(good(client.ready("echo-fp32"), "ready(echo-fp32)"), "echo-fp32 is not ready");
    const auto absent = client.ready("absent");
    // Some protocols say no, some that there is none.
    expect_that(absent ? !*absent : absent.error().code == code::not_found,
                "ready(absent) is neither false nor NOT_FOUND");
    const auto info = good(client.server(), "server");
    expect_that(info.name == "kingpole" && !info.version.empty() && !info.extensions.empty(),
                "the server's info is not whole");
    model_metadata_case(client);
}

void model_metadata_case(client& client) {
    const auto metadata = good(client.metadata("echo-fp32"), "metadata");
    const auto is_x = [](const std::vector<tensor_spec>& specs) {
        return specs.size() == 1 && specs[0].name == "x" && specs[0].datatype == datatype::fp32 &&
               specs[0].shape == std::vector<std::int64_t>{-1, -1};
    };
    expect_that(metadata.name == "echo-fp32", "metadata of " + metadata.name);
    expect_that(metadata.versions == std::vector<std::string>{"1"}, "other versions than 1");
    expect_that(is_x(metadata.inputs) && is_x(metadata.outputs),
                "other inputs or outputs than x FP32 [-1, -1]");
    bad(client.metadata("absent"), code::not_found, "absent", "metadata(absent)");
}

void parameters_case(const situation& at) {
    auto client = connect(at.url);
    constexpr std::uint64_t big = (std::uint64_t{1} << 63) + 1;
    request asked{.model = "describe",
                  .inputs = {x()},
                  .version = "1",
                  .id = "request-7",
                  .parameters = {{"flag", true},
                                 {"negative", std::int64_t{-7}},
                                 {"big", big},
                                 {"fraction", 0.25},
                                 {"text", std::string("ünï")}}};
    const auto given = good(client.infer(asked), "describe");
    const auto said = nlohmann::json::parse(text_of(given));
    const nlohmann::json expected{
        {"flag", true}, {"negative", -7}, {"big", big}, {"fraction", 0.25}, {"text", "ünï"}};
    expect_that(said == expected, "expected the parameters " + expected.dump() + ", got " + said.dump());
    expect_that(given.id == "request-7", "the id was not echoed");
    expect_that(given.version == "1" && given.model == "describe", "another version answered");
    const auto one = good(client.infer({.model = "twice", .inputs = {x()}, .outputs = {"b"}}), "twice b");
    expect_that(one.outputs.size() == 1, "more outputs than asked for");
    expect_values(one, 0, "b", 2);
    const auto both =
        good(client.infer({.model = "twice", .inputs = {x()}, .outputs = {"b", "a"}}), "twice b, a");
    expect_values(both, 0, "b", 2);
    expect_values(both, 1, "a", 1);
}

void first_errors(client& client) {
    const auto infer = [&](std::vector<tensor> inputs, std::string model = "echo-fp32") {
        return client.infer({.model = std::move(model), .inputs = std::move(inputs)});
    };
    bad(infer({x()}, "absent"), code::not_found, "absent", "absent");
    bad(infer({tensor::own<std::int64_t>("x", {1, 1}, {1})}), code::invalid_argument, "x", "wrong datatype");
    bad(infer({tensor::own<float>("x", {1, 1, 1}, {1})}), code::invalid_argument, "x", "wrong shape");
    bad(infer({x(), tensor::own<float>("unheard", {1, 1}, {1})}), code::invalid_argument, "unheard",
        "unknown input");
    bad(infer({}), code::invalid_argument, "x", "missing input");
}

void errors(const situation& at) {
    auto client = connect(at.url);
    first_errors(client);
    for (const code each : {code::invalid_argument, code::not_found, code::resource_exhausted,
                            code::failed_precondition, code::unavailable, code::internal}) {
        const std::string said(name(each));
        const request asked{.model = "fails",
                            .inputs = {x()},
                            .parameters = {{"code", said}, {"text", "because of " + said}}};
        bad(client.infer(asked), each, "because of " + said, "fails with " + said);
    }
    expect_echo(client);
}

void open_inference(const situation& at) {
    if (transport_of(at.url) != "http") throw not_applicable("the fallback is for HTTP only");
    datatypes(at);
    shapes(at);
    auto client = connect(at.url);
    expect_that(good(client.ready("echo-fp32"), "ready"), "echo-fp32 is not ready");
    model_metadata_case(client);
    first_errors(client);
    expect_echo(client);
}

void token(const situation& at) {
    if (transport_of(at.url) != "http" && transport_of(at.url) != "grpc") {
        throw not_applicable("a token has no place in bare frames");
    }
    auto client = connect(at.url, {.token = "abc"});
    const auto given = good(client.infer({.model = "describe", .inputs = {x()}}), "describe");
    const auto said = nlohmann::json::parse(text_of(given));
    expect_that(said.value("authorization", "") == "Bearer abc", "the server got " + said.dump());
}

void tls(const situation& at) {
    if (!at.url.starts_with("https:") && !at.url.starts_with("grpcs:")) throw not_applicable("no TLS here");
    auto client = connect(at.url, {.root_certificates = read_file(at.extra)});
    expect_echo(client);
    auto stranger = connect(at.url, {.timeout = std::chrono::seconds(5)});
    const auto refused = stranger.infer({.model = "echo-fp32", .inputs = {x()}});
    const auto why = bad(refused, code::unavailable, "", "without the authority");
    expect_that(why.message.find("certificate") != std::string::npos ||
                    why.message.find("CERTIFICATE") != std::string::npos ||
                    why.message.find("SSL") != std::string::npos ||
                    why.message.find("handshake") != std::string::npos,
                "the error does not say why: " + why.message);
}

}  // namespace kingpole::conformance
