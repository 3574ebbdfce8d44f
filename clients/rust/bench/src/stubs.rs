//! The plain generated stubs, as anybody would use them.

use kingpole_client::Tensor;
use tonic::transport::Channel;

use crate::Failed;
use proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use proto::model_infer_request::InferInputTensor;

#[allow(clippy::all, clippy::pedantic)] // it is generated
mod proto {
    tonic::include_proto!("inference");
}

pub struct Stubs(GrpcInferenceServiceClient<Channel>);

impl Stubs {
    pub async fn connect(authority: &str) -> Result<Self, Failed> {
        let client = GrpcInferenceServiceClient::connect(format!("http://{authority}")).await?;
        Ok(Self(client.max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)))
    }

    /// Ask; the bytes of the first output. A connection that the server has ended is replaced, once.
    pub async fn ask(&mut self, x: &Tensor) -> Result<usize, Failed> {
        let response = match self.0.model_infer(request(x)).await {
            Err(status) if status.code() == tonic::Code::Unknown => self.0.model_infer(request(x)).await,
            other => other,
        };
        Ok(response?.into_inner().raw_output_contents.first().map_or(0, Vec::len))
    }
}

fn request(x: &Tensor) -> proto::ModelInferRequest {
    let input = InferInputTensor {
        name: x.name.to_string(),
        datatype: x.datatype.name().to_owned(),
        shape: x.shape.to_vec(),
        ..InferInputTensor::default()
    };
    proto::ModelInferRequest {
        model_name: "echo-fp32".to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![x.data.to_vec()],
        ..proto::ModelInferRequest::default()
    }
}
