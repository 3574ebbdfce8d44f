// Questions to frames.
#include <cmath>

#include "arena.hpp"
#include "generated/kingpole_generated.h"
#include "messages.hpp"
#include "utf8.hpp"

namespace kingpole::detail {

namespace {

using builder = flatbuffers::FlatBufferBuilder;
template <class T>
using offset = flatbuffers::Offset<T>;
using text_offset = offset<flatbuffers::String>;

constexpr std::size_t most_tensors = 1024;
constexpr std::size_t most_parameters = 256;

error invalid(std::string message) { return {.code = code::invalid_argument, .message = std::move(message)}; }

text_offset text(builder& to, std::string_view text) {
    return text.empty() ? text_offset() : to.CreateString(text.data(), text.size());
}

text_offset optional_text(builder& to, const std::optional<std::string>& words) {
    return words ? text(to, std::string_view(*words)) : text_offset();
}

offset<wire::Tensor> write_tensor(builder& to, const tensor& tensor, std::uint32_t payload,
                                  std::optional<std::size_t> placed) {
    const auto name = text(to, tensor.name);
    const auto shape = to.CreateVector(tensor.shape);
    wire::TensorBuilder table(to);
    table.add_nbytes(tensor.data.size());
    table.add_offset(placed.value_or(0));
    table.add_shape(shape);
    table.add_name(name);
    table.add_payload(placed ? arena::number : payload);
    table.add_location(placed ? wire::Location::SHARED : wire::Location::INLINE);
    table.add_datatype(static_cast<wire::Datatype>(tensor.datatype));
    return table.Finish();
}

offset<wire::RequestedOutput> write_output(builder& to, const std::string& name, const block* where) {
    const auto written = text(to, name);
    wire::RequestedOutputBuilder table(to);
    table.add_name(written);
    if (where != nullptr) {
        table.add_location(wire::Location::SHARED);
        table.add_payload(arena::number);
        table.add_offset(where->offset);
        table.add_nbytes(where->bytes.size());
    }
    return table.Finish();
}

offset<wire::Parameter> write_parameter(builder& to, const std::string& name, const parameter& value) {
    const auto written = text(to, name);
    // An empty text is a value too, unlike an empty name.
    const auto* words = std::get_if<std::string>(&value);
    const auto string = words == nullptr ? text_offset() : to.CreateString(*words);
    wire::ParameterBuilder table(to);
    table.add_name(written);
    if (const auto* truth = std::get_if<bool>(&value)) {
        table.add_kind(wire::ParameterKind::BOOL);
        table.add_bool_value(*truth);
    } else if (const auto* number = std::get_if<std::int64_t>(&value)) {
        table.add_kind(wire::ParameterKind::INT64);
        table.add_int64_value(*number);
    } else if (const auto* count = std::get_if<std::uint64_t>(&value)) {
        table.add_kind(wire::ParameterKind::UINT64);
        table.add_uint64_value(*count);
    } else if (const auto* real = std::get_if<double>(&value)) {
        table.add_kind(wire::ParameterKind::DOUBLE);
        table.add_double_value(*real);
    } else {
        table.add_kind(wire::ParameterKind::STRING);
        table.add_string_value(string);
    }
    return table.Finish();
}

result<outgoing_frame> finish(builder& to, wire::Message kind, offset<void> message, std::uint64_t exchange,
                              std::span<const bytes_view> payloads = {}) {
    offset<flatbuffers::Vector<std::uint64_t>> lengths;
    if (!payloads.empty()) {
        std::vector<std::uint64_t> each;
        each.reserve(payloads.size());
        for (const bytes_view payload : payloads) each.push_back(payload.size());
        lengths = to.CreateVector(each);
    }
    to.Finish(wire::CreateHeader(to, kind, message, exchange, lengths));
    return join_frame(std::as_bytes(std::span(to.GetBufferPointer(), to.GetSize())), payloads);
}

using outputs_offset = offset<flatbuffers::Vector<offset<wire::RequestedOutput>>>;

outputs_offset write_outputs(builder& to, const request& request, const placement* placement) {
    std::vector<offset<wire::RequestedOutput>> outputs;
    if (placement != nullptr && !placement->outputs.empty()) {
        for (const auto& output : placement->outputs) {
            outputs.push_back(write_output(to, output.name, output.where ? &*output.where : nullptr));
        }
    } else {
        for (const auto& name : request.outputs) outputs.push_back(write_output(to, name, nullptr));
    }
    return outputs.empty() ? outputs_offset() : to.CreateVector(outputs);
}

result<outgoing_frame> write_request(builder& to, const infer_question& question, std::uint64_t exchange,
                                     const placement* placement) {
    const request& request = *question.asked;
    std::vector<bytes_view> payloads;
    std::vector<offset<wire::Tensor>> tensors;
    for (std::size_t index = 0; index < request.inputs.size(); ++index) {
        const tensor& input = request.inputs[index];
        std::optional<std::size_t> placed;
        if (placement != nullptr) {
            if (const auto found = placement->inputs.find(index); found != placement->inputs.end()) {
                placed = found->second;
            }
        }
        tensors.push_back(write_tensor(to, input, static_cast<std::uint32_t>(payloads.size()), placed));
        if (!placed) payloads.push_back(input.data);
    }
    const auto inputs = to.CreateVector(tensors);
    const auto outputs = write_outputs(to, request, placement);
    std::vector<offset<wire::Parameter>> each;
    for (const auto& [name, value] : request.parameters) each.push_back(write_parameter(to, name, value));
    const auto parameters =
        each.empty() ? offset<flatbuffers::Vector<offset<wire::Parameter>>>() : to.CreateVector(each);
    const auto model = text(to, request.model);
    const auto version = optional_text(to, request.version);
    const auto id = optional_text(to, request.id);
    const auto* words = request.sequence ? std::get_if<std::string>(&request.sequence->id) : nullptr;
    const auto* number = request.sequence ? std::get_if<std::uint64_t>(&request.sequence->id) : nullptr;
    const auto sequence_name = words == nullptr ? text_offset() : text(to, *words);
    const auto timeout_us = static_cast<std::uint64_t>(question.timeout ? question.timeout->count() : 0);
    const auto table = wire::CreateRequest(to, model, version, id, timeout_us, request.priority, inputs,
                                           outputs, parameters, number == nullptr ? 0 : *number,
                                           sequence_name, request.sequence && request.sequence->start,
                                           request.sequence && request.sequence->end);
    return finish(to, wire::Message::Request, table.Union(), exchange, payloads);
}

bool is_text(const std::optional<std::string>& words) { return !words || is_utf8(*words); }

result<void> check_parameters(const parameters& parameters) {
    if (parameters.size() > most_parameters) {
        return invalid("the request has " + std::to_string(parameters.size()) +
                       " parameters, the most is 256");
    }
    for (const auto& [name, value] : parameters) {
        const auto* words = std::get_if<std::string>(&value);
        if (!is_utf8(name) || (words != nullptr && !is_utf8(*words))) {
            return invalid("a parameter's name or text is not UTF-8");
        }
    }
    return {};
}

result<void> check_sequence(const sequence& sequence) {
    const auto* words = std::get_if<std::string>(&sequence.id);
    if (words != nullptr ? words->empty() : std::get<std::uint64_t>(sequence.id) == 0) {
        return invalid("a sequence's id must be above 0 or a text that is not empty");
    }
    if (words != nullptr && !is_utf8(*words)) return invalid("a sequence's id is not UTF-8");
    return {};
}

}  // namespace

result<void> check_request(const request& request, std::optional<std::chrono::microseconds> timeout) {
    if (timeout && timeout->count() <= 0) {
        return invalid("the timeout is " + std::to_string(timeout->count()) + " us, it must be above 0");
    }
    if (!is_utf8(request.model) || !is_text(request.version) || !is_text(request.id)) {
        return invalid("the model's name, its version or the id is not UTF-8");
    }
    if (request.inputs.size() > most_tensors || request.outputs.size() > most_tensors) {
        return invalid("the request has " + std::to_string(request.inputs.size()) + " inputs and asks for " +
                       std::to_string(request.outputs.size()) + " outputs, the most is 1024");
    }
    for (const tensor& input : request.inputs) {
        if (!is_utf8(input.name)) return invalid("an input's name is not UTF-8");
        if (auto checked = input.check(); !checked) return checked;
    }
    for (const auto& output : request.outputs) {
        if (!is_utf8(output)) return invalid("an output's name is not UTF-8");
    }
    if (request.sequence) {
        if (auto checked = check_sequence(*request.sequence); !checked) return checked;
    }
    return check_parameters(request.parameters);
}

result<outgoing_frame> encode(const question& question, std::uint64_t exchange, const placement* placement) {
    // Its memory is used again: a request of the usual size asks for none.
    thread_local builder to(1024);
    to.Clear();
    struct writer {
        builder& to;
        std::uint64_t exchange;
        const struct placement* placement;

        result<outgoing_frame> operator()(const infer_question& asked) const {
            return write_request(to, asked, exchange, placement);
        }
        result<outgoing_frame> operator()(const ready_question& asked) const {
            const auto model = text(to, asked.model);
            const auto version = text(to, asked.version);
            const auto table = wire::CreateReadyRequest(to, model, version);
            return finish(to, wire::Message::ReadyRequest, table.Union(), exchange);
        }
        result<outgoing_frame> operator()(const server_info_question&) const {
            const auto table = wire::CreateServerInfoRequest(to);
            return finish(to, wire::Message::ServerInfoRequest, table.Union(), exchange);
        }
        result<outgoing_frame> operator()(const metadata_question& asked) const {
            const auto model = text(to, asked.model);
            const auto version = text(to, asked.version);
            const auto table = wire::CreateMetadataRequest(to, model, version);
            return finish(to, wire::Message::MetadataRequest, table.Union(), exchange);
        }
        result<outgoing_frame> operator()(const cancel_question&) const {
            return finish(to, wire::Message::Cancel, wire::CreateCancel(to).Union(), exchange);
        }
        result<outgoing_frame> operator()(const hand_over_question& asked) const {
            const auto table = wire::CreateHandOver(to, asked.arena, asked.nbytes);
            return finish(to, wire::Message::HandOver, table.Union(), exchange);
        }
        result<outgoing_frame> operator()(const release_question& asked) const {
            return finish(to, wire::Message::Release, wire::CreateRelease(to, asked.arena).Union(), exchange);
        }
    };
    return std::visit(writer{to, exchange, placement}, question);
}

}  // namespace kingpole::detail
