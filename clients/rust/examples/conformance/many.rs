//! Many responses, many requests, sequences, and much data.

use std::time::Duration;

use futures_util::{StreamExt, pin_mut};
use kingpole_client::{Client, Code, Parameter, Request, Responses, Sequence, SequenceId, Tensor};

use crate::expect::{Failure, Outcome, answers, echo, equal, floats, hold, output};
use crate::waiting::await_path;

fn count(to: i32) -> Outcome<Request> {
    Ok(Request::new("count").input(Tensor::new("count", &[1], vec![to])?))
}

/// Take responses, at most so many; how it ended.
async fn take(responses: &mut Responses, most: i32) -> Outcome<Option<kingpole_client::Error>> {
    for expected in 0..most {
        match responses.next().await {
            None => return equal("responses", expected, most).map(|()| None),
            Some(Err(error)) => {
                equal("responses before the error", expected, most)?;
                return Ok(Some(error));
            }
            Some(Ok(response)) => {
                equal("value", output(&response, "value")?.elements::<i32>()?.to_vec(), [expected])?;
            }
        }
    }
    Ok(None)
}

pub async fn stream(client: &Client, mark: &str) -> Outcome {
    for to in [0, 1, 1000] {
        let mut responses = client.stream(count(to)?).await?;
        take(&mut responses, to).await?;
        hold(responses.next().await.is_none(), || format!("more than {to} responses"))?;
    }
    let request = count(10)?.parameter("fail_at", Parameter::Int64(3));
    let mut responses = client.stream(request).await?;
    take(&mut responses, 3).await?;
    match responses.next().await {
        Some(Err(error))
            if error.code() == Code::Unavailable && error.message().contains("cannot count beyond 3") => {}
        other => return Err(Failure(format!("expected the model's UNAVAILABLE, got {other:?}"))),
    }
    hold(responses.next().await.is_none(), || "an error was not the end".to_owned())?;

    let mut request = count(1_000_000)?;
    if !mark.is_empty() {
        request = request.parameter("mark", Parameter::String(mark.into()));
    }
    let mut responses = client.stream(request).await?;
    take(&mut responses, 2).await?;
    drop(responses);
    await_path(mark, Duration::from_secs(10)).await?;

    let echoed = Request::new("echo-fp32").input(floats(&[1, 1], vec![4.0])?);
    let mut responses = client.stream(echoed).await?;
    let first = responses.next().await.ok_or_else(|| Failure("no response".to_owned()))??;
    equal("x", output(&first, "x")?.elements::<f32>()?.to_vec(), [4.0])?;
    hold(responses.next().await.is_none(), || "an echo of more than one response".to_owned())?;
    answers(client).await
}

pub async fn sequence(client: &Client) -> Outcome {
    let ids = [SequenceId::Number(71), SequenceId::Text("seventy".into())];
    let mut sum = 0.0;
    for (x, start, end) in [(1.0f32, true, false), (2.0, false, false), (3.0, false, true)] {
        sum += x;
        for id in &ids {
            let place = Sequence { id: id.clone(), start, end };
            let request = Request::new("sums").input(floats(&[1, 1], vec![x])?).sequence(place);
            let response = client.infer(request).await?;
            equal("sum", output(&response, "sum")?.elements::<f32>()?.to_vec(), [sum])?;
        }
    }
    Ok(())
}

pub async fn pipeline(client: &Client) -> Outcome {
    const REQUESTS: u16 = 10_000;
    let tensor = |number: u16| Tensor::new("x", &[1, 2], vec![f32::from(number), -f32::from(number)]);
    let tensors: Vec<_> = (0..REQUESTS).map(tensor).collect::<Result<_, _>>()?;
    let requests = tensors.into_iter().map(|x| Request::new("echo-fp32").input(x));
    let responses = client.infer_many(requests, 64);
    pin_mut!(responses);
    let mut number = 0;
    while let Some(response) = responses.next().await {
        let response = response?;
        let got = output(&response, "x")?.elements::<f32>()?.to_vec();
        equal("x", got, [f32::from(number), -f32::from(number)])?;
        number += 1;
    }
    equal("responses", number, REQUESTS)
}

pub async fn large(client: &Client) -> Outcome {
    let elements: Vec<f32> =
        (0..25_000_000u32).map(|bits| f32::from_bits(bits.wrapping_mul(2_654_435_761))).collect();
    echo(client, "echo-fp32", floats(&[1000, 25_000], elements)?).await
}
