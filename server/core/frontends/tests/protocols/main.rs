//! The frontends over real sockets, with a real engine behind them.

mod frames;
mod graphpipe;
mod grpc;
mod http1;
mod memory;
mod migration;
mod migration_grpc;
mod server;
mod shared_memory;
mod streams;
mod transports;
