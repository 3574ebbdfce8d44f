//! Sockets and protocols: everything between a client's bytes and [`kingpole_engine::Engine`].
//!
//! One port speaks every protocol; the module `connection` tells them apart by their first bytes. This crate
//! may not know how a request is batched or which framework runs it, and leaves every byte layout to
//! `kingpole-wire`.
//!
//! The wiring uses four things: [`Listeners::bind`], [`Listeners::accept`], [`reactor`] and
//! [`run_reactor`].

mod body;
mod budget;
mod classification;
mod coding;
mod configuration;
mod connection;
mod cors;
mod forward;
mod frame;
mod gather;
mod graphpipe;
mod grpc;
mod http1;
mod http2;
mod listen;
mod message;
mod migration;
mod outlet;
mod pack;
mod regions;
mod respond;
mod rest;
mod routes;
mod socket;
mod staged;
mod status;
mod streamed;
mod tls;
mod unix;
mod unpack;

pub use budget::MemoryBudget;
pub use configuration::{Connections, FrontendConfiguration, StreamDialect};
pub use connection::run_reactor;
pub use cors::Origins;
pub use forward::HeaderPattern;
pub use listen::{Accepted, Listeners, ReactorHandle, reactor};
pub use regions::SystemRegions;
pub use routes::HTTP_ROUTES;
pub use tls::load as load_tls;
