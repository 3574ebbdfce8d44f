//! What can be set while the server runs: which lines are logged.
//!
//! Holds the values and judges changes; whoever writes lines asks here. Settings come as named values,
//! whatever protocol they came by. A change is made as a whole or not at all.

use std::sync::{Mutex, PoisonError};

use kingpole_values::{ByteString, Code, Error, Parameter, Parameters, Result};

/// Which lines are logged, and how they begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// What happens as it should.
    pub info: bool,
    /// What an operator should look at.
    pub warning: bool,
    /// What failed.
    pub error: bool,
    /// 0 is none; from 1 on, every request to load or unload.
    pub verbose_level: u32,
    /// How lines begin.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { info: true, warning: true, error: true, verbose_level: 0, format: LogFormat::default() }
    }
}

/// How a line begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// With its text.
    #[default]
    Plain,
    /// With the time.
    Iso8601,
}

impl LogFormat {
    const ALL: [Self; 2] = [Self::Plain, Self::Iso8601];

    /// Its name in the logging extension.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "default",
            Self::Iso8601 => "ISO8601",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

impl LogSettings {
    /// The settings by the names of the logging extension, in its order.
    pub fn named(&self) -> Parameters {
        let value = |name: &'static str, value| (name.into(), value);
        vec![
            value("log_file", Parameter::String(ByteString::new())),
            value("log_info", Parameter::Bool(self.info)),
            value("log_warning", Parameter::Bool(self.warning)),
            value("log_error", Parameter::Bool(self.error)),
            value("log_verbose_level", Parameter::Int64(self.verbose_level.into())),
            value("log_format", Parameter::String(self.format.name().into())),
        ]
    }

    fn set(&mut self, name: &str, value: &Parameter) -> Result<()> {
        match (name, value) {
            ("log_info", Parameter::Bool(on)) => self.info = *on,
            ("log_warning", Parameter::Bool(on)) => self.warning = *on,
            ("log_error", Parameter::Bool(on)) => self.error = *on,
            ("log_info" | "log_warning" | "log_error", _) => {
                return Err(Error::invalid(format!("log setting '{name}' must be true or false")));
            }
            ("log_verbose_level", Parameter::Int64(_) | Parameter::Uint64(_)) => {
                self.verbose_level = whole(value).ok_or_else(|| wrong_level(name))?;
            }
            ("log_verbose_level", _) => return Err(wrong_level(name)),
            ("log_format", value) => {
                let format =
                    if let Parameter::String(name) = value { LogFormat::from_name(name) } else { None };
                self.format = format.ok_or_else(|| {
                    let names = LogFormat::ALL.map(LogFormat::name).join(", ");
                    Error::invalid(format!("log setting 'log_format' must be one of: {names}"))
                })?;
            }
            ("log_file", _) => return Err(no_file(name)),
            _ => return Err(Error::invalid(format!("there is no log setting '{}'", shown(name)))),
        }
        Ok(())
    }
}

fn whole(value: &Parameter) -> Option<u32> {
    match value {
        Parameter::Int64(value) => u32::try_from(*value).ok(),
        Parameter::Uint64(value) => u32::try_from(*value).ok(),
        _ => None,
    }
}

fn wrong_level(name: &str) -> Error {
    Error::invalid(format!("log setting '{name}' must be an integer of at least 0"))
}

fn no_file(name: &str) -> Error {
    // A client that chooses where the server writes can overwrite anything.
    Error::new(Code::Unimplemented, format!("'{name}' cannot be set by a client"))
}

/// A name from outside, fit to be written.
fn shown(name: &str) -> String {
    name.chars().take(64).collect::<String>().escape_debug().to_string()
}

/// The settings of a running server.
#[derive(Debug, Default)]
pub(crate) struct Settings(Mutex<LogSettings>);

impl Settings {
    pub fn log(&self) -> LogSettings {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn change_log(&self, changes: &Parameters) -> Result<()> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = log.clone();
        for (name, value) in changes {
            next.set(name, value)?;
        }
        *log = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(settings: &Settings, name: &'static str, value: Parameter) -> Result<()> {
        settings.change_log(&vec![(name.into(), value)])
    }

    #[test]
    fn what_is_set_is_told() {
        let settings = Settings::default();
        change(&settings, "log_info", Parameter::Bool(false)).unwrap();
        change(&settings, "log_verbose_level", Parameter::Int64(2)).unwrap();
        change(&settings, "log_format", Parameter::String("ISO8601".into())).unwrap();
        let expected = LogSettings {
            info: false,
            verbose_level: 2,
            format: LogFormat::Iso8601,
            ..LogSettings::default()
        };
        assert_eq!(settings.log(), expected);
        assert!(settings.log().named().contains(&("log_info".into(), Parameter::Bool(false))));
    }

    #[test]
    fn a_change_is_made_as_a_whole_or_not_at_all() {
        let settings = Settings::default();
        let changes = vec![
            ("log_info".into(), Parameter::Bool(false)),
            ("log_error".into(), Parameter::String("no".into())),
        ];
        let error = settings.change_log(&changes).unwrap_err();
        assert!(error.message.contains("'log_error'"), "{error}");
        assert_eq!(settings.log(), LogSettings::default());
    }

    #[test]
    fn what_cannot_be_set_is_refused_by_name() {
        let settings = Settings::default();
        for (name, value, code) in [
            ("log_file", Parameter::String("/etc/passwd".into()), Code::Unimplemented),
            ("log_verbose_level", Parameter::Int64(-1), Code::InvalidArgument),
            ("log_verbose_level", Parameter::Bool(true), Code::InvalidArgument),
            ("log_format", Parameter::String("xml".into()), Code::InvalidArgument),
            ("log_colour", Parameter::Bool(true), Code::InvalidArgument),
        ] {
            let error = change(&settings, name, value).unwrap_err();
            assert_eq!(error.code, code, "{error}");
            assert!(error.message.contains(name), "{error}");
        }
    }
}
