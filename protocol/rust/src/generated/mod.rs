//! Code made by flatc from `protocol/schema`; the schema says how.
#![allow(
    missing_docs,
    unused_imports,
    clippy::all,
    clippy::pedantic,
    unsafe_op_in_unsafe_fn,
    mismatched_lifetime_syntaxes
)]

#[rustfmt::skip]
#[allow(deprecated)]
mod kingpole_generated;

pub use kingpole_generated::kingpole::frame;
