//! A server that answers with lies.

use std::time::{Duration, Instant};

use kingpole_client::{Client, Request};

use crate::expect::{Failure, Outcome, floats, hold};

pub async fn hostile(url: &str) -> Outcome {
    let before = peak_kib()?;
    let client = Client::builder(url).max_frame_bytes(16 << 20).timeout(Duration::from_secs(5)).build()?;
    for number in 0..50 {
        let began = Instant::now();
        let request = Request::new("echo-fp32").input(floats(&[1, 1], vec![0.0])?);
        let result = client.infer(request).await;
        if let Ok(response) = result {
            return Err(Failure(format!("request {number}: expected an error, got {response:?}")));
        }
        let took = began.elapsed();
        hold(took < Duration::from_secs(10), || format!("request {number} took {took:?}"))?;
    }
    let grown = peak_kib()?.saturating_sub(before);
    hold(grown < 64 << 10, || format!("memory grew by {grown} KiB"))
}

/// The most memory that the program has had.
fn peak_kib() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(number.ok_or_else(|| Failure("no VmHWM".to_owned()))?.trim().parse()?)
}
