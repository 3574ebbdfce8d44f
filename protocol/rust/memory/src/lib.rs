//! Memory shared with other processes. May not know who they are or what lies in it.
//!
//! Two kinds, for two kinds of peer:
//! - [`Mapping`]: a memfd whose size is sealed, mapped. No peer can shrink it under the mapping (which would
//!   end this process with SIGBUS).
//! - [`Window`]: a range of a file whose size a peer may change at any time. It is never mapped: bytes are
//!   copied by the kernel, which gives fewer of them where the file ends.
//!
//! What a peer does to the *contents* of either, while they are read, cannot be prevented. So bytes that are
//! judged are copied first and judged in the copy; see [`Mapping::copy`] and [`view`].

mod mapping;
mod window;

pub use mapping::{ALIGNMENT_BYTES, LARGEST_BYTES, Mapping, SEALS, view};
pub use window::Window;
