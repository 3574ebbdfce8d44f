//! How a case says what was expected and what came, and the requests that many cases make.

use std::fmt::{Debug, Display};

use kingpole_client::{Client, Code, Error, Request, Response, Tensor};

/// What was expected and what came.
pub struct Failure(pub String);

pub type Outcome<T = ()> = Result<T, Failure>;

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(format!("expected success, got {error}"))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "what is compared is made for it")]
pub fn equal<T: PartialEq<U> + Debug, U: Debug>(what: &str, got: T, expected: U) -> Outcome {
    hold(got == expected, || format!("{what}: expected {expected:?}, got {got:?}"))
}

pub fn hold(holds: bool, message: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Failure(message())) }
}

/// An error of this code, whose text has these words.
pub fn fails<T: Debug>(what: &str, result: Result<T, Error>, code: Code, words: &str) -> Outcome {
    match result {
        Err(error) if error.code() == code && error.message().contains(words) => Ok(()),
        other => Err(Failure(format!("{what}: expected {code} with '{words}', got {other:?}"))),
    }
}

/// `x` of these numbers.
pub fn floats(shape: &[i64], elements: Vec<f32>) -> Outcome<Tensor> {
    Ok(Tensor::new("x", shape, elements)?)
}

/// The output of this name.
pub fn output<'a>(response: &'a Response, name: &str) -> Outcome<&'a Tensor> {
    response.output(name).ok_or_else(|| Failure(format!("expected output '{name}', got {response:?}")))
}

/// What an echo gives back must be what it was given.
pub async fn echo(client: &Client, model: &str, x: Tensor) -> Outcome {
    let response = client.infer(Request::new(model).input(x.clone())).await?;
    let got = output(&response, "x")?;
    let same = got.datatype == x.datatype && got.shape == x.shape && got.data == x.data;
    hold(same, || match x.data.len() {
        0..1000 => format!("{model}: expected {x:?}, got {got:?}"),
        _ => format!("{model}: other bytes than those sent, {} {}", got.datatype, got.shape),
    })
}

/// The client goes on working.
pub async fn answers(client: &Client) -> Outcome {
    echo(client, "echo-fp32", floats(&[1, 2], vec![1.0, 2.0])?).await
}
