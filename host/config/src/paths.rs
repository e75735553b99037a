//! The server's own routes, the paths that no component may use, and the paths of a component's
//! route.
//!
//! [`Route`] is the one list of the server's own paths. The router, `/openapi.json` and
//! [`is_reserved`] are made from it.

/// Method of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET, which includes HEAD.
    Get,
    /// POST.
    Post,
}

/// The listeners that serve a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listeners {
    /// The public listener.
    Public,
    /// The operator's listener, `admin_listen`.
    Admin,
    /// The operator's listener if there is one, otherwise the public listener.
    AdminOrPublic,
    /// The public listener and the operator's.
    Both,
}

/// Declares [`Route`] and its columns from one row for each route.
macro_rules! routes {
    ($($(#[$doc:meta])* $route:ident: $method:ident $paths:expr, $listeners:ident;)*) => {
        /// A route of the server itself. Components have their own, from the configuration.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Route {
            $($(#[$doc])* $route,)*
        }

        impl Route {
            /// Every route.
            pub const ALL: &[Route] = &[$(Route::$route),*];

            /// Method of the route.
            #[must_use]
            pub const fn method(self) -> Method {
                match self {
                    $(Route::$route => Method::$method,)*
                }
            }

            /// Paths of the route, in the router's syntax. A part in braces is a parameter.
            #[must_use]
            pub const fn paths(self) -> &'static [&'static str] {
                match self {
                    $(Route::$route => &$paths,)*
                }
            }

            /// Listeners that serve the route.
            #[must_use]
            pub const fn listeners(self) -> Listeners {
                match self {
                    $(Route::$route => Listeners::$listeners,)*
                }
            }
        }
    };
}

routes! {
    /// OpenAI's chat completions.
    ChatCompletions: Post ["/v1/chat/completions"], Public;
    /// OpenAI's text completions.
    Completions: Post ["/v1/completions"], Public;
    /// OpenAI's embeddings.
    Embeddings: Post ["/v1/embeddings"], Public;
    /// Texts by their relevance for a query.
    Rerank: Post ["/rerank"], Public;
    /// OpenAI's moderations.
    Moderations: Post ["/v1/moderations"], Public;
    /// Perspective's analysis of a comment.
    AnalyzeComment: Post ["/v1alpha1/comments:analyze"], Public;
    /// List of the models and components that a client may use.
    ListModels: Get ["/v1/models"], Both;
    /// One of them.
    GetModel: Get ["/v1/models/{model}"], Public;
    /// Server metadata of the Open Inference Protocol.
    ServerMetadata: Get ["/v2"], Public;
    /// Liveness probe of the Open Inference Protocol.
    ServerLive: Get ["/v2/health/live"], Public;
    /// Readiness probe of the Open Inference Protocol.
    ServerReady: Get ["/v2/health/ready"], Public;
    /// Metadata of a model.
    ModelMetadata: Get ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"], Public;
    /// Readiness of a model.
    ModelReady: Get ["/v2/models/{model}/ready", "/v2/models/{model}/versions/{version}/ready"], Public;
    /// Inference by a model.
    ModelInfer: Post ["/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"], Public;
    /// The OpenAPI document of the listener.
    OpenApi: Get ["/openapi.json"], Both;
    /// Liveness probe.
    Healthz: Get ["/healthz"], AdminOrPublic;
    /// Readiness probe.
    Readyz: Get ["/readyz"], AdminOrPublic;
    /// Metrics in the text format of OpenMetrics.
    Metrics: Get ["/metrics"], AdminOrPublic;
    /// Reload of the configuration.
    Reload: Post ["/admin/reload"], Admin;
    /// The resolved configuration.
    State: Get ["/admin/state"], Admin;
    /// Comparison of models with their next versions.
    Versions: Get ["/admin/versions"], Admin;
}

/// Prefix of the Open Inference Protocol. Every path below it belongs to the protocol.
pub const KSERVE: &str = "/v2";

impl Route {
    /// True if `path` is one of the route's paths. Parameters are not matched.
    #[must_use]
    pub fn has_path(self, path: &str) -> bool {
        self.paths().contains(&path)
    }

    /// True if the public listener serves the route. `has_admin`: the operator has a separate
    /// listener.
    #[must_use]
    pub fn is_public(self, has_admin: bool) -> bool {
        match self.listeners() {
            Listeners::Public | Listeners::Both => true,
            Listeners::AdminOrPublic => !has_admin,
            Listeners::Admin => false,
        }
    }

    /// True if the operator's listener serves the route.
    #[must_use]
    pub fn is_admin(self) -> bool {
        self.listeners() != Listeners::Public
    }
}

/// Returns true if `path` is the server's own and may not be a component's route: a path of the
/// public listener, or any path below one with parameters.
pub fn is_reserved(path: &str) -> bool {
    let is_below =
        |own: &str| path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_own = |own: &str| own.split_once("/{").map_or(own == path, |(prefix, _)| is_below(prefix));
    let mut public = Route::ALL.iter().filter(|route| route.is_public(false));
    is_below(KSERVE) || public.any(|route| route.paths().iter().any(|own| is_own(own)))
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
    fn public_paths_are_reserved() {
        for route in Route::ALL {
            for path in route.paths() {
                assert_eq!(is_reserved(path), route.is_public(false), "{path}");
            }
        }
        for path in ["/v1/models/", "/v1/models/a/b", "/v2/", "/v2/repository", "/v2/models/a/infer/"] {
            assert!(is_reserved(path), "{path}");
        }
        for path in ["/", "/v1", "/v1/modelsx", "/v20", "/healthz/", "/v1/moderations/a", "/admin"] {
            assert!(!is_reserved(path), "{path}");
        }
    }

    #[test]
    fn route_with_suffix_includes_paths_below() {
        assert_eq!(paths("/gate"), ["/gate"]);
        assert_eq!(paths("/gate/..."), ["/gate", "/gate/", "/gate/{*below}"]);
        assert_eq!(paths("/..."), ["/", "/{*below}"]);
    }
}
