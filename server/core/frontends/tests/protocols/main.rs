//! The frontends over real sockets, with a real engine behind them.

mod compression;
mod extensions;
mod frames;
mod graphpipe;
mod grpc;
mod http1;
mod memory;
mod migration;
mod migration_grpc;
mod routes;
mod server;
mod shared_memory;
mod streams;
mod transports;
