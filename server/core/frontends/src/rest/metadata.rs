//! What the server and its models say of themselves, as Open Inference's JSON.

use bytes::Bytes;
use http::StatusCode;
use kingpole_engine::{CountAndTime, Engine, ModelStatistics, ResponseStatistics, TensorSpec};
use kingpole_values::Result;
use serde_json::{Value, json};

use super::Named;
use crate::message::{HttpResponse, JSON};
use crate::status::Dialect;

fn answer(result: Result<Value>) -> HttpResponse {
    match result {
        Ok(value) => HttpResponse::json(StatusCode::OK, &value),
        Err(error) => Dialect::Json.error(&error),
    }
}

pub(super) fn server(engine: &Engine) -> HttpResponse {
    let info = engine.info();
    answer(Ok(json!({ "name": info.name, "version": info.version, "extensions": info.extensions })))
}

pub(super) fn models(engine: &Engine) -> HttpResponse {
    let mut names: Vec<String> = engine.index(true).into_iter().map(|row| row.name).collect();
    names.sort();
    names.dedup();
    answer(Ok(json!({ "models": names })))
}

pub(super) fn model(engine: &Engine, named: &Named<'_>) -> HttpResponse {
    let tensors = |specifications: &[TensorSpec]| -> Vec<Value> {
        let tensor = |tensor: &TensorSpec| {
            json!({
                "name": tensor.name.to_string(),
                "datatype": tensor.datatype.name(),
                "shape": tensor.shape.to_vec(),
            })
        };
        specifications.iter().map(tensor).collect()
    };
    answer(engine.model(named.model, named.version).map(|specification| {
        let versions = engine.versions(&specification.name);
        json!({
            "name": specification.name.to_string(),
            "versions": versions.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "platform": specification.platform,
            "inputs": tensors(&specification.inputs),
            "outputs": tensors(&specification.outputs),
        })
    }))
}

pub(super) fn configuration(engine: &Engine, named: &Named<'_>) -> HttpResponse {
    match engine.model(named.model, named.version) {
        Ok(specification) => {
            let body = Bytes::from(specification.config_json.clone());
            HttpResponse::new(StatusCode::OK, JSON, vec![body])
        }
        Err(error) => Dialect::Json.error(&error),
    }
}

pub(super) fn statistics(engine: &Engine, name: Option<&str>, version: Option<&str>) -> HttpResponse {
    answer(
        engine
            .statistics(name, version)
            .map(|models| json!({ "model_stats": models.iter().map(statistics_of).collect::<Vec<_>>() })),
    )
}

fn duration(spent: CountAndTime) -> Value {
    json!({ "count": spent.count, "ns": spent.ns })
}

/// Laying a response out is part of running the model, so that its time is 0.
fn response_statistics(response: &ResponseStatistics) -> Value {
    json!({
        "compute_infer": duration(response.success),
        "compute_output": duration(CountAndTime { count: response.success.count, ns: 0 }),
        "success": duration(response.success),
        "fail": duration(response.fail),
        "empty_response": duration(response.empty),
        "cancel": duration(response.cancel),
    })
}

fn statistics_of(model: &ModelStatistics) -> Value {
    let batch = |batch: &kingpole_engine::BatchStatistics| {
        json!({
            "batch_size": batch.batch_size,
            "compute_input": duration(batch.compute_input),
            "compute_infer": duration(batch.compute_infer),
            "compute_output": duration(batch.compute_output),
        })
    };
    json!({
        "name": model.name,
        "version": model.version,
        "last_inference": model.last_inference_ms,
        "inference_count": model.inference_count,
        "execution_count": model.execution_count,
        "inference_stats": {
            "success": duration(model.success),
            "fail": duration(model.fail),
            "queue": duration(model.queue),
            "compute_input": duration(model.compute_input),
            "compute_infer": duration(model.compute_infer),
            "compute_output": duration(model.compute_output),
            "cache_hit": duration(CountAndTime::default()),
            "cache_miss": duration(CountAndTime::default()),
        },
        "batch_stats": model.batches.iter().map(batch).collect::<Vec<_>>(),
        "memory_usage": [],
        "response_stats": model
            .responses
            .iter()
            .enumerate()
            .map(|(place, response)| (place.to_string(), response_statistics(response)))
            .collect::<serde_json::Map<_, _>>(),
    })
}
