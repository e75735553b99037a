//! The server's own paths, which no component may use as its route, and the paths of a route.

/// List of models that clients may use.
pub const MODELS: &str = "/v1/models";

/// OpenAI's moderation endpoint.
pub const MODERATIONS: &str = "/v1/moderations";

/// OpenAI's chat and text completions.
pub const COMPLETIONS: [&str; 2] = ["/v1/chat/completions", "/v1/completions"];

/// Perspective's comment analysis.
pub const PERSPECTIVE: &str = "/v1alpha1/comments:analyze";

/// The prefix of the Open Inference Protocol.
pub const KSERVE: &str = "/v2";

/// The OpenAPI document.
pub const OPENAPI: &str = "/openapi.json";

/// Liveness probe.
pub const HEALTHZ: &str = "/healthz";

/// Readiness probe.
pub const READYZ: &str = "/readyz";

/// Metrics in the text format of OpenMetrics.
pub const METRICS: &str = "/metrics";

/// Returns true if `path` is the server's own and may not be a component's route.
pub fn is_reserved(path: &str) -> bool {
    const RESERVED: [&str; 6] = [HEALTHZ, READYZ, METRICS, OPENAPI, MODERATIONS, PERSPECTIVE];
    let is_below =
        |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    RESERVED.contains(&path) || COMPLETIONS.contains(&path) || is_below(KSERVE) || is_below(MODELS)
}

/// Suffix of a route that includes all paths below it.
pub const BELOW: &str = "/...";

/// Returns the paths of `route` in the router's syntax. A component gets the whole path of a
/// request.
pub fn paths(route: &str) -> Vec<String> {
    match route.strip_suffix(BELOW) {
        None => vec![route.to_owned()],
        Some("") => vec!["/".to_owned(), "/{*below}".to_owned()],
        Some(path) => vec![path.to_owned(), format!("{path}/"), format!("{path}/{{*below}}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_may_include_all_paths_below() {
        assert_eq!(paths("/gate"), ["/gate"]);
        assert_eq!(paths("/gate/..."), ["/gate", "/gate/", "/gate/{*below}"]);
        assert_eq!(paths("/..."), ["/", "/{*below}"]);
    }
}
