//! Writes the golden vectors: `cargo run -p kingpole-wire --example vectors -- protocol/vectors`.

#[path = "../../src/sample.rs"]
mod sample;

mod cases;
mod describe;
mod recorded;

use std::path::PathBuf;
use std::{env, fs};

fn main() -> std::io::Result<()> {
    let directory = PathBuf::from(env::args().nth(1).unwrap_or_else(|| "protocol/vectors".to_owned()));
    fs::create_dir_all(&directory)?;
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            fs::remove_file(path)?;
        }
    }
    for case in cases::all() {
        fs::write(directory.join(format!("{}.json", case.name)), cases::vector(&case))?;
    }
    Ok(())
}
