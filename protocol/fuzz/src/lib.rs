//! What each fuzzing target does with an input, and the properties that must hold for every input.
//!
//! A decoder gives a value or an error of the caller's; it never panics, takes memory bounded by the
//! bytes it was given, and leaves tensors where they lie. What one encodes, one decodes to the same.
//! The tests of kingpole-wire run these functions over the committed corpus.

mod frames;
mod messages;
mod rest_bodies;

use bytes::Bytes;
use kingpole_values::{Code, Error, Tensor};
use peak_alloc::PeakAlloc;

pub use frames::{frame_decode, frame_pieces};
pub use messages::{graphpipe, grpc_infer, grpc_messages};
pub use rest_bodies::{rest_decode, rest_orders, rest_round_trip};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// A target: reads one input, panics if a property does not hold.
pub type Target = fn(&[u8]);

/// Every target, by its name.
pub const TARGETS: [(&str, Target); 8] = [
    ("frame_decode", frame_decode),
    ("frame_pieces", frame_pieces),
    ("rest_decode", rest_decode),
    ("rest_orders", rest_orders),
    ("rest_round_trip", rest_round_trip),
    ("grpc_infer", grpc_infer),
    ("grpc_messages", grpc_messages),
    ("graphpipe", graphpipe),
];

/// What a decoder may say of a peer's bytes.
const FAULTS: [Code; 3] = [Code::InvalidArgument, Code::ResourceExhausted, Code::Unimplemented];

/// What limits of the formats, which do not depend on the input, may take: 1024 tensors and the like.
const FIXED_BYTES: usize = 1 << 20;
/// For each byte of input: a parameter of 8 bytes takes 72, in a list that doubles as it grows.
const BYTES_PER_BYTE: usize = 64;

/// The value; `None` after an error, which must be the caller's and say something.
fn value<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(FAULTS.contains(&error.code), "{error}");
            assert!(!error.message.is_empty(), "an error without a text");
            assert!(error.message.len() < 4096, "an error that repeats its input: {error}");
            None
        }
    }
}

/// Run `decode`; the memory it takes must be bounded by what it was given, and `extra_bytes`.
fn bounded<T>(given: usize, extra_bytes: usize, decode: impl FnOnce() -> T) -> T {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let result = decode();
    let taken = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(
        taken <= FIXED_BYTES + extra_bytes + given * BYTES_PER_BYTE,
        "{taken} bytes for {given} of input"
    );
    result
}

/// Whether the tensor's elements are where they were received.
fn is_view(tensor: &Tensor, input: &Bytes) -> bool {
    let (place, whole) = (tensor.data.as_ptr_range(), input.as_ptr_range());
    tensor.data.is_empty() || (whole.start <= place.start && place.end <= whole.end)
}
