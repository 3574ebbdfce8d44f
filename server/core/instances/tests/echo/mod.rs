//! A worker that answers with what it was given, or misbehaves as asked (`worker.py`).

#![allow(dead_code)] // each test program uses its own part

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kingpole_instances::worker::channel::Channel;
use kingpole_instances::worker::{
    BatchInput, Connection, ExecuteRequest, LoadRequest, Loaded, WorkerProcess,
};
use kingpole_values::{Datatype, Error, Shape};
use tokio::task::JoinHandle;

pub struct Worker {
    pub process: WorkerProcess,
    pub connection: Connection,
    pub ended: JoinHandle<Error>,
}

pub fn spawn() -> (WorkerProcess, Channel) {
    let python = std::env::var("KINGPOLE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/worker.py");
    let environment = BTreeMap::from([("KINGPOLE_THREADS".to_owned(), "1".to_owned())]);
    let (process, channel, _) =
        WorkerProcess::spawn(&[python, script.to_owned()], &environment, false).expect("starts");
    (process, channel)
}

pub fn start() -> Worker {
    let (process, channel) = spawn();
    Worker::new(process, channel)
}

impl Worker {
    pub fn new(process: WorkerProcess, channel: Channel) -> Self {
        let connection = Connection::new(channel, None, process.pid(), "echo", 1 << 20);
        let ended = tokio::spawn(connection.clone().run());
        Self { process, connection, ended }
    }

    pub async fn load(&self, handle: u32, mode: &str) -> Result<Loaded, Error> {
        let request = LoadRequest {
            handle,
            backend: "echo".to_owned(),
            directory: "/".to_owned(),
            configuration: serde_json::json!({ "mode": mode }),
            device: "cpu".to_owned(),
        };
        within(self.connection.load(&request)).await
    }
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

pub fn batch(handle: u32, pieces: &[&[u8]]) -> ExecuteRequest {
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    let rows: Vec<u32> = pieces.iter().map(|piece| u32::try_from(piece.len()).expect("small")).collect();
    ExecuteRequest {
        handle,
        inputs: vec![BatchInput {
            name: "x".into(),
            datatype: Datatype::Uint8,
            shape: Shape::new(&[i64::try_from(total).expect("small")]),
            pieces: pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect(),
        }],
        rows: rows.iter().sum(),
        request_rows: rows,
        output_bytes: total,
        ..ExecuteRequest::default()
    }
}
