//! Tensors that do not travel: what goes through the socket is counted by a relay in between.

use kingpole_client::{Client, Tensor};

use crate::expect::{Outcome, echo, hold};
use crate::relay::Relay;

const TENSOR_BYTES: usize = 16 << 20;
const TIMES: usize = 20;

pub async fn shared_memory(url: &str) -> Outcome {
    let relay = Relay::start(url.trim_start_matches("unix:"))?;
    let client = Client::builder(&relay.url()).shared_memory(5 * TENSOR_BYTES).build()?;
    let tensor = |seed: usize| -> Outcome<Tensor> {
        let elements: Vec<f32> = (0..u16::try_from(TENSOR_BYTES >> 10)?)
            .map(|number| f32::from(number) + f32::from(u8::try_from(seed).unwrap_or(0)))
            .cycle()
            .take(TENSOR_BYTES / 4)
            .collect();
        Ok(Tensor::new("x", &[1024, 4096], elements)?)
    };
    // How large the output is, the client learns from the first response.
    echo(&client, "echo-fp32", tensor(0)?).await?;
    let before = relay.nbytes();
    for seed in 1..=TIMES {
        echo(&client, "echo-fp32", tensor(seed)?).await?;
    }
    let through = relay.nbytes() - before;
    hold(through < 1 << 20, || format!("{through} bytes went through the socket, expected less than 1 MiB"))?;

    // And from where it is already, without a copy.
    let mut buffer = client.shared_buffer(TENSOR_BYTES).await?;
    buffer.write(0, &tensor(3)?.data)?;
    let x = Tensor::from_bytes("x", kingpole_client::Datatype::Fp32, &[1024, 4096], buffer.freeze())?;
    echo(&client, "echo-fp32", x).await
}
