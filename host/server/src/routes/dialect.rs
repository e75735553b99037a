//! Error formats: the path selects the protocol's format for every error, from unknown routes to
//! the deadline.

use axum::http::header;
use axum::response::Response;
use infer_config::paths::KSERVE;
use infer_config::percent::decoded;

use super::{kserve, perspective};
use crate::error::ApiError;

/// Format of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `{"error": {"message", "type", "param", "code"}}`
    OpenAi,
    /// `{"error": "a sentence"}`, at and below `/v2`.
    Kserve,
    /// `{"error": {"code", "message", "status", "details"}}`, below Perspective's version.
    Google,
}

impl Dialect {
    /// The format for errors at `path`, as the client wrote it.
    pub(super) fn of(path: &str) -> Self {
        if is_below(path, KSERVE) {
            Dialect::Kserve
        } else if is_below(path, perspective::PREFIX) {
            Dialect::Google
        } else {
            Dialect::OpenAi
        }
    }

    /// Converts `response` to this format if it is an error.
    pub(super) fn write(self, response: Response) -> Response {
        match self {
            // Errors already have this format.
            Dialect::OpenAi => response,
            Dialect::Kserve => reformatted(response, kserve::failure),
            Dialect::Google => reformatted(response, perspective::failure),
        }
    }
}

/// True if `path` is `prefix`, or below it.
fn is_below(path: &str, prefix: &str) -> bool {
    let mut rest = decoded(path.bytes());
    prefix.bytes().all(|byte| rest.next() == Some(byte)) && matches!(rest.next(), None | Some(b'/'))
}

/// Replaces the body of `response` with the output of `write`, if it is an error.
fn reformatted(response: Response, write: fn(&ApiError) -> Response) -> Response {
    let Some(error) = response.extensions().get::<ApiError>() else { return response };
    let (new, body) = write(error).into_parts();
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(new.headers);
    Response::from_parts(parts, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_selects_error_format() {
        let cases = [
            ("/v2", Dialect::Kserve),
            ("/v2/", Dialect::Kserve),
            ("/v2/models/a%ff/infer", Dialect::Kserve),
            ("/%762/models", Dialect::Kserve),
            ("/v2%2Fmodels", Dialect::Kserve),
            ("/v20", Dialect::OpenAi),
            ("/V2", Dialect::OpenAi),
            ("/v1/models", Dialect::OpenAi),
            ("/", Dialect::OpenAi),
            ("", Dialect::OpenAi),
            ("*", Dialect::OpenAi),
            ("/v1alpha1/comments:analyze", Dialect::Google),
            ("/v1alpha1/comments%3Aanalyze", Dialect::Google),
            ("/v1alpha1", Dialect::Google),
        ];
        for (path, expected) in cases {
            assert_eq!(Dialect::of(path), expected, "{path}");
        }
    }
}
