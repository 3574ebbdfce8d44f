// Every golden vector of the frame: whole, byte by byte, in odd pieces; and what is encoded here, decoded
// again.
#include <gtest/gtest.h>
#include <set>

#include "arena.hpp"
#include "kingpole_generated.h"
#include "messages.hpp"
#include "open_inference.hpp"
#include "vector_values.hpp"

namespace kingpole::detail {
namespace {

using vectors::json;

constexpr std::uint64_t limit = std::uint64_t{4} << 30;

std::vector<std::string> names(std::string_view prefix) {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(KINGPOLE_VECTORS)) {
        const std::string name = entry.path().stem();
        if (name.starts_with(prefix)) found.push_back(name);
    }
    std::ranges::sort(found);
    return found;
}

json vector_of(const std::string& name) {
    return vectors::read_json(std::filesystem::path(KINGPOLE_VECTORS) / (name + ".json"));
}

/// Bytes in memory that is aligned as received memory is.
aligned_memory aligned(std::span<const std::byte> bytes) {
    auto memory = allocate_aligned(bytes.size()).value();
    std::ranges::copy(bytes, memory.bytes().begin());
    return memory;
}

result<received_frame> read_whole(std::span<const std::byte> bytes) {
    const auto memory = aligned(bytes);
    return split_frame(memory.bytes(), memory.owner, limit);
}

result<std::vector<received_frame>> read_pieces(bytes_view bytes, std::size_t piece_bytes,
                                                frame_assembler& assembler) {
    std::vector<received_frame> frames;
    for (std::size_t at = 0; at < bytes.size(); at += piece_bytes) {
        const auto piece = bytes.subspan(at, std::min(piece_bytes, bytes.size() - at));
        if (auto fed = assembler.feed(piece, frames); !fed) return std::move(fed).error();
    }
    return frames;
}

json describe_specs(const std::vector<tensor_spec>& specs) {
    json list = json::array();
    for (const auto& each : specs) {
        list.push_back({{"name", each.name},
                        {"datatype", name(each.datatype)},
                        {"shape", each.shape},
                        {"optional", each.optional}});
    }
    return list;
}

/// An answer as the vectors write it.
struct describer {
    json operator()(const response& each) const { return {{"response", vectors::describe(each)}}; }
    json operator()(const error& each) const {
        return {{"error",
                 {{"code", name(each.code)},
                  {"message", each.message},
                  {"id", vectors::or_null(each.id)},
                  {"retry_after_ms", each.retry_after_ms}}}};
    }
    json operator()(const credit& each) const { return {{"credit", {{"requests", each.requests}}}}; }
    json operator()(const done&) const { return {{"done", json::object()}}; }
    json operator()(const readiness& each) const { return {{"ready", each.ready}}; }
    json operator()(const server_info& each) const {
        return {{"server_info",
                 {{"name", each.name},
                  {"version", each.version},
                  {"extensions", each.extensions},
                  {"max_frame_bytes", each.max_frame_bytes}}}};
    }
    json operator()(const model_metadata& each) const {
        return {{"metadata",
                 {{"name", each.name},
                  {"versions", each.versions},
                  {"platform", each.platform},
                  {"inputs", describe_specs(each.inputs)},
                  {"outputs", describe_specs(each.outputs)},
                  {"max_batch_size", vectors::or_null(each.max_batch_size)},
                  {"description", each.description}}}};
    }
};

json text(const flatbuffers::String* words) { return words == nullptr ? json() : json(words->str()); }
std::string words(const flatbuffers::String* words) { return words == nullptr ? "" : words->str(); }

json describe_parameters(const flatbuffers::Vector<flatbuffers::Offset<wire::Parameter>>* from) {
    parameters read;
    if (from == nullptr) return json::array();
    for (const auto* each : *from) {
        switch (each->kind()) {
            case wire::ParameterKind::BOOL:
                read[words(each->name())] = each->bool_value();
                break;
            case wire::ParameterKind::INT64:
                read[words(each->name())] = each->int64_value();
                break;
            case wire::ParameterKind::UINT64:
                read[words(each->name())] = each->uint64_value();
                break;
            case wire::ParameterKind::DOUBLE:
                read[words(each->name())] = each->double_value();
                break;
            default:
                read[words(each->name())] = words(each->string_value());
        }
    }
    return vectors::describe(read);
}

/// What a request's frame says, as the vectors write it, but for the parameters of outputs and shared memory.
json describe_request(const received_frame& frame) {
    const auto& from = *frame.header->message_as_Request();
    json inputs = json::array();
    const auto describe_input = [&](const wire::Tensor* each) {
        json data = "";
        if (each->location() == wire::Location::INLINE) {
            data =
                vectors::to_hex(frame.payloads.at(each->payload()).subspan(each->offset(), each->nbytes()));
        }
        json shape = json::array();
        if (each->shape() != nullptr) {
            for (const auto size : *each->shape()) shape.push_back(size);
        }
        inputs.push_back({{"name", words(each->name())},
                          {"datatype", name(static_cast<datatype>(each->datatype()))},
                          {"shape", shape},
                          {"data_hex", data}});
    };
    if (from.inputs() != nullptr) std::for_each(from.inputs()->begin(), from.inputs()->end(), describe_input);
    json outputs = json::array();
    if (from.outputs() != nullptr) {
        for (const auto* each : *from.outputs()) outputs.push_back(words(each->name()));
    }
    json described{{"model", words(from.model())},
                   {"version", text(from.version())},
                   {"id", text(from.id())},
                   {"timeout_us", from.timeout_us() == 0 ? json() : json(from.timeout_us())},
                   {"priority", from.priority()},
                   {"inputs", inputs},
                   {"outputs", outputs},
                   {"parameters", describe_parameters(from.parameters())}};
    if (from.sequence_id() != 0 || from.sequence_name() != nullptr) {
        described["sequence"] = {
            {"id", from.sequence_id() != 0 ? json(from.sequence_id()) : text(from.sequence_name())},
            {"start", from.sequence_start()},
            {"end", from.sequence_end()}};
    }
    return described;
}

json without_output_parameters(json request) {
    json outputs = json::array();
    for (const auto& each : request["outputs"]) outputs.push_back(each["name"]);
    request["outputs"] = outputs;
    return request;
}

/// The one kind of message in a vector, and its value.
std::pair<std::string, json> message_of(const json& vector) {
    for (const auto& [kind, value] : vector["value"]["message"].items()) {
        if (kind != "shared" && kind != "places") return {kind, value};
    }
    return {};
}

void check(const received_frame& frame, const json& vector) {
    const auto [kind, value] = message_of(vector);
    EXPECT_EQ(exchange_of(frame), vector["value"]["exchange"].get<std::uint64_t>());
    const std::set<std::string> asked{"cancel",           "ready_request", "server_info_request",
                                      "metadata_request", "hand_over",     "release"};
    const json& message = vector["value"]["message"];
    if (kind == "request") {
        EXPECT_EQ(describe_request(frame), without_output_parameters(value));
    } else if (asked.contains(kind) || (message.contains("shared") && !message["shared"].empty())) {
        // A client is not sent these; and what is in memory that it never shared is nowhere.
        EXPECT_EQ(decode(frame).error().code, code::unimplemented);
    } else {
        auto decoded = decode(frame);
        ASSERT_TRUE(decoded) << decoded.error().text();
        json described = std::visit(describer(), *decoded);
        EXPECT_EQ(described, (json{{kind, value}}));
    }
}

class frame_vector : public testing::TestWithParam<std::string> {};

TEST_P(frame_vector, is_read_whole_byte_by_byte_and_in_odd_pieces_and_refused_where_it_is_malformed) {
    const json vector = vector_of(GetParam());
    const auto bytes = vectors::from_hex(vector["hex"]);
    auto whole = read_whole(bytes);
    if (vector.contains("error")) {
        ASSERT_FALSE(whole);
        EXPECT_EQ(name(whole.error().code), vector["error"]["code"].get<std::string>());
        for (std::size_t piece : {1, 3, 17, 64, 1000}) {
            frame_assembler assembler(limit);
            auto frames = read_pieces(bytes, piece, assembler);
            if (frames) {
                // A stream waits for the rest of a frame that is cut.
                EXPECT_TRUE(frames->empty());
                EXPECT_FALSE(assembler.idle());
            } else {
                EXPECT_EQ(name(frames.error().code), vector["error"]["code"].get<std::string>());
            }
        }
        return;
    }
    ASSERT_TRUE(whole) << whole.error().text();
    check(*whole, vector);
    for (std::size_t piece : {1, 3, 17, 64, 1000}) {
        frame_assembler assembler(limit);
        auto frames = read_pieces(bytes, piece, assembler);
        ASSERT_TRUE(frames) << frames.error().text();
        ASSERT_EQ(frames->size(), 1U);
        EXPECT_TRUE(assembler.idle());
        check(frames->front(), vector);
    }
}

std::string name_of(const testing::TestParamInfo<std::string>& info) {
    std::string name = info.param;
    std::ranges::replace(name, '-', '_');
    return name;
}

INSTANTIATE_TEST_SUITE_P(every, frame_vector, testing::ValuesIn(names("frame-")), name_of);

class request_vector : public testing::TestWithParam<std::string> {};

TEST_P(request_vector, is_encoded_here_as_the_vector_says) {
    const json vector = vector_of(GetParam());
    const json value = message_of(vector).second;
    const json& message = vector["value"]["message"];
    if ((message.contains("shared") && !message["shared"].empty()) || message.contains("places")) return;
    const request request = vectors::request_of(value);
    ASSERT_TRUE(check_request(request, request.timeout));
    auto frame = encode(infer_question{&request, request.timeout}, 7);
    ASSERT_TRUE(frame);
    std::vector<std::byte> bytes = frame->head;
    for (const auto part : frame->parts) bytes.insert(bytes.end(), part.begin(), part.end());
    EXPECT_EQ(bytes.size(), frame->nbytes);
    auto read = read_whole(bytes);
    ASSERT_TRUE(read) << read.error().text();
    EXPECT_EQ(exchange_of(*read), 7U);
    EXPECT_EQ(describe_request(*read), without_output_parameters(value));
}

INSTANTIATE_TEST_SUITE_P(every, request_vector, testing::ValuesIn(names("frame-request-")), name_of);

TEST(questions, read_as_the_vectors_say) {
    const auto encoded = [](const question& question) {
        return read_whole(encode(question, 7).value().head).value();
    };
    const auto golden = [](const std::string& name) {
        return read_whole(vectors::from_hex(vector_of(name)["hex"])).value();
    };
    for (const auto& [question, name] : std::vector<std::pair<question, std::string>>{
             {cancel_question{}, "frame-cancel"},
             {server_info_question{}, "frame-server-info-request"},
             {ready_question{"m", "3"}, "frame-ready-request"},
             {metadata_question{"m", "3"}, "frame-metadata-request"},
             {hand_over_question{4, 1 << 20}, "frame-hand-over"},
             {release_question{4}, "frame-release"}}) {
        const auto ours = encoded(question);
        const auto theirs = golden(name);
        EXPECT_EQ(ours.header->message_type(), theirs.header->message_type()) << name;
        EXPECT_EQ(exchange_of(ours), exchange_of(theirs)) << name;
    }
    EXPECT_EQ(encoded(metadata_question{"m", "3"}).header->message_as_MetadataRequest()->model()->str(), "m");
    EXPECT_EQ(encoded(ready_question{"m", "3"}).header->message_as_ReadyRequest()->version()->str(), "3");
    EXPECT_EQ(encoded(hand_over_question{4, 1 << 20}).header->message_as_HandOver()->nbytes(), 1U << 20);
    EXPECT_EQ(encoded(release_question{4}).header->message_as_Release()->arena(), 4U);
}

class http_response_vector : public testing::TestWithParam<std::string> {};

TEST_P(http_response_vector, is_decoded_by_the_fallback) {
    const json vector = vector_of(GetParam());
    const auto bytes = vectors::from_hex(vector["hex"]);
    const auto memory = aligned(bytes);
    http_answer received{{200, {}}, memory.bytes(), memory.owner};
    if (!vector["header_length"].is_null()) {
        received.head.headers["inference-header-content-length"] =
            std::to_string(vector["header_length"].get<std::size_t>());
    }
    auto decoded = expect<response>(decode_open_inference(received));
    if (vector.contains("error")) {
        EXPECT_FALSE(decoded);
        return;
    }
    ASSERT_TRUE(decoded) << decoded.error().text();
    EXPECT_EQ(vectors::describe(*decoded), vector["value"]["response"]);
}

INSTANTIATE_TEST_SUITE_P(every, http_response_vector, testing::ValuesIn(names("http-response-")), name_of);

TEST(frames, of_any_garbage_are_refused_or_read_but_never_crash) {
    const auto whole = vectors::from_hex(vector_of("frame-response-fp32")["hex"]);
    for (std::size_t at = 0; at < whole.size(); ++at) {
        for (const unsigned flip : {0x01U, 0x80U, 0xFFU}) {
            auto bytes = whole;
            bytes[at] ^= static_cast<std::byte>(flip);
            if (auto frame = read_whole(bytes)) (void)decode(*frame);
        }
    }
}

}  // namespace
}  // namespace kingpole::detail
