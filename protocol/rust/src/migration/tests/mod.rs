mod answers;
mod requests;
mod tensorflow;

/// The elements of an FP32 tensor.
fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
