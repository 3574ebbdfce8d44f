//! Cross-origin requests: which web pages' scripts may call this server. Off unless origins are configured.
//!
//! Knows no routes: what may be asked is the same everywhere, as the answers say nothing that depends on cookies.
//!
//! Source: the Fetch standard, "HTTP extensions" of "CORS protocol".

use http::header;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use kingpole_values::{Code, Error, Result};

use crate::message::{HttpRequest, HttpResponse, TEXT};

/// What scripts may read of an answer beside what they always may.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Inference-Header-Content-Length, Content-Encoding, Retry-After");
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE");
/// How long a browser may remember a permission, in seconds: the longest that any of them takes.
const REMEMBERED_SECONDS: HeaderValue = HeaderValue::from_static("7200");
const VARY: HeaderValue = HeaderValue::from_static("Origin");

/// The origins whose pages may call.
#[derive(Clone, Debug)]
pub struct Origins {
    any: bool,
    listed: Vec<HeaderValue>,
}

impl Origins {
    /// Origins as browsers send them, `https://host` or `http://host:port`, or `*` for any; `None` if there are none.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` naming what is no origin.
    pub fn new(origins: &[String]) -> Result<Option<Self>> {
        if origins.is_empty() {
            return Ok(None);
        }
        let listed = origins.iter().filter(|origin| *origin != "*").map(|origin| read(origin));
        let any = origins.iter().any(|origin| origin == "*");
        Ok(Some(Self { any, listed: listed.collect::<Result<_>>()? }))
    }

    /// What a request's origin is answered with, if its page may call.
    fn allows(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        self.listed.iter().find(|listed| listed.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))?;
        Some(origin.clone())
    }
}

fn read(origin: &str) -> Result<HeaderValue> {
    let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    let is_origin =
        rest.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', ',', ' ', '*']));
    let value = is_origin.then(|| HeaderValue::from_str(origin).ok()).flatten();
    value.ok_or_else(|| {
        let message =
            format!("'{origin}' is no origin, such as https://example.org or http://localhost:3000, nor *");
        Error::new(Code::FailedPrecondition, message)
    })
}

/// What a request's answer has to tell a browser; `None` if its page may not read it.
pub(crate) fn permission(origins: Option<&Origins>, request: &HttpRequest) -> Option<HeaderValue> {
    origins?.allows(&request.headers)
}

/// The answer to a browser's question whether it may ask; `None` if the request is none.
pub(crate) fn preflight(origins: Option<&Origins>, request: &HttpRequest) -> Option<HttpResponse> {
    let origins = origins?;
    let is_question = request.method == Method::OPTIONS
        && request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !is_question {
        return None;
    }
    let Some(allowed) = origins.allows(&request.headers) else {
        let message = "this server's configuration does not allow that origin";
        return Some(HttpResponse::new(StatusCode::FORBIDDEN, TEXT, vec![message.into()]));
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    // A page that may call may say what it likes: no header is a secret between the two.
    let wanted = request.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    if let Some(wanted) = wanted {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED_SECONDS);
    headers.insert(header::VARY, VARY);
    let pieces = Vec::new();
    Some(HttpResponse { status: StatusCode::NO_CONTENT, headers, pieces, streamed: None, close: false })
}

/// Say in an answer that the page may read it, and to caches that another page's answer is another.
pub(crate) fn tell(permission: Option<HeaderValue>, response: &mut HttpResponse) {
    if let Some(permission) = permission {
        response.headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, permission);
        response.headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response.headers.append(header::VARY, VARY);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(listed: &[&str]) -> Result<Option<Origins>> {
        Origins::new(&listed.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn asking(origin: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static(origin))])
    }

    #[test]
    fn only_listed_origins_may_call() {
        let listed = origins(&["https://a.example", "http://localhost:3000"]).unwrap().unwrap();
        assert_eq!(listed.allows(&asking("https://a.example")).unwrap(), "https://a.example");
        assert_eq!(listed.allows(&asking("http://LOCALHOST:3000")).unwrap(), "http://LOCALHOST:3000");
        for other in ["http://a.example", "https://a.example:1", "https://b.a.example", "null"] {
            assert_eq!(listed.allows(&asking(other)), None, "{other}");
        }
        assert_eq!(listed.allows(&HeaderMap::new()), None);
        assert_eq!(origins(&["*"]).unwrap().unwrap().allows(&asking("null")).unwrap(), "*");
    }

    #[test]
    fn what_is_no_origin_is_refused_at_the_start() {
        assert!(origins(&[]).unwrap().is_none());
        for bad in
            ["", "a.example", "https://", "https://a/", "https://a/b", "ftp://a", "https://*.a", "null"]
        {
            let error = origins(&[bad]).unwrap_err();
            assert!(error.message.contains(&format!("'{bad}' is no origin")), "{error}");
        }
    }
}
