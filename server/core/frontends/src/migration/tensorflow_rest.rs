//! `TensorFlow` Serving's REST, and `KServe` V1's, whose paths are among them.

use http::{Method, StatusCode};
use kingpole_engine::{Engine, TensorSpec};
use kingpole_values::{Code, Error, InferRequest, Result};
use kingpole_wire::migration::tensorflow::type_name;
use kingpole_wire::migration::{
    JsonPredict, Layout, decode_examples, decode_predict, encode_classifications, encode_predictions,
    encode_regressions,
};
use serde_json::{Map, Value, json};

use super::{
    SIGNATURE, Whole, check_signature, declared, infer, read_whole, refused, state_of, unless_get,
    unless_post, versions_of, written,
};
use crate::connection::Shared;
use crate::message::{HttpRequest, HttpResponse, JSON};
use crate::rest::Named;
use crate::status::Dialect;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Predict,
    Classify,
    Regress,
    Explain,
}

/// Answer a request for `/v1/models` and what follows it.
pub(super) async fn route(request: HttpRequest, path: &[&str], shared: &Shared) -> HttpResponse {
    let engine = &shared.engine;
    let (last, verb) = match path.last() {
        Some(last) if path != [""] => split_verb(last),
        _ => return get(&request, || Ok(models(engine))),
    };
    let (named, is_metadata) = match (path, verb) {
        ([_], _) => (Named { model: last, version: None }, false),
        ([model, "metadata"], None) => (Named { model, version: None }, true),
        // A label is looked for among the versions: they are text here.
        ([model, "versions" | "labels", _], _) => (Named { model, version: Some(last) }, false),
        ([model, "versions" | "labels", version, "metadata"], None) => {
            (Named { model, version: Some(version) }, true)
        }
        _ => {
            let message = format!("nothing is at '{}'", request.uri.path());
            return HttpResponse::error(StatusCode::NOT_FOUND, &message);
        }
    };
    match verb {
        None if is_metadata => get(&request, || metadata(engine, &named)),
        None => match unless_get(&request) {
            None => status(engine, &named),
            Some(refusal) => refusal,
        },
        Some(verb) => match unless_post(&request) {
            None => serve(request, &named, verb, shared).await,
            Some(refusal) => refusal,
        },
    }
}

/// A model's or version's name and what is asked of it. Any other colon belongs to the name.
fn split_verb(segment: &str) -> (&str, Option<Verb>) {
    let verbs = [
        (":predict", Verb::Predict),
        (":classify", Verb::Classify),
        (":regress", Verb::Regress),
        (":explain", Verb::Explain),
    ];
    let found = verbs.into_iter().find_map(|(suffix, verb)| Some((segment.strip_suffix(suffix)?, verb)));
    found.map_or((segment, None), |(name, verb)| (name, Some(verb)))
}

fn get(request: &HttpRequest, answer: impl FnOnce() -> Result<Value>) -> HttpResponse {
    unless_get(request).unwrap_or_else(|| match answer() {
        Ok(value) => HttpResponse::json(StatusCode::OK, &value),
        Err(error) => Dialect::Json.error(&error),
    })
}

async fn serve(request: HttpRequest, named: &Named<'_>, verb: Verb, shared: &Shared) -> HttpResponse {
    debug_assert_eq!(request.method, Method::POST);
    let whole = match read_whole(request, shared).await {
        Ok(whole) => whole,
        Err(refusal) => return refusal.answer,
    };
    if verb == Verb::Predict && whole.is_graphpipe() {
        return whole.answer_graphpipe(named, shared).await;
    }
    let answered = answer(whole, named, verb, shared).await;
    let held = answered.and_then(|body| written(JSON, vec![body], shared));
    held.unwrap_or_else(|error| Dialect::Json.error(&error))
}

async fn answer(whole: Whole, named: &Named<'_>, verb: Verb, shared: &Shared) -> Result<bytes::Bytes> {
    let Whole { headers, body, received } = whole;
    let (request, layout) = decode(body, named, verb, shared).map_err(|error| refused(error, shared))?;
    let response = infer(request, named, &headers, received, shared).await?;
    match (verb, layout) {
        (Verb::Classify, _) => encode_classifications(&response),
        (Verb::Regress, _) => encode_regressions(&response),
        (_, Layout::Rows) => encode_predictions(&response, "predictions", layout),
        (_, Layout::Columns) => encode_predictions(&response, "outputs", layout),
    }
}

fn decode(
    body: bytes::Bytes,
    named: &Named<'_>,
    verb: Verb,
    shared: &Shared,
) -> Result<(InferRequest, Layout)> {
    let specification = shared.engine.model(named.model, named.version)?;
    let declared = declared(&specification);
    let JsonPredict { request, layout, signature } = match verb {
        Verb::Predict => decode_predict(body, &declared)?,
        Verb::Classify | Verb::Regress => decode_examples(body, &declared)?,
        Verb::Explain => return Err(Error::new(Code::Unimplemented, "explanations are not offered")),
    };
    check_signature(signature.as_deref().unwrap_or_default())?;
    Ok((request, layout))
}

fn models(engine: &Engine) -> Value {
    let mut names: Vec<String> = engine.index(true).into_iter().map(|row| row.name).collect();
    names.sort();
    names.dedup();
    json!({ "models": names })
}

/// The states of a model's versions as `TensorFlow` Serving tells them, and in the same object whether the model
/// is ready, as `KServe` V1 does; the latter's clients also look for 503.
fn status(engine: &Engine, named: &Named<'_>) -> HttpResponse {
    let (ready, rows) = match versions_of(engine, named) {
        Ok(found) => found,
        Err(error) => return Dialect::Json.error(&error),
    };
    let version = |row: &kingpole_engine::IndexRow| {
        let (state, code, reason) = state_of(row);
        json!({
            "version": row.version.as_deref().unwrap_or_default(),
            "state": state,
            "status": { "error_code": code.map_or("OK", Code::name), "error_message": reason },
        })
    };
    let body = json!({
        "name": named.model,
        "ready": ready,
        "model_version_status": rows.iter().map(version).collect::<Vec<_>>(),
    });
    HttpResponse::json(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

/// A signature as protobuf's JSON has it: 64-bit integers are strings there.
fn metadata(engine: &Engine, named: &Named<'_>) -> Result<Value> {
    let specification = engine.model(named.model, named.version)?;
    let tensors = |specifications: &[TensorSpec]| -> Map<String, Value> {
        let tensor = |tensor: &TensorSpec| {
            let dim = tensor.shape.iter().map(|size| json!({ "size": size.to_string(), "name": "" }));
            let information = json!({
                "dtype": type_name(tensor.datatype),
                "tensor_shape": { "dim": dim.collect::<Vec<_>>(), "unknown_rank": false },
                "name": tensor.name.to_string(),
            });
            (tensor.name.to_string(), information)
        };
        specifications.iter().map(tensor).collect()
    };
    let signature = json!({
        "inputs": tensors(&specification.inputs),
        "outputs": tensors(&specification.outputs),
        "method_name": "tensorflow/serving/predict",
    });
    Ok(json!({
        "model_spec": {
            "name": specification.name.to_string(),
            "signature_name": "",
            "version": specification.version.to_string(),
        },
        "metadata": { "signature_def": { "signature_def": { SIGNATURE: signature } } },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_verb_is_cut_off_a_name() {
        assert!(matches!(split_verb("m:predict"), ("m", Some(Verb::Predict))));
        assert!(matches!(split_verb("a:b:explain"), ("a:b", Some(Verb::Explain))));
        assert!(matches!(split_verb("a:b"), ("a:b", None)));
    }
}
