//! What was counted, in Prometheus' text exposition format 0.0.4.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use kingpole_values::Code;

use crate::metrics::{LATENCY_BOUNDS_US, Shard};
use crate::registry::Registry;
use crate::{Model, Reason, Shared};

/// Names a family and says what it counts.
fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn labels(model: &Model) -> String {
    // Names are restricted by the repository to characters that need no escaping.
    format!("model=\"{}\",version=\"{}\"", model.spec.name, model.spec.version)
}

/// Which histogram of a shard.
type Pick = fn(&Shard) -> &crate::metrics::Histogram;

pub(crate) fn prometheus(registry: &Registry, shared: &Shared) -> String {
    let mut text = String::with_capacity(4096);
    let models = registry.served();
    family(&mut text, "kingpole_ready", "gauge", "1 when every expected model is served.");
    let _ = writeln!(text, "kingpole_ready {}", u8::from(shared.is_ready()));
    family(&mut text, "kingpole_refused_total", "counter", "Requests refused before their model was known.");
    for code in Code::ALL {
        let refused = shared.refused[usize::from(code.number())].load(Relaxed);
        let _ = writeln!(text, "kingpole_refused_total{{code=\"{code}\"}} {refused}");
    }
    requests(&mut text, &models);
    batches(&mut text, &models);
    let histograms: [(&str, &str, Pick); 3] = [
        ("kingpole_request_seconds", "From arrival to answer, of requests that succeeded.", |s| &s.request),
        ("kingpole_queue_seconds", "From arrival to dispatch.", |s| &s.queue),
        ("kingpole_execute_seconds", "Execution of one batch.", |s| &s.execute),
    ];
    for (name, help, pick) in histograms {
        family(&mut text, name, "histogram", help);
        for model in &models {
            histogram(&mut text, name, model, pick);
        }
    }
    text
}

fn requests(text: &mut String, models: &[&Arc<Model>]) {
    family(text, "kingpole_requests_total", "counter", "Requests answered, by code.");
    for model in models {
        for (code, count) in model.metrics.outcomes() {
            let _ = writeln!(text, "kingpole_requests_total{{{},code=\"{code}\"}} {count}", labels(model));
        }
    }
    family(text, "kingpole_in_flight", "gauge", "Requests admitted and not yet answered.");
    for model in models {
        let _ = writeln!(text, "kingpole_in_flight{{{}}} {}", labels(model), model.metrics.in_flight());
    }
}

fn batches(text: &mut String, models: &[&Arc<Model>]) {
    family(text, "kingpole_rows_total", "counter", "Rows inferred.");
    for model in models {
        let _ = writeln!(text, "kingpole_rows_total{{{}}} {}", labels(model), model.metrics.sum(|s| &s.rows));
    }
    family(text, "kingpole_batches_total", "counter", "Batches run, by why they left when they did.");
    for model in models {
        for reason in Reason::ALL {
            let count = model.metrics.sum(|shard| &shard.batches[reason as usize]);
            let (labels, reason) = (labels(model), reason.name());
            let _ = writeln!(text, "kingpole_batches_total{{{labels},reason=\"{reason}\"}} {count}");
        }
    }
    family(text, "kingpole_batch_rows", "histogram", "Rows of a batch.");
    for model in models {
        let labels = labels(model);
        let mut total = 0;
        for bucket in 0..12 {
            total += model.metrics.sum(|shard| &shard.batch_rows[bucket]);
            let _ = match bucket {
                11 => writeln!(text, "kingpole_batch_rows_bucket{{{labels},le=\"+Inf\"}} {total}"),
                _ => writeln!(text, "kingpole_batch_rows_bucket{{{labels},le=\"{}\"}} {total}", 1 << bucket),
            };
        }
        let rows = model.metrics.sum(|shard| &shard.rows);
        let _ = writeln!(text, "kingpole_batch_rows_sum{{{labels}}} {rows}");
        let _ = writeln!(text, "kingpole_batch_rows_count{{{labels}}} {total}");
    }
}

#[allow(clippy::cast_precision_loss, reason = "shown to people; 2^52 µs are 142 years")]
fn histogram(text: &mut String, name: &str, model: &Model, pick: Pick) {
    let labels = labels(model);
    let (buckets, sum_us) = model.metrics.histogram(pick);
    let mut total = 0;
    for (index, count) in buckets.iter().enumerate() {
        total += count;
        let _ = match LATENCY_BOUNDS_US.get(index) {
            Some(&bound_us) => {
                writeln!(text, "{name}_bucket{{{labels},le=\"{}\"}} {total}", bound_us as f64 / 1e6)
            }
            None => writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}"),
        };
    }
    let _ = writeln!(text, "{name}_sum{{{labels}}} {}", sum_us as f64 / 1e6);
    let _ = writeln!(text, "{name}_count{{{labels}}} {total}");
}
