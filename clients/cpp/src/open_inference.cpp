#include "open_inference.hpp"

#include <algorithm>
#include <charconv>

#include "json_tensor.hpp"

namespace kingpole::detail {

namespace {

constexpr std::string_view header_length = "inference-header-content-length";

error nonsense(std::string message) { return {.code = code::internal, .message = std::move(message)}; }

json parameter_to_json(const parameter& value) {
    return std::visit([](const auto& each) { return json(each); }, value);
}

json parameters_of(const infer_question& asked, bool is_binary) {
    const request& request = *asked.asked;
    json parameters = json::object();
    for (const auto& [name, value] : request.parameters) parameters[name] = parameter_to_json(value);
    if (asked.timeout) parameters["timeout"] = asked.timeout->count();
    if (request.priority != 0) parameters["priority"] = request.priority;
    if (request.sequence) {
        std::visit([&](const auto& id) { parameters["sequence_id"] = id; }, request.sequence->id);
        parameters["sequence_start"] = request.sequence->start;
        parameters["sequence_end"] = request.sequence->end;
    }
    if (is_binary && request.outputs.empty()) parameters["binary_data_output"] = true;
    return parameters;
}

result<json> input_to_json(const tensor& input, bool is_binary) {
    json written{{"name", input.name}, {"datatype", name(input.datatype)}, {"shape", input.shape}};
    if (is_binary) {
        written["parameters"] = {{"binary_data_size", input.data.size()}};
        return written;
    }
    auto data = elements_to_json(input);
    if (!data) return data;
    written["data"] = *std::move(data);
    return written;
}

/// Split the body at the end of its JSON.
result<std::size_t> json_bytes(const http_answer& answer) {
    const auto said = answer.head.header(header_length);
    if (said.empty()) return answer.body.size();
    std::size_t length = 0;
    const auto [end, bad] = std::from_chars(said.data(), said.data() + said.size(), length);
    if (bad != std::errc() || end != said.data() + said.size() || length > answer.body.size()) {
        return nonsense(std::string(header_length) + " is '" + std::string(said.substr(0, 40)) +
                        "', the answer has " + std::to_string(answer.body.size()) + " bytes");
    }
    return length;
}

result<tensor> read_output(const json& from, bytes_view& binary, const std::shared_ptr<const void>& owner) {
    tensor output{.name = text_of(from, "name")};
    const auto kind = datatype_named(text_of(from, "datatype"));
    if (!kind) return nonsense("output '" + output.name + "' has an unknown datatype");
    output.datatype = *kind;
    if (!from.contains("shape") || !from["shape"].is_array()) {
        return nonsense("output '" + output.name + "' has no shape");
    }
    for (const json& size : from["shape"]) {
        if (!size.is_number_integer())
            return nonsense("output '" + output.name + "' has a shape of no integers");
        output.shape.push_back(size.get<std::int64_t>());
    }
    const auto parameters = from.find("parameters");
    const bool is_binary =
        parameters != from.end() && parameters->is_object() && parameters->contains("binary_data_size");
    if (is_binary) {
        const json& said = (*parameters)["binary_data_size"];
        const bool fits = said.is_number_unsigned() && said.get<std::uint64_t>() <= binary.size();
        if (!fits)
            return nonsense("output '" + output.name + "': binary_data_size passes the end of the answer");
        const auto nbytes = said.get<std::size_t>();
        output.data = binary.first(nbytes);
        output.owner = owner;
        binary = binary.subspan(nbytes);
    } else {
        const auto data = from.find("data");
        if (data == from.end()) return nonsense("output '" + output.name + "' has no data");
        if (auto read = elements_from_json(*data, output); !read) return std::move(read).error();
    }
    if (auto checked = output.check(); !checked) return as_servers_fault(std::move(checked).error());
    return output;
}

void read_parameters(const json& from, parameters& to) {
    const auto found = from.find("parameters");
    if (found == from.end() || !found->is_object()) return;
    for (const auto& [name, value] : found->items()) {
        if (value.is_boolean()) {
            to.emplace(name, value.get<bool>());
        } else if (value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX) {
            to.emplace(name, value.get<std::uint64_t>());
        } else if (value.is_number_integer()) {
            to.emplace(name, value.get<std::int64_t>());
        } else if (value.is_number()) {
            to.emplace(name, value.get<double>());
        } else if (value.is_string()) {
            to.emplace(name, value.get<std::string>());
        }
    }
}

}  // namespace

bool refuses_frames(const http_answer& answer) {
    const int status = answer.head.status;
    const bool refused = status == 404 || status == 405 || status == 415 || status == 501;
    return refused && !answer.head.header("content-type").starts_with(media_type);
}

bool takes_binary_tensors(const server_info& info) {
    return std::ranges::any_of(info.extensions, [](const std::string& each) {
        return each == "binary_tensor_data" || each == "binary_data";
    });
}

result<posted_request> encode_open_inference(const infer_question& asked, bool is_binary) {
    const request& request = *asked.asked;
    if (request.model.empty()) {
        return error{.code = code::invalid_argument,
                     .message = "this server speaks Open Inference only, where a model must be named"};
    }
    json body = json::object();
    if (request.id) body["id"] = *request.id;
    if (auto parameters = parameters_of(asked, is_binary); !parameters.empty()) {
        body["parameters"] = std::move(parameters);
    }
    body["inputs"] = json::array();
    posted_request posted;
    for (const tensor& input : request.inputs) {
        auto written = input_to_json(input, is_binary);
        if (!written) return std::move(written).error();
        body["inputs"].push_back(*std::move(written));
        if (is_binary && !input.data.empty()) posted.tensors.push_back(input.data);
    }
    for (const auto& name : request.outputs) {
        json output{{"name", name}};
        if (is_binary) output["parameters"] = {{"binary_data", true}};
        body["outputs"].push_back(std::move(output));
    }
    posted.path = model_path(request.model, request.version.value_or("")) + "/infer";
    posted.json = body.dump();
    posted.headers = is_binary
                         ? "Content-Type: application/octet-stream\r\nInference-Header-Content-Length: " +
                               std::to_string(posted.json.size()) + "\r\n"
                         : "Content-Type: application/json\r\n";
    return posted;
}

answer decode_open_inference(const http_answer& answer) {
    if (answer.head.status != 200) return error_of_answer(answer);
    auto length = json_bytes(answer);
    if (!length) return std::move(length).error();
    auto document = parse_json(answer.text(*length), SIZE_MAX);
    if (!document) return std::move(document).error();
    if (!document->is_object()) return nonsense("the server's answer is no object");
    response to;
    to.model = text_of(*document, "model_name");
    to.version = text_of(*document, "model_version");
    if (document->contains("id")) to.id = text_of(*document, "id");
    read_parameters(*document, to.parameters);
    bytes_view binary = answer.body.subspan(*length);
    const auto outputs = document->find("outputs");
    if (outputs != document->end()) {
        if (!outputs->is_array()) return nonsense("the server's outputs are no list");
        for (const json& each : *outputs) {
            if (!each.is_object()) return nonsense("an output of the server's is no object");
            auto output = read_output(each, binary, answer.owner);
            if (!output) return std::move(output).error();
            if (to.find(output->name) != nullptr)
                return nonsense("output '" + output->name + "' is there twice");
            to.outputs.push_back(*std::move(output));
        }
    }
    return to;
}

}  // namespace kingpole::detail
