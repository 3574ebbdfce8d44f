//! Traces: when one in so many requests got where, given to whoever writes them down.
//!
//! Off, it costs a request one look at a pointer. What can be set has the names and meanings of Triton's trace
//! extension; what a setting would need and is not there is refused. May not know files.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use kingpole_values::{ByteString, Code, Error, Result};

/// One traced request. Times are microseconds of the engine's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Counts traces, from 1.
    pub number: u64,
    /// The model.
    pub model: ByteString,
    /// Its version.
    pub version: ByteString,
    /// The client's own id, if it gave one.
    pub id: Option<ByteString>,
    /// It was queued.
    pub enqueued_us: u64,
    /// Its batch began to run.
    pub started_us: u64,
    /// Its batch had run.
    pub ended_us: u64,
    /// It was answered.
    pub answered_us: u64,
}

/// Takes traces. Called by the thread that answers a request: must not block.
pub type TraceSink = Box<dyn Fn(Trace) + Send + Sync>;

/// What is traced: of everything, or of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    timestamps: bool,
    /// One in so many requests.
    rate: u32,
    /// How many more; below 0 there is no end.
    count: i64,
}

const OFF: Wanted = Wanted { timestamps: false, rate: 1000, count: -1 };

/// What a model's requests are counted by, shared by all models for which nothing else was said.
pub(crate) struct Scope {
    every: u32,
    seen: AtomicU32,
    /// Traces that are still wanted; below 0 there is no end.
    left: AtomicI64,
    sink: Arc<Sink>,
}

struct Sink {
    taken: AtomicU64,
    give: TraceSink,
}

impl Scope {
    /// Whether this request is to be traced.
    pub fn takes(&self) -> bool {
        if !self.seen.fetch_add(1, Relaxed).is_multiple_of(self.every) {
            return false;
        }
        let one_less = |left: i64| match left {
            0 => None,
            left if left < 0 => Some(left),
            left => Some(left - 1),
        };
        self.left.fetch_update(Relaxed, Relaxed, one_less).is_ok()
    }

    /// Give a trace its number, and give it away.
    pub fn give(&self, trace: Trace) {
        let number = self.sink.taken.fetch_add(1, Relaxed) + 1;
        (self.sink.give)(Trace { number, ..trace });
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "one in {}", self.every)
    }
}

/// Everything that is set.
struct Settings {
    all: (Wanted, Option<Arc<Scope>>),
    /// Of the models that have settings of their own, by name.
    own: BTreeMap<ByteString, (Wanted, Option<Arc<Scope>>)>,
}

/// The trace settings of a running server.
pub(crate) struct Tracing {
    sink: OnceLock<(String, Arc<Sink>)>,
    settings: Mutex<Settings>,
}

impl Default for Tracing {
    fn default() -> Self {
        let settings = Mutex::new(Settings { all: (OFF, None), own: BTreeMap::new() });
        Self { sink: OnceLock::new(), settings }
    }
}

/// The levels that the extension knows.
const LEVELS: [&str; 3] = ["OFF", "TIMESTAMPS", "TENSORS"];

impl Tracing {
    /// Where traces go from now on, and what that is called. Once.
    pub fn trace_to(&self, name: String, give: TraceSink) {
        // A second one is never set: whoever starts the server does this once.
        let _ = self.sink.set((name, Arc::new(Sink { taken: AtomicU64::new(0), give })));
    }

    fn lock(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this model's requests are counted by; `None` if they are not traced.
    pub fn scope(&self, model: &str) -> Option<Arc<Scope>> {
        let settings = self.lock();
        settings.own.get(model).map_or_else(|| settings.all.1.clone(), |(_, scope)| scope.clone())
    }

    /// The settings of a model, or of everything, in the extension's order.
    pub fn named(&self, model: Option<&str>) -> Vec<(&'static str, String)> {
        let settings = self.lock();
        let own = model.and_then(|model| settings.own.get(model));
        let (wanted, scope) = own.unwrap_or(&settings.all);
        let left = scope.as_ref().map_or(wanted.count, |scope| scope.left.load(Relaxed));
        vec![
            ("trace_level", LEVELS[usize::from(wanted.timestamps)].to_owned()),
            ("trace_rate", wanted.rate.to_string()),
            ("trace_count", left.max(-1).to_string()),
            ("log_frequency", "0".to_owned()),
            ("trace_file", self.sink.get().map(|(name, _)| name.clone()).unwrap_or_default()),
            ("trace_mode", "triton".to_owned()),
        ]
    }

    /// Change settings of a model, or of everything; no values ask for the default, which for a model is what holds for
    /// everything. A change is made as a whole or not at all.
    pub fn change(&self, model: Option<&str>, changes: &[(&str, &[String])]) -> Result<()> {
        let mut settings = self.lock();
        let default = if model.is_some() { settings.all.0.clone() } else { OFF };
        let own = model.and_then(|model| settings.own.get(model));
        let mut wanted = own.map_or_else(|| settings.all.0.clone(), |(wanted, _)| wanted.clone());
        for (name, values) in changes {
            self.change_one(name, values, &default, &mut wanted)?;
        }
        if changes.is_empty() {
            return Ok(());
        }
        let scope = self.sink.get().filter(|_| wanted.timestamps && wanted.count != 0).map(|(_, sink)| {
            Arc::new(Scope {
                every: wanted.rate,
                seen: AtomicU32::new(0),
                left: AtomicI64::new(wanted.count),
                sink: Arc::clone(sink),
            })
        });
        match model {
            None => settings.all = (wanted, scope),
            Some(model) => {
                settings.own.insert(model.to_owned().into(), (wanted, scope));
            }
        }
        Ok(())
    }

    fn change_one(&self, name: &str, values: &[String], default: &Wanted, wanted: &mut Wanted) -> Result<()> {
        let unoffered = |what: String| Err(Error::new(Code::Unimplemented, what));
        match (name, values) {
            ("trace_level", []) => wanted.timestamps = default.timestamps,
            ("trace_level", levels) => {
                if !levels.iter().all(|level| LEVELS.contains(&&**level)) {
                    let levels = LEVELS.join(", ");
                    return Err(Error::invalid(format!("trace setting 'trace_level' must be of: {levels}")));
                }
                if levels.iter().any(|level| level == "TENSORS") {
                    return unoffered(
                        "trace_level TENSORS is not offered: traces have times only".to_owned(),
                    );
                }
                wanted.timestamps = levels.iter().any(|level| level == "TIMESTAMPS");
                if wanted.timestamps && self.sink.get().is_none() {
                    return unoffered(
                        "this server was started without --trace-file, so that trace_level can only be OFF"
                            .to_owned(),
                    );
                }
            }
            ("trace_rate", values) => {
                let rate = |value: i64| u32::try_from(value).ok().filter(|&rate| rate > 0);
                wanted.rate = number(name, values, default.rate.into(), "from 1", rate)?;
            }
            ("trace_count", values) => {
                let count = |value: i64| Some(value).filter(|&count| count >= -1);
                wanted.count = number(name, values, default.count, "from -1", count)?;
            }
            ("log_frequency", values) => {
                let frequency = number(name, values, 0, "from 0", |value| u32::try_from(value).ok())?;
                if frequency != 0 {
                    return unoffered(format!("'{name}' can only be 0: traces go to one file as they come"));
                }
            }
            ("trace_file", [value])
                if !value.is_empty() && self.sink.get().is_none_or(|(name, _)| name != value) =>
            {
                // A client that chooses where the server writes can overwrite anything.
                return unoffered(format!("'{name}' cannot be set by a client"));
            }
            ("trace_mode", [mode]) if mode != "triton" => {
                return unoffered(format!("'{name}' can only be 'triton'"));
            }
            ("trace_file" | "trace_mode", [] | [_]) => {}
            _ => {
                let name: String = name.chars().take(64).collect();
                return Err(Error::invalid(format!(
                    "there is no trace setting '{}', or it has one value",
                    name.escape_debug()
                )));
            }
        }
        Ok(())
    }
}

/// The one number that a setting is, within what it may be.
fn number<T>(
    name: &str,
    values: &[String],
    default: i64,
    from: &str,
    fits: impl Fn(i64) -> Option<T>,
) -> Result<T> {
    let value = match values {
        [] => Some(default),
        [value] => value.parse().ok(),
        _ => None,
    };
    value.and_then(fits).ok_or_else(|| {
        Error::invalid(format!("trace setting '{name}' must be one integer {from}, got {values:.64?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(tracing: &Tracing, model: Option<&str>, name: &str, values: &[&str]) -> Result<()> {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        tracing.change(model, &[(name, &values[..])])
    }

    fn told(tracing: &Tracing, model: Option<&str>, name: &str) -> String {
        tracing.named(model).into_iter().find(|(known, _)| *known == name).unwrap().1
    }

    fn with_a_sink() -> (Tracing, std::sync::mpsc::Receiver<Trace>) {
        let tracing = Tracing::default();
        let (sender, receiver) = std::sync::mpsc::channel();
        tracing.trace_to("t.json".to_owned(), Box::new(move |trace| drop(sender.send(trace))));
        (tracing, receiver)
    }

    #[test]
    fn without_a_file_nothing_is_traced() {
        let tracing = Tracing::default();
        let error = change(&tracing, None, "trace_level", &["TIMESTAMPS"]).unwrap_err();
        assert_eq!(error.code, Code::Unimplemented);
        assert!(error.message.contains("--trace-file"), "{error}");
        change(&tracing, None, "trace_level", &["OFF"]).unwrap();
        change(&tracing, None, "trace_level", &[]).unwrap();
        assert!(tracing.scope("m").is_none());
    }

    #[test]
    fn one_in_so_many_is_taken_until_there_were_enough() {
        let (tracing, _) = with_a_sink();
        change(&tracing, None, "trace_rate", &["3"]).unwrap();
        change(&tracing, None, "trace_count", &["2"]).unwrap();
        assert!(tracing.scope("m").is_none());
        change(&tracing, None, "trace_level", &["TIMESTAMPS"]).unwrap();
        let scope = tracing.scope("m").unwrap();
        let taken: Vec<bool> = (0..10).map(|_| scope.takes()).collect();
        assert_eq!(taken, [true, false, false, true, false, false, false, false, false, false]);
        assert_eq!(told(&tracing, None, "trace_count"), "0");
    }

    #[test]
    fn a_model_may_have_settings_of_its_own() {
        let (tracing, _) = with_a_sink();
        change(&tracing, None, "trace_level", &["TIMESTAMPS"]).unwrap();
        change(&tracing, Some("quiet"), "trace_level", &["OFF"]).unwrap();
        assert!(tracing.scope("quiet").is_none());
        assert!(tracing.scope("other").is_some());
        assert_eq!(told(&tracing, Some("quiet"), "trace_level"), "OFF");
        assert_eq!(told(&tracing, Some("other"), "trace_level"), "TIMESTAMPS");
        change(&tracing, Some("quiet"), "trace_level", &[]).unwrap();
        assert!(tracing.scope("quiet").is_some(), "what holds for everything");
    }

    #[test]
    fn what_cannot_be_set_is_refused_by_name_and_changes_nothing() {
        let (tracing, _) = with_a_sink();
        for (name, values, code) in [
            ("trace_level", &["LOUD"][..], Code::InvalidArgument),
            ("trace_level", &["TENSORS"], Code::Unimplemented),
            ("trace_rate", &["0"], Code::InvalidArgument),
            ("trace_rate", &["x"], Code::InvalidArgument),
            ("trace_rate", &["1", "2"], Code::InvalidArgument),
            ("trace_count", &["-2"], Code::InvalidArgument),
            ("log_frequency", &["5"], Code::Unimplemented),
            ("trace_file", &["/tmp/x"], Code::Unimplemented),
            ("trace_mode", &["opentelemetry"], Code::Unimplemented),
            ("trace_color", &["red"], Code::InvalidArgument),
        ] {
            let before = tracing.named(None);
            let error = change(&tracing, None, name, values).unwrap_err();
            assert_eq!(error.code, code, "{error}");
            assert!(error.message.contains(name), "{error}");
            assert_eq!(tracing.named(None), before);
        }
    }
}
