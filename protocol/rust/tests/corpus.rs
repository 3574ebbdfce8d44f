//! Every input that fuzzing kept, through the same functions and on the ordinary compiler.

#[path = "../../fuzz/src/lib.rs"]
#[allow(missing_docs, clippy::pedantic)] // it is checked as the crate it is
mod targets;

use std::fs;
use std::path::PathBuf;

/// One test alone in its process: the targets watch the memory that the process takes.
#[test]
fn every_committed_input_keeps_every_property() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")) {
            let path = entry.unwrap().path();
            let input = fs::read(&path).unwrap();
            // The name of the input is what a failure has to say first.
            let result = std::panic::catch_unwind(|| target(&input));
            assert!(result.is_ok(), "{}", path.display());
            inputs += 1;
        }
        assert!(inputs >= 10, "{name} has only {inputs} inputs");
    }
}
