// The bare transports, with bytes made in advance.
#include <curl/curl.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <stdexcept>

#include "contender.hpp"
#include "http_pool.hpp"
#include "messages.hpp"

namespace kingpole::bench {

namespace {

std::vector<std::byte> frame_of(std::size_t count) {
    const auto columns = static_cast<std::int64_t>(count);
    const request request{.model = "echo-fp32",
                          .inputs = {tensor::own<float>("x", {1, columns}, values_of(count))}};
    const auto frame = detail::encode(detail::infer_question{&request, {}}, 1).value();
    std::vector<std::byte> bytes = frame.head;
    for (const auto part : frame.parts) bytes.insert(bytes.end(), part.begin(), part.end());
    return bytes;
}

size_t collect(char* from, size_t size, size_t count, void* to) {
    auto* body = static_cast<std::vector<char>*>(to);
    body->insert(body->end(), from, from + size * count);
    return size * count;
}

}  // namespace

contender floor_over_http(const std::string& url) {
    const auto address = detail::parse_address(url).value();
    auto pool = std::make_shared<detail::http_pool>(address, "", nullptr, std::uint64_t{1} << 30);
    return {"floor", [pool](std::size_t count) -> ask {
                auto bytes = std::make_shared<std::vector<std::byte>>(frame_of(count));
                return [pool, bytes] {
                    const detail::http_request request{
                        "POST", "/v1/infer", "Content-Type: application/x-kingpole\r\n", {*bytes}};
                    if (pool->exchange(request, std::nullopt, {}).value().head.status != 200) {
                        throw std::runtime_error("the floor was refused");
                    }
                };
            }};
}

contender libcurl(const std::string& url) {
    const std::shared_ptr<CURL> curl(::curl_easy_init(), &::curl_easy_cleanup);
    return {"libcurl", [curl, url](std::size_t count) -> ask {
                auto bytes = std::make_shared<std::vector<std::byte>>(frame_of(count));
                const std::shared_ptr<curl_slist> headers(
                    ::curl_slist_append(::curl_slist_append(nullptr, "Content-Type: application/x-kingpole"),
                                        "Expect:"),
                    &::curl_slist_free_all);
                return [curl, url, bytes, headers] {
                    std::vector<char> body;
                    body.reserve(bytes->size() + 1024);
                    ::curl_easy_setopt(curl.get(), CURLOPT_URL, (url + "/v1/infer").c_str());
                    ::curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
                    ::curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS,
                                       reinterpret_cast<const char*>(bytes->data()));
                    ::curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE_LARGE,
                                       static_cast<curl_off_t>(bytes->size()));
                    ::curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, &collect);
                    ::curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &body);
                    ::curl_easy_setopt(curl.get(), CURLOPT_BUFFERSIZE, 512L * 1024);
                    ::curl_easy_setopt(curl.get(), CURLOPT_UPLOAD_BUFFERSIZE, 2L * 1024 * 1024);
                    if (::curl_easy_perform(curl.get()) != CURLE_OK || body.size() != bytes->size()) {
                        if (body.empty()) throw std::runtime_error("libcurl was refused");
                    }
                };
            }};
}

contender floor_over_grpc(const std::string& url) {
    ::grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    auto channel =
        ::grpc::CreateCustomChannel(url.substr(7), ::grpc::InsecureChannelCredentials(), arguments);
    auto stub = std::make_shared<::grpc::GenericStub>(channel);
    return {"floor", [stub](std::size_t count) -> ask {
                const auto bytes = frame_of(count);
                const ::grpc::Slice slice(bytes.data(), bytes.size());
                auto message = std::make_shared<::grpc::ByteBuffer>(&slice, 1);
                return [stub, message] {
                    ::grpc::ClientContext context;
                    ::grpc::CompletionQueue queue;
                    ::grpc::ByteBuffer answer;
                    ::grpc::Status status;
                    auto call =
                        stub->PrepareUnaryCall(&context, "/kingpole.v1.Inference/Infer", *message, &queue);
                    call->StartCall();
                    call->Finish(&answer, &status, nullptr);
                    void* tag = nullptr;
                    bool good = false;
                    queue.Next(&tag, &good);
                    if (!status.ok())
                        throw std::runtime_error("the floor was refused: " + status.error_message());
                };
            }};
}

}  // namespace kingpole::bench
