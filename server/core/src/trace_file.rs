//! The file that traces are written to, in the form of Triton's: a JSON array, complete after every write.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};

use kingpole_engine::{Trace, TraceSink};
use kingpole_values::{Code, Error, Result};
use serde_json::{Value, json};

/// Traces that wait to be written; those that come while so many do are lost, not waited for.
const WAITING: usize = 4096;

/// What ends the file, and is written over by what comes next.
const END: &[u8] = b"\n]\n";

/// A sink that writes to the file of this name, from a thread of its own.
pub fn write_to(path: &Path) -> Result<TraceSink> {
    let refuse = |error: std::io::Error| {
        Error::new(Code::FailedPrecondition, format!("trace_file: '{}': {error}", path.display()))
    };
    let mut file = File::create(path).map_err(refuse)?;
    file.write_all(b"[").and_then(|()| file.write_all(END)).map_err(refuse)?;
    let (traces, waiting) = sync_channel::<Trace>(WAITING);
    std::thread::Builder::new()
        .name("kingpole-trace".to_owned())
        .spawn(move || {
            let mut is_first = true;
            for trace in &waiting {
                let mut text = Vec::new();
                for trace in std::iter::once(trace).chain(waiting.try_iter().take(WAITING)) {
                    for entry in entries(&trace) {
                        text.extend_from_slice(if is_first { b"\n" } else { b",\n" });
                        text.extend_from_slice(entry.to_string().as_bytes());
                        is_first = false;
                    }
                }
                text.extend_from_slice(END);
                let back = SeekFrom::End(-i64::try_from(END.len()).unwrap_or(0));
                // A full disk costs traces and nothing else; the next write tries again.
                let _ = file.seek(back).and_then(|_| file.write_all(&text));
            }
        })
        .map_err(refuse)?;
    Ok(sink(traces))
}

fn sink(traces: SyncSender<Trace>) -> TraceSink {
    Box::new(move |trace| {
        // Whoever answers requests must not wait for a disk.
        let _ = traces.try_send(trace);
    })
}

/// What is said of one request: what it was, and its times in nanoseconds.
fn entries(trace: &Trace) -> [Value; 2] {
    let mut named = json!({
        "id": trace.number,
        "model_name": &*trace.model,
        "model_version": trace.version.parse::<i64>().map_or_else(|_| json!(&*trace.version), Value::from),
    });
    if let (Some(fields), Some(id)) = (named.as_object_mut(), &trace.id) {
        fields.insert("request_id".to_owned(), json!(&**id));
    }
    let times = [
        ("REQUEST_START", trace.enqueued_us),
        ("QUEUE_START", trace.enqueued_us),
        ("COMPUTE_START", trace.started_us),
        ("COMPUTE_INPUT_END", trace.started_us),
        ("COMPUTE_OUTPUT_START", trace.ended_us),
        ("COMPUTE_END", trace.ended_us),
        ("REQUEST_END", trace.answered_us),
    ];
    let times = times.map(|(name, us)| json!({ "name": name, "ns": us.saturating_mul(1000) }));
    [named, json!({ "id": trace.number, "timestamps": times })]
}
