//! What the server says of itself, what it was told, and what it refuses.

use kingpole_client::{Client, Code, Datatype, Parameter, Request, Tensor, TensorSpec};
use serde_json::Value;

use crate::expect::{Failure, Outcome, answers, equal, fails, floats, hold, output};

pub async fn server(client: &Client) -> Outcome {
    equal("live", client.live().await?, true)?;
    equal("ready", client.ready().await?, true)?;
    let info = client.server_info().await?;
    equal("the server's name", &*info.name, "kingpole")?;
    hold(!info.version.is_empty() && !info.extensions.is_empty(), || format!("no version: {info:?}"))?;
    known(client).await
}

/// What any server of Open Inference says of models.
pub async fn known(client: &Client) -> Outcome {
    equal("ready(echo-fp32)", client.model_ready("echo-fp32", None).await?, true)?;
    equal("ready(echo-fp32, 1)", client.model_ready("echo-fp32", Some("1")).await?, true)?;
    equal("ready(absent)", client.model_ready("absent", None).await?, false)?;
    let metadata = client.metadata("echo-fp32", None).await?;
    equal("the model's name", &*metadata.name, "echo-fp32")?;
    equal("its versions", &metadata.versions[..], ["1"])?;
    let is_x = |specs: &[TensorSpec]| matches!(specs, [x] if x.name == "x" && x.datatype == Datatype::Fp32 && x.shape[..] == [-1, -1]);
    hold(is_x(&metadata.inputs) && is_x(&metadata.outputs), || format!("other tensors: {metadata:?}"))?;
    fails("metadata(absent)", client.metadata("absent", None).await, Code::NotFound, "absent")
}

fn describe() -> Outcome<Request> {
    Ok(Request::new("describe").input(floats(&[1, 1], vec![0.0])?))
}

/// What `describe` was given, as it says.
pub async fn described(client: &Client, request: Request) -> Outcome<Value> {
    let response = client.infer(request).await?;
    let texts = output(&response, "text")?.byte_strings()?;
    match &texts[..] {
        [text] => Ok(serde_json::from_slice(text)?),
        other => Err(Failure(format!("expected one text, got {}", other.len()))),
    }
}

pub async fn parameters(client: &Client) -> Outcome {
    let big = (1 << 63) + 1;
    let request = describe()?
        .parameter("flag", Parameter::Bool(true))
        .parameter("negative", Parameter::Int64(-7))
        .parameter("big", Parameter::Uint64(big))
        .parameter("fraction", Parameter::Double(0.25))
        .parameter("text", Parameter::String("ünï".into()));
    let said = described(client, request).await?;
    let expected =
        serde_json::json!({"flag": true, "negative": -7, "big": big, "fraction": 0.25, "text": "ünï"});
    equal("parameters", said, expected)?;

    let response = client.infer(describe()?.id("my-id").version("1")).await?;
    equal("id", response.id.as_deref(), Some("my-id"))?;
    equal("version", &*response.version, "1")?;
    equal("model", &*response.model, "describe")?;

    let twice = || Ok::<_, Failure>(Request::new("twice").input(floats(&[1, 2], vec![1.0, 2.5])?));
    let response = client.infer(twice()?.output("b")).await?;
    equal("outputs", response.outputs.len(), 1)?;
    equal("b", output(&response, "b")?.elements::<f32>()?.to_vec(), [2.0, 5.0])?;
    let response = client.infer(twice()?.output("b").output("a")).await?;
    let names: Vec<_> = response.outputs.iter().map(|output| output.name.to_string()).collect();
    equal("outputs in the order asked", names, ["b", "a"])
}

/// What no server takes.
pub async fn refused(client: &Client) -> Outcome {
    let x = || floats(&[1, 1], vec![0.0]);
    let of = |tensor: Tensor| Request::new("echo-fp32").input(tensor);
    fails("no model", client.infer(Request::new("absent").input(x()?)).await, Code::NotFound, "absent")?;
    let invalid = Code::InvalidArgument;
    let wrong = Tensor::new("x", &[1, 1], vec![1i64])?;
    fails("datatype", client.infer(of(wrong)).await, invalid, "x")?;
    fails("shape", client.infer(of(floats(&[1], vec![0.0])?)).await, invalid, "x")?;
    let unknown = Tensor::new("nobody", &[1, 1], vec![0f32])?;
    fails("unknown input", client.infer(of(x()?).input(unknown)).await, invalid, "nobody")?;
    fails("missing input", client.infer(Request::new("echo-fp32")).await, invalid, "x")?;
    answers(client).await
}

/// What a model may raise.
pub async fn failed(client: &Client) -> Outcome {
    for code in [
        Code::InvalidArgument,
        Code::NotFound,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Unavailable,
        Code::Internal,
    ] {
        let text = format!("this is {code}, ünï");
        let request = Request::new("fails")
            .input(floats(&[1, 1], vec![0.0])?)
            .parameter("code", Parameter::String(code.name().into()))
            .parameter("text", Parameter::String(text.clone().into()));
        fails("fails", client.infer(request).await, code, &text)?;
    }
    answers(client).await
}
