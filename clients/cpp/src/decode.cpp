// Frames to answers. The header is verified: offsets and lengths lie within it. What it says need not be
// true.
#include "arena.hpp"
#include "generated/kingpole_generated.h"
#include "messages.hpp"
#include "utf8.hpp"

namespace kingpole::detail {

namespace {

error malformed(std::string message) {
    return {.code = code::invalid_argument, .message = std::move(message)};
}

/// Reads texts, and remembers whether one of them was not UTF-8, which flatbuffers' verifier does not look
/// at.
class texts {
  public:
    std::string read(const flatbuffers::String* text) {
        if (text == nullptr) return {};
        good_ = good_ && is_utf8({text->data(), text->size()});
        return text->str();
    }
    std::optional<std::string> read_optional(const flatbuffers::String* text) {
        if (text == nullptr) return std::nullopt;
        return read(text);
    }
    [[nodiscard]] bool good() const { return good_; }

  private:
    bool good_ = true;
};

using text_vector = flatbuffers::Vector<flatbuffers::Offset<flatbuffers::String>>;
using parameter_vector = flatbuffers::Vector<flatbuffers::Offset<wire::Parameter>>;
using spec_vector = flatbuffers::Vector<flatbuffers::Offset<wire::TensorSpec>>;

std::vector<std::string> read_texts(texts& texts, const text_vector* from) {
    std::vector<std::string> read;
    if (from != nullptr) {
        for (const auto* text : *from) read.push_back(texts.read(text));
    }
    return read;
}

result<parameters> read_parameters(texts& texts, const parameter_vector* from) {
    parameters read;
    if (from == nullptr) return read;
    for (const auto* each : *from) {
        parameter value;
        switch (each->kind()) {
            case wire::ParameterKind::BOOL:
                value = each->bool_value();
                break;
            case wire::ParameterKind::INT64:
                value = each->int64_value();
                break;
            case wire::ParameterKind::UINT64:
                value = each->uint64_value();
                break;
            case wire::ParameterKind::DOUBLE:
                value = each->double_value();
                break;
            case wire::ParameterKind::STRING:
                value = texts.read(each->string_value());
                break;
            default:
                return malformed("a parameter has no value of a known kind");
        }
        if (!read.emplace(texts.read(each->name()), std::move(value)).second) {
            return malformed("a parameter is given twice");
        }
    }
    return read;
}

result<void> locate(const wire::Tensor& from, const received_frame& frame, const placement* placement,
                    tensor& to) {
    if (from.location() != wire::Location::INLINE) {
        const auto placed = placement == nullptr || from.location() != wire::Location::SHARED
                                ? std::nullopt
                                : placement->find(from.payload(), from.offset(), from.nbytes());
        if (!placed) {
            return error{
                .code = code::unimplemented,
                .message = "output '" + to.name + "' is neither in the frame nor where it was asked for"};
        }
        to.data = placed->bytes;
        to.owner = placed->owner;
        return {};
    }
    if (from.payload() >= frame.payloads.size()) {
        return malformed("output '" + to.name + "': payload " + std::to_string(from.payload()) + " of " +
                         std::to_string(frame.payloads.size()) + " does not exist");
    }
    const bytes_view payload = frame.payloads[from.payload()];
    if (from.offset() > payload.size() || from.nbytes() > payload.size() - from.offset()) {
        return malformed("output '" + to.name + "': " + std::to_string(from.nbytes()) + " bytes at " +
                         std::to_string(from.offset()) + " pass the end of payload " +
                         std::to_string(from.payload()) + ", which has " + std::to_string(payload.size()));
    }
    to.data = payload.subspan(from.offset(), from.nbytes());
    to.owner = frame.payloads_owner;
    return {};
}

result<answer> read_response(const wire::Response& from, const received_frame& frame,
                             const placement* placement) {
    texts texts;
    response to;
    to.model = texts.read(from.model());
    to.version = texts.read(from.version());
    to.id = texts.read_optional(from.id());
    to.timing = {from.queue_us(), from.execute_us(), from.batch_rows(), texts.read(from.reason())};
    if (from.stage() > wire::Stage::END) return malformed("a response of an unknown stage");
    to.stage = static_cast<stage>(from.stage());
    if (from.outputs() != nullptr) {
        to.outputs.reserve(from.outputs()->size());
        for (const auto* each : *from.outputs()) {
            tensor output;
            output.name = texts.read(each->name());
            if (output.name.empty()) output.name = std::to_string(to.outputs.size());
            if (to.find(output.name) != nullptr)
                return malformed("output '" + output.name + "' is there twice");
            output.datatype = static_cast<datatype>(each->datatype());
            if (each->shape() != nullptr) output.shape.assign(each->shape()->begin(), each->shape()->end());
            if (auto located = locate(*each, frame, placement, output); !located) {
                return std::move(located).error();
            }
            if (auto checked = output.check(); !checked) return std::move(checked).error();
            to.outputs.push_back(std::move(output));
        }
    }
    auto parameters = read_parameters(texts, from.parameters());
    if (!parameters) return std::move(parameters).error();
    to.parameters = *std::move(parameters);
    if (!texts.good()) return malformed("a text of the response is not UTF-8");
    return answer(std::move(to));
}

result<answer> read_error(const wire::Error& from) {
    texts texts;
    error to = error_of_number(from.code(), texts.read(from.message()));
    to.id = texts.read_optional(from.id());
    to.retry_after_ms = from.retry_after_ms();
    if (!texts.good()) return malformed("a text of the error is not UTF-8");
    return answer(std::move(to));
}

result<answer> read_server_info(const wire::ServerInfo& from) {
    texts texts;
    server_info to{texts.read(from.name()), texts.read(from.version()), read_texts(texts, from.extensions()),
                   from.max_frame_bytes()};
    if (!texts.good()) return malformed("a text of the server's info is not UTF-8");
    return answer(std::move(to));
}

result<std::vector<tensor_spec>> read_specs(texts& texts, const spec_vector* from) {
    std::vector<tensor_spec> read;
    if (from == nullptr) return read;
    for (const auto* each : *from) {
        const auto number = static_cast<unsigned>(each->datatype());
        if (number == 0 || number > static_cast<unsigned>(datatype::bf16)) {
            return malformed("a tensor of the metadata has the unknown datatype " + std::to_string(number));
        }
        tensor_spec spec{texts.read(each->name()), static_cast<datatype>(number), {}, each->optional()};
        if (each->shape() != nullptr) spec.shape.assign(each->shape()->begin(), each->shape()->end());
        read.push_back(std::move(spec));
    }
    return read;
}

result<answer> read_metadata(const wire::Metadata& from) {
    texts texts;
    auto inputs = read_specs(texts, from.inputs());
    if (!inputs) return std::move(inputs).error();
    auto outputs = read_specs(texts, from.outputs());
    if (!outputs) return std::move(outputs).error();
    model_metadata to{texts.read(from.name()),       read_texts(texts, from.versions()),
                      texts.read(from.platform()),   *std::move(inputs),
                      *std::move(outputs),           from.max_batch_size(),
                      texts.read(from.description())};
    if (!texts.good()) return malformed("a text of the metadata is not UTF-8");
    return answer(std::move(to));
}

}  // namespace

std::uint64_t exchange_of(const received_frame& frame) { return frame.header->exchange(); }

result<answer> decode(const received_frame& frame, const placement* placement) {
    const wire::Header& header = *frame.header;
    if (header.message() == nullptr) return malformed("a frame without a message");
    switch (header.message_type()) {
        case wire::Message::Response:
            return read_response(*header.message_as_Response(), frame, placement);
        case wire::Message::Error:
            return read_error(*header.message_as_Error());
        case wire::Message::Credit:
            return answer(credit{header.message_as_Credit()->requests()});
        case wire::Message::Ready:
            return answer(readiness{header.message_as_Ready()->ready()});
        case wire::Message::ServerInfo:
            return read_server_info(*header.message_as_ServerInfo());
        case wire::Message::Metadata:
            return read_metadata(*header.message_as_Metadata());
        case wire::Message::Done:
            return answer(done{});
        default:
            return error{.code = code::unimplemented,
                         .message = "the server sent a message of kind " +
                                    std::to_string(static_cast<unsigned>(header.message_type())) +
                                    ", which a client is not sent"};
    }
}

answer decode_or_error(const received_frame& frame, const placement* placement) {
    auto decoded = decode(frame, placement);
    if (!decoded) return as_servers_fault(std::move(decoded).error());
    return *std::move(decoded);
}

}  // namespace kingpole::detail
