//! What a request costs this client, Open Inference's plain stubs, and the bare transport: `run bench URL`.
//!
//! One line of JSON for each contender and size; protocol/conformance/README.md says what is in it.

mod floor;
mod stubs;

use std::time::Instant;

use kingpole_client::{Client, Request, Tensor};
use rustix::time::{ClockId, clock_gettime};

type Failed = Box<dyn std::error::Error>;

/// Elements of `x`, and requests of each contender.
const SIZES: [(usize, usize); 4] = [(4, 4000), (1000, 4000), (250_000, 200), (2_500_000, 40)];
/// Contenders take turns in so many blocks.
const BLOCKS: usize = 10;

enum Contender {
    Kingpole(Client),
    Stubs(stubs::Stubs),
    Floor(floor::Floor),
}

impl Contender {
    fn name(&self) -> &'static str {
        match self {
            Self::Kingpole(_) => "kingpole",
            Self::Stubs(_) => "stubs",
            Self::Floor(_) => "floor",
        }
    }

    /// Ask once; what came back must be as long as what was sent.
    async fn ask(&mut self, x: &Tensor) -> Result<(), Failed> {
        let got = match self {
            Self::Kingpole(client) => {
                let response = client.infer(Request::new("echo-fp32").input(x.clone())).await?;
                response.output("x").map_or(0, |x| x.data.len())
            }
            Self::Stubs(stubs) => stubs.ask(x).await?,
            Self::Floor(floor) => floor.ask().await?.min(x.data.len()),
        };
        if got == x.data.len() { Ok(()) } else { Err(format!("{got} bytes came back").into()) }
    }
}

#[derive(Default)]
struct Measured {
    cpu_us: f64,
    waits_us: Vec<f64>,
}

impl Measured {
    fn percentile(&mut self, percent: usize) -> f64 {
        self.waits_us.sort_by(f64::total_cmp);
        self.waits_us[(self.waits_us.len() * percent / 100).min(self.waits_us.len() - 1)]
    }
}

fn cpu_us() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 * 1e6 + spent.tv_nsec as f64 / 1e3
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let url = std::env::args().nth(1).ok_or("usage: bench grpc://host:port or http://host:port")?;
    let authority = url.split_once("://").ok_or("a URL")?.1.to_owned();
    for (elements, requests) in SIZES {
        let x = Tensor::new("x", &[1, i64::try_from(elements)?], vec![0.5f32; elements])?;
        let mut contenders = [
            Contender::Kingpole(Client::new(&url)?),
            Contender::Stubs(stubs::Stubs::connect(&authority).await?),
            Contender::Floor(floor::Floor::connect(&url, &x).await?),
        ];
        let mut measured: [Measured; 3] = Default::default();
        let block = requests / BLOCKS;
        for contender in &mut contenders {
            for _ in 0..block.max(4) {
                contender.ask(&x).await?;
            }
        }
        for _ in 0..BLOCKS {
            for (contender, measured) in contenders.iter_mut().zip(&mut measured) {
                let before_us = cpu_us();
                for _ in 0..block {
                    let began = Instant::now();
                    contender.ask(&x).await?;
                    measured.waits_us.push(began.elapsed().as_secs_f64() * 1e6);
                }
                measured.cpu_us += cpu_us() - before_us;
            }
        }
        for (contender, measured) in contenders.iter().zip(&mut measured) {
            let rounded = |number: f64| (number * 10.0).round() / 10.0;
            println!(
                "{}",
                serde_json::json!({
                    "contender": contender.name(),
                    "bytes": elements * 4,
                    "requests": block * BLOCKS,
                    "cpu_us": rounded(measured.cpu_us / (block * BLOCKS) as f64),
                    "p50_us": rounded(measured.percentile(50)),
                    "p99_us": rounded(measured.percentile(99)),
                })
            );
        }
    }
    Ok(())
}
