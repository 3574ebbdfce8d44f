//! Every path of the HTTP protocols and its methods, as the `OpenAPI` document must have them.
//!
//! Requests are routed by `match`, which cannot be listed. So this is the list, and a build with debug assertions
//! ends when it answers anything that is not in it: a route that nobody listed fails its own test. It cannot tell
//! a word from a model of that name, as in `/v2/models/stats`.

use http::{Method, StatusCode};

use crate::message::decode_percent;

/// Paths, with `{name}` where any segment stands, and the methods that are answered there. GET is also HEAD; a
/// frame may be sent to any path.
pub const HTTP_ROUTES: &[(&str, &[&str])] = &[
    ("/v1/infer", &["POST"]),
    // Open Inference
    ("/v2", &["GET"]),
    ("/v2/health/live", &["GET"]),
    ("/v2/health/ready", &["GET"]),
    ("/v2/models", &["GET"]),
    ("/v2/models/stats", &["GET"]),
    ("/v2/models/{model}", &["GET"]),
    ("/v2/models/{model}/ready", &["GET"]),
    ("/v2/models/{model}/config", &["GET"]),
    ("/v2/models/{model}/stats", &["GET"]),
    ("/v2/models/{model}/infer", &["POST"]),
    ("/v2/models/{model}/generate", &["POST"]),
    ("/v2/models/{model}/generate_stream", &["POST"]),
    ("/v2/models/{model}/versions/{version}", &["GET"]),
    ("/v2/models/{model}/versions/{version}/ready", &["GET"]),
    ("/v2/models/{model}/versions/{version}/config", &["GET"]),
    ("/v2/models/{model}/versions/{version}/stats", &["GET"]),
    ("/v2/models/{model}/versions/{version}/infer", &["POST"]),
    ("/v2/models/{model}/versions/{version}/generate", &["POST"]),
    ("/v2/models/{model}/versions/{version}/generate_stream", &["POST"]),
    ("/v2/repository/index", &["POST"]),
    ("/v2/repository/models/{model}/load", &["POST"]),
    ("/v2/repository/models/{model}/unload", &["POST"]),
    ("/v2/repository/{repository}/index", &["POST"]),
    ("/v2/repository/{repository}/models/{model}/load", &["POST"]),
    ("/v2/repository/{repository}/models/{model}/unload", &["POST"]),
    ("/v2/logging", &["GET", "POST"]),
    ("/v2/trace/setting", &["GET", "POST"]),
    ("/v2/models/{model}/trace/setting", &["GET", "POST"]),
    ("/v2/systemsharedmemory/status", &["GET"]),
    ("/v2/systemsharedmemory/unregister", &["POST"]),
    ("/v2/systemsharedmemory/region/{region}/status", &["GET"]),
    ("/v2/systemsharedmemory/region/{region}/register", &["POST"]),
    ("/v2/systemsharedmemory/region/{region}/unregister", &["POST"]),
    ("/v2/cudasharedmemory/status", &["GET"]),
    ("/v2/cudasharedmemory/unregister", &["POST"]),
    ("/v2/cudasharedmemory/region/{region}/status", &["GET"]),
    ("/v2/cudasharedmemory/region/{region}/register", &["POST"]),
    ("/v2/cudasharedmemory/region/{region}/unregister", &["POST"]),
    // GraphPipe; DELETE is SageMaker's
    ("/", &["GET", "POST", "PUT"]),
    ("/{model}", &["GET", "POST", "PUT"]),
    ("/models/{model}", &["GET", "POST", "PUT", "DELETE"]),
    ("/models/{model}/versions/{version}", &["GET", "POST", "PUT"]),
    ("/control/is_alive", &["GET"]),
    ("/control/is_ready", &["GET"]),
    ("/control/client_count", &["GET"]),
    // TensorFlow Serving and KServe V1
    ("/v1/models", &["GET"]),
    ("/v1/models/{model}", &["GET"]),
    ("/v1/models/{model}/metadata", &["GET"]),
    ("/v1/models/{model}:predict", &["POST"]),
    ("/v1/models/{model}:classify", &["POST"]),
    ("/v1/models/{model}:regress", &["POST"]),
    ("/v1/models/{model}:explain", &["POST"]),
    ("/v1/models/{model}/versions/{version}", &["GET"]),
    ("/v1/models/{model}/versions/{version}/metadata", &["GET"]),
    ("/v1/models/{model}/versions/{version}:predict", &["POST"]),
    ("/v1/models/{model}/versions/{version}:classify", &["POST"]),
    ("/v1/models/{model}/versions/{version}:regress", &["POST"]),
    ("/v1/models/{model}/versions/{version}:explain", &["POST"]),
    ("/v1/models/{model}/labels/{label}", &["GET"]),
    ("/v1/models/{model}/labels/{label}/metadata", &["GET"]),
    ("/v1/models/{model}/labels/{label}:predict", &["POST"]),
    ("/v1/models/{model}/labels/{label}:classify", &["POST"]),
    ("/v1/models/{model}/labels/{label}:regress", &["POST"]),
    ("/v1/models/{model}/labels/{label}:explain", &["POST"]),
    // SageMaker and MLflow
    ("/ping", &["GET"]),
    ("/health", &["GET"]),
    ("/version", &["GET"]),
    ("/invocations", &["POST"]),
    ("/endpoints/{model}/invocations", &["POST"]),
    ("/models/{model}/invoke", &["POST"]),
    ("/models", &["GET", "POST"]),
];

/// Fail, in a build with debug assertions, if a path was answered that is not listed.
pub(crate) fn check(method: &Method, path: &str, status: StatusCode) {
    let is_refused =
        matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::FORBIDDEN);
    if is_refused || !cfg!(debug_assertions) {
        return;
    }
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    // Of GraphPipe's own paths, which any path fits, none comes here.
    let mut routes = HTTP_ROUTES.iter().filter(|(pattern, _)| !pattern.starts_with("/{"));
    let is_listed = routes.any(|(pattern, methods)| methods.contains(&method) && fits(pattern, path));
    assert!(is_listed, "{method} {path} was answered with {status}, but no row of HTTP_ROUTES is for it");
}

fn fits(pattern: &str, path: &str) -> bool {
    let segments = |text| str::split(str::trim_matches(text, '/'), '/');
    let fits = |(pattern, segment): (&str, &str)| {
        let segment = decode_percent(segment);
        match pattern.strip_prefix('{').and_then(|name| name.split_once('}')) {
            Some((_, verb)) => segment.ends_with(verb),
            None => segment == pattern,
        }
    };
    segments(pattern).count() == segments(path).count() && segments(pattern).zip(segments(path)).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_any_name_and_for_nothing_else() {
        assert!(fits("/v1/models/{model}:predict", "/v1/models/a%2Fb:predict"));
        assert!(fits("/", "/"));
        assert!(!fits("/v1/models/{model}:predict", "/v1/models/m:regress"));
        assert!(!fits("/v2/models", "/v2/models/m"));
    }

    #[test]
    #[should_panic(expected = "GET /nobody was answered with 200 OK")]
    fn an_answer_that_no_row_is_for_is_a_fault() {
        check(&Method::HEAD, "/v2", StatusCode::OK);
        check(&Method::GET, "/nobody", StatusCode::NOT_FOUND);
        check(&Method::GET, "/nobody", StatusCode::OK);
    }
}
