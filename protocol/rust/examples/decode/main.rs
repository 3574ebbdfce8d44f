//! Reads frames that others wrote: `cargo run -p kingpole-wire --example decode -- DIRECTORY` prints one JSON
//! object, with the value or error of each `NAME.bin` as the golden vectors write it.

#[path = "../vectors/describe.rs"]
mod describe;

use std::path::PathBuf;
use std::{env, fs, io};

use bytes::Bytes;
use serde_json::{Map, Value, json};

fn main() -> io::Result<()> {
    let directory = env::args().nth(1).map(PathBuf::from).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "which directory? its *.bin files are read")
    })?;
    let mut decoded = Map::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let value = match describe::decode("frame", "frame", Bytes::from(fs::read(&path)?), None) {
            Ok(value) => value,
            Err(error) => json!({"error": {"code": error.code.name(), "message": error.message}}),
        };
        decoded.insert(name, value);
    }
    println!("{}", Value::Object(decoded));
    Ok(())
}
