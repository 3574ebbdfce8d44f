//! Deadlines, giving up, and a server that dies.

use std::path::Path;
use std::time::{Duration, Instant};

use kingpole_client::{Client, Code, Parameter, Request};
use tokio::time::{sleep, timeout};

use crate::expect::{Failure, Outcome, answers, fails, floats, hold};

fn sleeps(seconds: i64) -> Outcome<Request> {
    let request = Request::new("sleeps").input(floats(&[1, 1], vec![0.0])?);
    Ok(request.parameter("seconds", Parameter::Int64(seconds)))
}

pub async fn deadline(client: &Client) -> Outcome {
    let began = Instant::now();
    let result = client.infer(sleeps(5)?.timeout(Duration::from_millis(300))).await;
    let took = began.elapsed();
    fails("deadline", result, Code::DeadlineExceeded, "")?;
    let in_time = (Duration::from_millis(250)..Duration::from_secs(2)).contains(&took);
    hold(in_time, || format!("expected an answer after 0.25 to 2 s, it came after {took:?}"))?;
    answers(client).await
}

/// The language's own way is to drop the future.
pub async fn cancel(client: &Client, heard: &str) -> Outcome {
    let began = Instant::now();
    let given_up = timeout(Duration::from_millis(200), client.infer(sleeps(30)?)).await;
    hold(given_up.is_err(), || format!("expected no answer, got {given_up:?}"))?;
    let took = began.elapsed();
    hold(took < Duration::from_secs(2), || format!("it took {took:?} to give up"))?;
    answers(client).await?;
    await_path(heard, Duration::from_secs(5)).await
}

pub async fn await_path(path: &str, limit: Duration) -> Outcome {
    if path.is_empty() {
        return Ok(());
    }
    let wait = async {
        while !Path::new(path).exists() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(limit, wait).await.map_err(|_| Failure(format!("nothing was written to {path} in {limit:?}")))
}

pub async fn killed(client: &Client) -> Outcome {
    answers(client).await?;
    let (asking, request) = (client.clone(), sleeps(60)?);
    let asked = tokio::spawn(async move { asking.infer(request).await });
    sleep(Duration::from_millis(500)).await;
    println!("waiting");
    let lost = timeout(Duration::from_secs(5), asked).await;
    let lost = lost.map_err(|_| Failure("no error within 5 s of the server's end".to_owned()))??;
    fails("killed", lost, Code::Unavailable, "")?;
    println!("lost");
    // First nobody listens, and then a server that has not loaded its models yet.
    let back = async {
        while answers(client).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let late = |_| Failure("no answer within 20 s of the server's loss".to_owned());
    timeout(Duration::from_secs(20), back).await.map_err(late)
}
