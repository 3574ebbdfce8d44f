//! The unary methods other than inference.

use std::rc::Rc;

use bytes::Bytes;
use kingpole_engine::{
    ControlRequest, CountAndTime, Engine, ModelStatistics, ResponseStatistics, TensorSpec,
};
use kingpole_values::{Code, Error, Parameter, Parameters, Result};
use kingpole_wire::grpc::proto;
use prost::Message;

use super::{health, settings};
use crate::connection::Shared;
use crate::regions;
use crate::respond::{FILE, control};
use crate::rest::repository::unnamed;

const SERVICE: &str = "/inference.GRPCInferenceService/";

/// Answer a call of the method at `path`.
pub(crate) async fn answer(shared: &Rc<Shared>, path: &str, message: Bytes) -> Result<Bytes> {
    let engine = &shared.engine;
    if path == "/grpc.health.v1.Health/Check" {
        return Ok(encode(&health::check(engine, &decode(message)?)?));
    }
    let method = path.strip_prefix(SERVICE).unwrap_or_default();
    Ok(match method {
        "ServerLive" => encode(&proto::ServerLiveResponse { live: engine.is_live() }),
        "ServerReady" => encode(&proto::ServerReadyResponse { ready: engine.is_ready() }),
        "ModelReady" => {
            let request: proto::ModelReadyRequest = decode(message)?;
            let ready = engine.model_ready(&request.name, version(&request.version))?;
            encode(&proto::ModelReadyResponse { ready })
        }
        "ServerMetadata" => {
            let info = engine.info();
            encode(&proto::ServerMetadataResponse {
                name: info.name.to_owned(),
                version: info.version.to_owned(),
                extensions: info.extensions.iter().map(ToString::to_string).collect(),
            })
        }
        "ModelMetadata" => encode(&metadata(engine, &decode(message)?)?),
        "ModelConfig" => {
            let request: proto::ModelConfigRequest = decode(message)?;
            let specification = engine.model(&request.name, version(&request.version))?;
            let config = kingpole_wire::grpc::model_config_from_json(&specification.config_json)?;
            encode(&proto::ModelConfigResponse { config: Some(config) })
        }
        "ModelStatistics" => {
            let request: proto::ModelStatisticsRequest = decode(message)?;
            let name = Some(request.name.as_str()).filter(|name| !name.is_empty());
            let statistics = engine.statistics(name, version(&request.version))?;
            encode(&proto::ModelStatisticsResponse {
                model_stats: statistics.into_iter().map(statistics_message).collect(),
            })
        }
        "RepositoryIndex" => encode(&index(engine, &decode(message)?)),
        "RepositoryModelLoad" => {
            let request: proto::RepositoryModelLoadRequest = decode(message)?;
            refuse_repository(&request.repository_name, &request.model_name)?;
            let model = request.model().to_owned();
            let (parameters, files) = control_parameters(request.parameters)?;
            control(engine, ControlRequest::Load { model: model.clone(), parameters, files }).await?;
            encode(&proto::RepositoryModelLoadResponse { model_name: model, is_loaded: true })
        }
        "RepositoryModelUnload" => {
            let request: proto::RepositoryModelUnloadRequest = decode(message)?;
            refuse_repository(&request.repository_name, &request.model_name)?;
            let model = request.model().to_owned();
            let (parameters, _) = control_parameters(request.parameters)?;
            control(engine, ControlRequest::Unload { model: model.clone(), parameters }).await?;
            encode(&proto::RepositoryModelUnloadResponse { model_name: model, is_unloaded: true })
        }
        "TraceSetting" => encode(&settings::trace(engine, &decode(message)?)?),
        "LogSettings" => encode(&settings::log(engine, decode(message)?)?),
        method if method.contains("SharedMemory") => shared_memory(shared, method, message)?,
        _ => {
            return Err(Error::new(Code::Unimplemented, format!("the method '{path}' is not offered")));
        }
    })
}

/// The methods about regions of shared memory.
fn shared_memory(shared: &Shared, method: &str, message: Bytes) -> Result<Bytes> {
    let named = |name: &str| if name.is_empty() { None } else { Some(name.to_owned()) };
    Ok(match method {
        "SystemSharedMemoryStatus" => {
            let request: proto::SystemSharedMemoryStatusRequest = decode(message)?;
            let found = regions::of(shared)?.status(named(&request.name).as_deref())?;
            let row = |(name, region): (String, std::sync::Arc<regions::Region>)| {
                let status = proto::system_shared_memory_status_response::RegionStatus {
                    name: name.clone(),
                    key: region.key.clone(),
                    offset: region.offset(),
                    byte_size: region.bytes(),
                };
                (name, status)
            };
            encode(&proto::SystemSharedMemoryStatusResponse { regions: found.into_iter().map(row).collect() })
        }
        "SystemSharedMemoryRegister" => {
            let request: proto::SystemSharedMemoryRegisterRequest = decode(message)?;
            regions::of(shared)?.register(&request.name, &request.key, request.offset, request.byte_size)?;
            encode(&proto::SystemSharedMemoryRegisterResponse {})
        }
        "SystemSharedMemoryUnregister" => {
            let request: proto::SystemSharedMemoryUnregisterRequest = decode(message)?;
            regions::of(shared)?.unregister(named(&request.name).as_deref());
            encode(&proto::SystemSharedMemoryUnregisterResponse {})
        }
        // Clients ask for this to learn whether regions are registered: none ever is.
        "CudaSharedMemoryStatus" => {
            let request: proto::CudaSharedMemoryStatusRequest = decode(message)?;
            match named(&request.name) {
                None => encode(&proto::CudaSharedMemoryStatusResponse::default()),
                Some(name) => return Err(regions::unknown_cuda(&name)),
            }
        }
        "CudaSharedMemoryUnregister" => encode(&proto::CudaSharedMemoryUnregisterResponse {}),
        "CudaSharedMemoryRegister" => return Err(regions::no_cuda()),
        _ => return Err(Error::new(Code::Unimplemented, format!("the method '{method}' is not offered"))),
    })
}

fn decode<M: Message + Default>(message: Bytes) -> Result<M> {
    M::decode(message).map_err(|error| Error::invalid(format!("the request message is malformed: {error}")))
}

fn encode(message: &impl Message) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

fn version(version: &str) -> Option<&str> {
    Some(version).filter(|version| !version.is_empty())
}

fn metadata(engine: &Engine, request: &proto::ModelMetadataRequest) -> Result<proto::ModelMetadataResponse> {
    let specification = engine.model(&request.name, version(&request.version))?;
    let tensors = |specifications: &[TensorSpec]| {
        let tensor = |tensor: &TensorSpec| proto::model_metadata_response::TensorMetadata {
            name: tensor.name.to_string(),
            datatype: tensor.datatype.name().to_owned(),
            shape: tensor.shape.to_vec(),
        };
        specifications.iter().map(tensor).collect()
    };
    Ok(proto::ModelMetadataResponse {
        name: specification.name.to_string(),
        versions: engine.versions(&specification.name).iter().map(ToString::to_string).collect(),
        platform: specification.platform.clone(),
        inputs: tensors(&specification.inputs),
        outputs: tensors(&specification.outputs),
    })
}

fn index(engine: &Engine, request: &proto::RepositoryIndexRequest) -> proto::RepositoryIndexResponse {
    let row = |row: kingpole_engine::IndexRow| proto::repository_index_response::ModelIndex {
        name: row.name,
        version: row.version.unwrap_or_default(),
        state: row.state,
        reason: row.reason,
    };
    proto::RepositoryIndexResponse { models: engine.index(request.ready).into_iter().map(row).collect() }
}

fn statistics_message(model: ModelStatistics) -> proto::ModelStatistics {
    let duration = |spent: CountAndTime| Some(proto::StatisticDuration { count: spent.count, ns: spent.ns });
    let batch = |batch: &kingpole_engine::BatchStatistics| proto::InferBatchStatistics {
        batch_size: batch.batch_size,
        compute_input: duration(batch.compute_input),
        compute_infer: duration(batch.compute_infer),
        compute_output: duration(batch.compute_output),
    };
    // Laying a response out is part of running the model, so that its time is 0.
    let response = |response: &ResponseStatistics| proto::InferResponseStatistics {
        compute_infer: duration(response.success),
        compute_output: duration(CountAndTime { count: response.success.count, ns: 0 }),
        success: duration(response.success),
        fail: duration(response.fail),
        empty_response: duration(response.empty),
        cancel: duration(response.cancel),
    };
    proto::ModelStatistics {
        last_inference: model.last_inference_ms,
        inference_count: model.inference_count,
        execution_count: model.execution_count,
        inference_stats: Some(proto::InferStatistics {
            success: duration(model.success),
            fail: duration(model.fail),
            queue: duration(model.queue),
            compute_input: duration(model.compute_input),
            compute_infer: duration(model.compute_infer),
            compute_output: duration(model.compute_output),
            cache_hit: duration(CountAndTime::default()),
            cache_miss: duration(CountAndTime::default()),
        }),
        batch_stats: model.batches.iter().map(batch).collect(),
        response_stats: (0..)
            .map(|place: u32| place.to_string())
            .zip(model.responses.iter().map(response))
            .collect(),
        name: model.name,
        version: model.version,
        ..Default::default()
    }
}

/// A repository's name beside a model's; alone it is the model's, see the schema.
fn refuse_repository(repository: &str, model: &str) -> Result<()> {
    if repository.is_empty() || model.is_empty() { Ok(()) } else { Err(unnamed(repository)) }
}

type Files = Vec<(String, Bytes)>;

fn control_parameters(
    parameters: impl IntoIterator<Item = (String, proto::ModelRepositoryParameter)>,
) -> Result<(Parameters, Files)> {
    use proto::model_repository_parameter::ParameterChoice;
    let (mut read, mut files) = (Parameters::new(), Files::new());
    for (name, parameter) in parameters {
        let value = match parameter.parameter_choice {
            None => return Err(Error::invalid(format!("parameter '{name}' has no value"))),
            Some(ParameterChoice::BytesParam(content)) if name.starts_with(FILE) => {
                files.push((name, content));
                continue;
            }
            Some(_) if name.starts_with(FILE) => {
                let message = format!("parameter '{name}': a file's content belongs in bytes_param");
                return Err(Error::invalid(message));
            }
            Some(ParameterChoice::BoolParam(value)) => Parameter::Bool(value),
            Some(ParameterChoice::Int64Param(value)) => Parameter::Int64(value),
            Some(ParameterChoice::StringParam(value)) => Parameter::String(value.into()),
            Some(ParameterChoice::BytesParam(_)) => {
                return Err(Error::invalid(format!("parameter '{name}' is bytes, which only files are")));
            }
        };
        read.push((name.into(), value));
    }
    Ok((read, files))
}
