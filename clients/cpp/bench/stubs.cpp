// What a user without this client writes.
#include <cstring>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <stdexcept>

#include "contender.hpp"
#include "open_inference.grpc.pb.h"

namespace kingpole::bench {

contender stubs(const std::string& authority) {
    ::grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    std::shared_ptr<inference::GRPCInferenceService::Stub> stub = inference::GRPCInferenceService::NewStub(
        ::grpc::CreateCustomChannel(authority, ::grpc::InsecureChannelCredentials(), arguments));
    return {"stubs", [stub](std::size_t count) -> ask {
                auto values = std::make_shared<std::vector<float>>(values_of(count));
                return [stub, values, count] {
                    inference::ModelInferRequest request;
                    request.set_model_name("echo-fp32");
                    auto* input = request.add_inputs();
                    input->set_name("x");
                    input->set_datatype("FP32");
                    input->add_shape(1);
                    input->add_shape(static_cast<std::int64_t>(count));
                    request.add_raw_input_contents(values->data(), values->size() * sizeof(float));
                    inference::ModelInferResponse response;
                    ::grpc::ClientContext context;
                    const auto status = stub->ModelInfer(&context, request, &response);
                    if (!status.ok())
                        throw std::runtime_error("the stubs were refused: " + status.error_message());
                    std::vector<float> answered(count);
                    const std::string& raw = response.raw_output_contents(0);
                    std::memcpy(answered.data(), raw.data(), std::min(raw.size(), count * sizeof(float)));
                };
            }};
}

}  // namespace kingpole::bench
