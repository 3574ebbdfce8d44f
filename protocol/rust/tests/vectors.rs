//! The golden vectors: regeneration changes nothing, and bytes in pieces give the same frames.

#[path = "../examples/vectors/cases.rs"]
mod cases;
#[path = "../examples/vectors/describe.rs"]
mod describe;
#[path = "../examples/vectors/recorded.rs"]
mod recorded;
#[path = "../src/sample.rs"]
mod sample;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use kingpole_wire::frame::{self, FrameReader};
use serde_json::Value;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../vectors")
}

#[test]
fn regenerating_the_vectors_changes_nothing() {
    let mut expected = BTreeSet::new();
    for case in cases::all() {
        let name = format!("{}.json", case.name);
        let committed =
            fs::read_to_string(directory().join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        // As values: the order of keys depends on features that other crates of a build may turn on.
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(value(&committed), value(&cases::vector(&case)), "{name}: run the generator");
        assert!(expected.insert(name), "two cases are called {}", case.name);
    }
    let committed: BTreeSet<String> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(".json"))
        .collect();
    assert_eq!(committed, expected);
}

#[test]
fn committed_bytes_decode_to_the_committed_value_or_error() {
    let mut errors = 0;
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let vector: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let text = |key: &str| vector[key].as_str().unwrap().to_owned();
        let header_length = vector["header_length"].as_u64().map(|length| usize::try_from(length).unwrap());
        let bytes = cases::from_hex(&text("hex"));
        match describe::decode(&text("protocol"), &text("kind"), bytes, header_length) {
            Ok(value) => assert_eq!(value, vector["value"], "{}", path.display()),
            Err(error) => {
                errors += 1;
                assert_eq!(error.code.name(), vector["error"]["code"], "{}", path.display());
                assert_eq!(
                    *error.message,
                    *vector["error"]["message"].as_str().unwrap(),
                    "{}",
                    path.display()
                );
            }
        }
    }
    assert!(errors > 30, "only {errors} vectors of errors");
}

#[test]
fn frames_in_pieces_are_the_same_frames() {
    for case in cases::all().into_iter().filter(|case| case.protocol == "frame") {
        let whole = frame::decode(case.bytes.clone());
        for piece in [1, 3, 61, 64, 1000] {
            let mut reader = FrameReader::new(1 << 20);
            let mut result = Ok(None);
            for chunk in case.bytes.chunks(piece) {
                reader.push(chunk);
                result = reader.next_frame();
                if !matches!(result, Ok(None)) {
                    break;
                }
            }
            match (&whole, result) {
                (Ok(frame), Ok(Some(read))) => assert_eq!(&read, frame, "{}", case.name),
                // A frame cut off is one that a stream still waits for.
                (Err(_), Ok(None)) => assert!(case.name.contains("-cut-") && !reader.is_at_boundary()),
                (Err(error), Err(read)) => assert_eq!(error.code, read.code, "{}", case.name),
                (whole, read) => panic!("{}: {whole:?} whole, {read:?} in pieces of {piece}", case.name),
            }
        }
    }
}
