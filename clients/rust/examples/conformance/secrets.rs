//! Certificates and tokens.

use kingpole_client::{Client, Code, Request};

use crate::answers::described;
use crate::expect::{Failure, Outcome, answers, equal, floats};

pub async fn tls(url: &str, authority: &str) -> Outcome {
    answers(&Client::builder(url).root_certificates(std::fs::read(authority)?).build()?).await?;
    let untrusting = Client::new(url)?;
    let request = Request::new("echo-fp32").input(floats(&[1, 1], vec![0.0])?);
    match untrusting.infer(request).await {
        Err(error) if error.code() == Code::Unavailable && error.message().contains("certificate") => Ok(()),
        other => Err(Failure(format!("expected UNAVAILABLE and why, got {other:?}"))),
    }
}

pub async fn token(url: &str) -> Outcome {
    let client = Client::builder(url).token("abc").build()?;
    let request = Request::new("describe").input(floats(&[1, 1], vec![0.0])?);
    equal("authorization", &described(&client, request).await?["authorization"], "Bearer abc")
}
