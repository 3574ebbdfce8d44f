//! Request headers that are passed on to models, as parameters.

use http::HeaderMap;
use kingpole_values::{Code, Error, Parameter, Parameters, Result};
use regex::Regex;

/// Which headers are passed on: those in whose names the pattern is found.
#[derive(Clone, Debug)]
pub struct HeaderPattern(Regex);

impl HeaderPattern {
    /// A regular expression, which need match only a part of a name; case does not matter.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION`, with what is wrong with the expression.
    pub fn new(pattern: &str) -> Result<Self> {
        // Header names are ASCII, and compared as such.
        let built = regex::RegexBuilder::new(pattern).case_insensitive(true).build();
        built.map(Self).map_err(|error| {
            Error::new(Code::FailedPrecondition, format!("'{pattern}' is no regular expression: {error}"))
        })
    }

    /// Add the headers that match to a request's parameters. What the request says itself stays.
    pub(crate) fn forward(&self, headers: &HeaderMap, parameters: &mut Parameters) {
        for name in headers.keys().filter(|name| self.0.is_match(name.as_str())) {
            if parameters.iter().any(|(known, _)| known == name.as_str()) {
                continue;
            }
            let values: Vec<_> =
                headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            parameters.push((name.as_str().into(), Parameter::String(values.join(", ").into())));
        }
    }
}

/// What is passed on of these headers: nothing where no pattern is set.
pub(crate) fn forwarded(pattern: Option<&HeaderPattern>, headers: &HeaderMap) -> Parameters {
    let mut parameters = Parameters::new();
    if let Some(pattern) = pattern {
        pattern.forward(headers, &mut parameters);
    }
    parameters
}

/// Give a request what was passed on of the headers that came with it.
pub(crate) fn add(forwarded: &Parameters, parameters: &mut Parameters) {
    for (name, value) in forwarded {
        if !parameters.iter().any(|(known, _)| known == name) {
            parameters.push((name.clone(), value.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn matching_headers_become_parameters_unless_the_request_says_otherwise() {
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", HeaderValue::from_static("blue"));
        headers.append("x-trace", HeaderValue::from_static("a"));
        headers.append("x-trace", HeaderValue::from_static("b"));
        headers.insert("x-mine", HeaderValue::from_static("theirs"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        let text = |text: &'static str| Parameter::String(text.into());
        let mut parameters = vec![("x-mine".into(), text("mine"))];
        HeaderPattern::new("X-").unwrap().forward(&headers, &mut parameters);
        parameters.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(
            parameters,
            [
                ("x-mine".into(), text("mine")),
                ("x-tenant".into(), text("blue")),
                ("x-trace".into(), text("a, b"))
            ]
        );
        assert!(HeaderPattern::new("x-(").unwrap_err().message.contains("x-("));
    }
}
