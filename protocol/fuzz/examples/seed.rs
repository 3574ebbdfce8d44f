//! Makes a first corpus of the golden vectors: `cargo run --example seed -- ../vectors FOLDER`.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use serde_json::Value;

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1).map(PathBuf::from);
    let (Some(vectors), Some(corpus)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: seed VECTORS CORPUS"));
    };
    for entry in fs::read_dir(vectors)? {
        let path = entry?.path();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
        let vector: Value = serde_json::from_slice(&fs::read(&path)?)?;
        let bytes = from_hex(vector["hex"].as_str().unwrap_or_default());
        let header_length = vector["header_length"].as_u64().and_then(|length| u16::try_from(length).ok());
        let header_length = header_length.unwrap_or(u16::MAX).to_le_bytes();
        match vector["protocol"].as_str() {
            Some("frame") => {
                put(&corpus, "frame_decode", name, &[], &bytes)?;
                put(&corpus, "frame_pieces", name, &[7, 3], &[&bytes[..], &bytes[..]].concat())?;
            }
            Some("grpc") => {
                put(&corpus, "grpc_infer", name, &[], &bytes)?;
                put(&corpus, "grpc_messages", name, &[9], &bytes)?;
            }
            Some("http") => {
                put(&corpus, "rest_decode", name, &header_length, &bytes)?;
                for tensor in vector["value"]["request"]["inputs"].as_array().into_iter().flatten() {
                    let data = from_hex(tensor["data_hex"].as_str().unwrap_or_default());
                    for datatype in 0..14 {
                        put(
                            &corpus,
                            "rest_round_trip",
                            &format!("{name}-{datatype}"),
                            &[datatype, 0],
                            &data,
                        )?;
                    }
                }
            }
            _ => put(&corpus, "graphpipe", name, &[], &bytes)?,
        }
    }
    let texts =
        ["[1,2.5]", "[[1],[2]]", "[-0.0e1,65519.9]", "[true,false]", r#"["a\u00e9","é"]"#, "[[],[]]", "3"];
    for (index, text) in texts.iter().enumerate() {
        for datatype in 0..14 {
            let name = format!("{index}-{datatype}");
            put(&corpus, "rest_orders", &name, &[datatype, 1, 2, 1], text.as_bytes())?;
        }
    }
    let config =
        br#"{"name":"m","max_batch_size":8,"input":[{"name":"x","data_type":"TYPE_FP32","dims":["-1",3]}]}"#;
    put(&corpus, "grpc_messages", "config", &[11], config)
}

fn put(corpus: &Path, target: &str, name: &str, prefix: &[u8], bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(corpus.join(target))?;
    fs::write(corpus.join(target).join(name), [prefix, bytes].concat())
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
    (0..hex.len()).step_by(2).map(digit).collect()
}
