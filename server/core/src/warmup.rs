//! First batches of a model: they warm it, prove that it runs, and begin its profile.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kingpole_engine::{ModelSpec, Profile};
use kingpole_values::{ByteString, Datatype, Error, Shape, Tensor};

/// Warming up stops growing the batch once this much time has gone into it.
const BUDGET: Duration = Duration::from_millis(150);

/// A larger batch must give at least this much more throughput, or larger ones are not tried.
const WORTHWHILE_GAIN: f64 = 1.05;

/// Inputs of zeros for a batch of this size; open dimensions are 1, strings are empty.
pub fn zeros(spec: &ModelSpec, rows: u32) -> Vec<Tensor> {
    let zeros = |name: &ByteString, datatype: Datatype, shape: &Shape| {
        let mut shape: Shape = shape.iter().map(|&dimension| dimension.max(1)).collect();
        if let Some(first) = shape.dimensions_mut().first_mut().filter(|_| spec.max_batch_size > 0) {
            *first = i64::from(rows);
        }
        let elements = shape.elements().unwrap_or(0);
        // An empty string is its length, 4 bytes of zero.
        let bytes = elements * datatype.element_bytes().unwrap_or(4);
        debug_assert!(datatype != Datatype::Bytes || bytes == 4 * elements);
        Tensor { name: name.clone(), datatype, shape, data: zeroed(bytes) }
    };
    let declared = spec.inputs.iter().filter(|input| !input.optional);
    let mut inputs: Vec<Tensor> =
        declared.map(|input| zeros(&input.name, input.datatype, &input.shape)).collect();
    if let Some(policy) = &spec.sequence {
        inputs.extend(
            policy.controls.iter().map(|control| zeros(&control.name, control.datatype, &control.shape)),
        );
        inputs.extend(
            policy.states.iter().map(|state| zeros(&state.input, state.datatype, &state.initial.shape)),
        );
    }
    inputs
}

/// Zeros at a multiple of 64, as every input of a batch must be.
fn zeroed(bytes: usize) -> Bytes {
    let memory = Bytes::from(vec![0u8; bytes + 64]);
    let skip = memory.as_ptr().align_offset(64).min(64);
    memory.slice(skip..skip + bytes)
}

/// Run batches of 1, 2, 4, ... rows while that pays, and learn how long each takes.
///
/// # Errors
/// What the model says to the very first batch. Open dimensions may not like being 1, so the caller
/// decides what that means; an error at a larger size only ends the growing.
pub async fn warm_up<R, F>(spec: &ModelSpec, run: R) -> Result<Profile, Error>
where
    R: Fn(Vec<Tensor>) -> F,
    F: Future<Output = Result<(), Error>>,
{
    let mut profile = Profile::default();
    let began = Instant::now();
    let mut best_rate = 0.0;
    let mut rows = 1;
    loop {
        // The first run of a size allocates and compiles; it is not what later runs will cost.
        let cold = Instant::now();
        match run(zeros(spec, rows)).await {
            Ok(()) => {}
            Err(error) if rows == 1 => return Err(error),
            Err(_) => break,
        }
        let repeats = if cold.elapsed() < Duration::from_millis(2) { 5 } else { 1 };
        let mut quickest = Duration::MAX;
        for _ in 0..repeats {
            let warm = Instant::now();
            run(zeros(spec, rows)).await?;
            quickest = quickest.min(warm.elapsed());
        }
        profile.record(rows, u64::try_from(quickest.as_micros()).unwrap_or(u64::MAX));
        let rate = f64::from(rows) / quickest.as_secs_f64().max(1e-7);
        if rows >= spec.max_batch_size || began.elapsed() > BUDGET || rate < best_rate * WORTHWHILE_GAIN {
            break;
        }
        best_rate = rate;
        rows = (rows * 2).min(spec.max_batch_size);
    }
    Ok(profile)
}
