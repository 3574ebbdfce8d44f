//! Every datatype and odd shapes.

use half::{bf16, f16};
use kingpole_client::{Client, Datatype, Tensor};

use crate::expect::{Outcome, echo, equal, floats, hold, output};
use kingpole_client::Request;

fn tensors() -> Outcome<Vec<Tensor>> {
    let texts: [&[u8]; 6] = [b"", b"a", "ünï☃".as_bytes(), &[0xff, 0xfe, 0], b"\"\\\n", b"last"];
    Ok(vec![
        Tensor::from_bools("x", &[2, 3], &[true, false, false, true, true, false])?,
        Tensor::new("x", &[2, 3], vec![u8::MIN, 1, 2, 3, 127, u8::MAX])?,
        Tensor::new("x", &[2, 3], vec![u16::MIN, 1, 2, 3, 256, u16::MAX])?,
        Tensor::new("x", &[2, 3], vec![u32::MIN, 1, 2, 3, 1 << 16, u32::MAX])?,
        Tensor::new("x", &[2, 3], vec![u64::MIN, 1, 2, 3, 1 << 63, u64::MAX])?,
        Tensor::new("x", &[2, 3], vec![i8::MIN, -1, 0, 1, 2, i8::MAX])?,
        Tensor::new("x", &[2, 3], vec![i16::MIN, -1, 0, 1, 256, i16::MAX])?,
        Tensor::new("x", &[2, 3], vec![i32::MIN, -1, 0, 1, 1 << 16, i32::MAX])?,
        Tensor::new("x", &[2, 3], vec![i64::MIN, -1, 0, 1, 1 << 53, i64::MAX])?,
        Tensor::new(
            "x",
            &[2, 3],
            vec![f16::MIN, f16::MAX, f16::NAN, f16::INFINITY, f16::NEG_INFINITY, f16::NEG_ZERO],
        )?,
        Tensor::new(
            "x",
            &[2, 3],
            vec![bf16::MIN, bf16::MAX, bf16::NAN, bf16::INFINITY, bf16::NEG_INFINITY, bf16::NEG_ZERO],
        )?,
        Tensor::new(
            "x",
            &[2, 3],
            vec![f32::MIN, f32::MAX, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0],
        )?,
        Tensor::new(
            "x",
            &[2, 3],
            vec![f64::MIN, f64::MAX, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0],
        )?,
        Tensor::from_byte_strings("x", &[2, 3], texts)?,
    ])
}

pub async fn datatypes(client: &Client) -> Outcome {
    let tensors = tensors()?;
    equal("datatypes tried", tensors.len(), Datatype::ALL.len())?;
    for tensor in tensors {
        let model = format!("echo-{}", tensor.datatype.name().to_lowercase());
        echo(client, &model, tensor).await?;
    }
    // As Rust's numbers too, not only as bytes.
    let x = floats(&[1, 3], vec![1.5, -2.25, f32::MIN_POSITIVE])?;
    let response = client.infer(Request::new("echo-fp32").input(x)).await?;
    let got = output(&response, "x")?.elements::<f32>()?.to_vec();
    hold(got == [1.5, -2.25, f32::MIN_POSITIVE], || format!("other numbers: {got:?}"))
}

pub async fn shapes(client: &Client) -> Outcome {
    echo(client, "scalar", floats(&[], vec![7.5])?).await?;
    for shape in [[0, 3], [1, 1], [3, 0]] {
        let elements = usize::try_from(shape[0] * shape[1])?;
        echo(client, "echo-fp32", floats(&shape, vec![1.0; elements])?).await?;
    }
    echo(client, "rank8", floats(&[1, 2, 1, 2, 1, 2, 1, 2], (0..16u8).map(f32::from).collect())?).await?;
    echo(client, "echo-bytes", Tensor::from_byte_strings("x", &[0, 2], [""; 0])?).await
}
