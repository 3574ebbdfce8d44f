// The values of golden vectors, as JSON, to and from requests and responses. For tests and the conformance
// program.
#pragma once

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <kingpole/response.hpp>

namespace kingpole::vectors {

using nlohmann::json;

inline std::vector<std::byte> from_hex(const std::string& hex) {
    std::vector<std::byte> bytes;
    for (std::size_t at = 0; at + 1 < hex.size(); at += 2) {
        bytes.push_back(static_cast<std::byte>(std::stoi(hex.substr(at, 2), nullptr, 16)));
    }
    return bytes;
}

inline std::string to_hex(std::span<const std::byte> bytes) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string hex;
    for (const std::byte each : bytes) {
        hex += digits[std::to_integer<unsigned>(each) >> 4];
        hex += digits[std::to_integer<unsigned>(each) & 15];
    }
    return hex;
}

inline json read_json(const std::filesystem::path& path) {
    std::ifstream file(path);
    return json::parse(file);
}

inline std::string kind_of(const parameter& value) {
    constexpr std::array<const char*, 5> kinds{"bool", "int64", "uint64", "double", "string"};
    return kinds.at(value.index());
}

inline json describe(const parameters& parameters) {
    json list = json::array();
    for (const auto& [name, value] : parameters) {
        const json plain = std::visit([](const auto& each) { return json(each); }, value);
        list.push_back({{"name", name}, {"kind", kind_of(value)}, {"value", plain}});
    }
    return list;
}

inline json describe(const std::vector<tensor>& tensors) {
    json list = json::array();
    for (const auto& each : tensors) {
        list.push_back({{"name", each.name},
                        {"datatype", name(each.datatype)},
                        {"shape", each.shape},
                        {"data_hex", to_hex(each.data)}});
    }
    return list;
}

template <class T>
json or_null(const std::optional<T>& value) {
    return value ? json(*value) : json();
}

inline json describe(const response& response) {
    json described{{"model", response.model},
                   {"version", response.version},
                   {"id", or_null(response.id)},
                   {"outputs", describe(response.outputs)},
                   {"parameters", describe(response.parameters)}};
    if (response.stage == stage::part) described["stage"] = "part";
    if (response.stage == stage::end) described["stage"] = "end";
    return described;
}

inline parameter parameter_of(const json& from) {
    const std::string kind = from["kind"];
    if (kind == "bool") return from["value"].get<bool>();
    if (kind == "int64") return from["value"].get<std::int64_t>();
    if (kind == "uint64") return from["value"].get<std::uint64_t>();
    if (kind == "double") return from["value"].get<double>();
    return from["value"].get<std::string>();
}

inline tensor tensor_of(const json& from) {
    auto bytes = std::make_shared<std::vector<std::byte>>(from_hex(from["data_hex"]));
    tensor to{.name = from["name"],
              .datatype = datatype_named(from["datatype"].get<std::string>()).value(),
              .shape = from["shape"]};
    to.data = *bytes;
    to.owner = std::move(bytes);
    return to;
}

/// Make the request that a vector's value describes; parameters of outputs are not asked for by this client.
inline request request_of(const json& from) {
    request to{.model = from["model"]};
    if (!from["version"].is_null()) to.version = from["version"];
    if (!from["id"].is_null()) to.id = from["id"];
    if (!from["timeout_us"].is_null())
        to.timeout = std::chrono::microseconds(from["timeout_us"].get<std::int64_t>());
    to.priority = from["priority"];
    for (const auto& each : from["inputs"]) to.inputs.push_back(tensor_of(each));
    for (const auto& each : from["outputs"]) to.outputs.push_back(each["name"]);
    for (const auto& each : from["parameters"]) to.parameters.emplace(each["name"], parameter_of(each));
    if (from.contains("sequence")) {
        const json& said = from["sequence"];
        sequence sequence{{}, said["start"], said["end"]};
        if (said["id"].is_string()) {
            sequence.id = said["id"].get<std::string>();
        } else {
            sequence.id = said["id"].get<std::uint64_t>();
        }
        to.sequence = sequence;
    }
    return to;
}

}  // namespace kingpole::vectors
