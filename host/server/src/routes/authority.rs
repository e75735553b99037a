//! The authority of a request: exactly one, valid, and consistent between header and URI.
//!
//! RFC 9112, section 3.2, and RFC 9113, section 8.3.1. Two different hosts in one request are a way
//! to make a proxy and the server behind it disagree about the target of the request.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::uri::Scheme;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use infer_engine::text::{QUOTE_BYTES, excerpt};

use super::encoding;
use crate::error::ApiError;
use crate::limits::{MAX_HOST_BYTES, MAX_HOST_NAME_BYTES};

/// Header in which browsers report whether a page of another site sends the request.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A host in lower case, and its port if given.
type Authority = (String, Option<u16>);

/// Rejects a request that names no host, two hosts or an invalid one with 400, and a body with
/// another transfer coding than `chunked` with 501.
pub(super) async fn check(request: Request, next: Next) -> Response {
    let host = authority(request.version(), request.uri(), request.headers());
    match host.and_then(|_| encoding::check_transfer(request.headers())) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            let is_http2 = request.version() == Version::HTTP_2;
            let mut response = error.into_response();
            if !is_http2 {
                // If the host is ambiguous, the end of the request is ambiguous too.
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    }
}

/// Responds with 403 to requests that a browser sends on behalf of a page, and to requests for a
/// host other than the operator's listener, which is bound to `own`. A page can neither change its
/// `Host` nor omit the headers that the browser adds.
pub(super) async fn guard(State(own): State<Option<SocketAddr>>, request: Request, next: Next) -> Response {
    match admits(own, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn admits(own: Option<SocketAddr>, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    if let Some(origin) = headers.get(header::ORIGIN) {
        let message = format!(
            "the admin listener rejects requests of web pages (`Origin: {}`); use a program such as curl",
            shown(origin)
        );
        return Err(ApiError::forbidden(message));
    }
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    if !matches!(site, None | Some(b"none" | b"same-origin")) {
        let message = "the admin listener rejects requests of other sites' pages (`Sec-Fetch-Site`); use a program such as curl";
        return Err(ApiError::forbidden(message));
    }
    // HTTP/1.0 may omit the host; a browser always sends it.
    let Some((host, _)) = authority(request.version(), request.uri(), headers)? else { return Ok(()) };
    if is_operators(&host, own.map(|own| own.ip())) {
        return Ok(());
    }
    let own = own.map_or_else(|| "localhost".to_owned(), |own| own.to_string());
    let message = format!(
        "`Host` is `{}`, expected the address of the admin listener, `{own}`, or `localhost`",
        excerpt(&host, QUOTE_BYTES)
    );
    Err(ApiError::forbidden(message))
}

/// True if `host` names a listener on `own`. The port is ignored, because a tunnel has its own; a
/// page served under another name is recognized by that name.
fn is_operators(host: &str, own: Option<IpAddr>) -> bool {
    if host == "localhost" {
        return true;
    }
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let Ok(address) = literal.parse::<IpAddr>() else { return false };
    let address = address.to_canonical();
    address.is_loopback() || own.is_some_and(|own| own.is_unspecified() || own.to_canonical() == address)
}

/// The authority of a request; `None` if an HTTP/1.0 request has none.
///
/// # Errors
///
/// 400 if it is missing, ambiguous or invalid.
fn authority(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, ApiError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(ApiError::invalid("host", "the request has several `Host` headers; expected one"));
    }
    let invalid = |sent: Cow<'_, str>| {
        let sent = excerpt(&sent, QUOTE_BYTES);
        let message = format!("invalid `Host` header `{sent}`; expected a host such as `example.com:8080`");
        ApiError::invalid("host", message)
    };
    let host = match host {
        Some(value) => Some(parse(value.as_bytes()).ok_or_else(|| invalid(shown(value)))?),
        None => None,
    };
    let target = match uri.authority() {
        Some(authority) => {
            Some(parse(authority.as_str().as_bytes()).ok_or_else(|| invalid(authority.as_str().into()))?)
        }
        None => None,
    };
    match (target, host) {
        (None, None) if version < Version::HTTP_11 => Ok(None),
        (Some(target), None) if version != Version::HTTP_11 => Ok(Some(target)),
        (_, None) => Err(ApiError::invalid("host", "the request has no `Host` header; expected one")),
        (None, Some(host)) => Ok(Some(host)),
        (Some(target), Some(host)) => {
            let default_port = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
            let same =
                target.0 == host.0 && target.1.unwrap_or(default_port) == host.1.unwrap_or(default_port);
            same.then_some(Some(target)).ok_or_else(|| {
                ApiError::invalid(
                    "host",
                    "the `Host` header differs from the host of the request's target; expected the same",
                )
            })
        }
    }
}

/// Parses a host and a port without user information: the `uri-host [ ":" port ]` of RFC 9110,
/// limited to DNS names and addresses.
fn parse(text: &[u8]) -> Option<Authority> {
    let text = str::from_utf8(text).ok().filter(|text| text.len() <= MAX_HOST_BYTES)?;
    let (host, port) = match text.strip_prefix('[') {
        Some(literal) => {
            let (address, port) = literal.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (&text[..address.len() + 2], port)
        }
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            if !is_name(host) {
                return None;
            }
            (host, port)
        }
    };
    let port = match port {
        "" | ":" => None,
        port => {
            let digits = port.strip_prefix(':')?;
            // `parse` also accepts a sign.
            Some(digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?)
        }
    };
    Some((host.to_ascii_lowercase(), port))
}

/// True for an IPv4 address or a DNS name, which may end with a dot. Labels consist of letters,
/// digits and `-_~`, with at least one letter or digit.
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_~".contains(&byte))
            && label.bytes().any(|byte| byte.is_ascii_alphanumeric())
    };
    host.len() <= MAX_HOST_NAME_BYTES && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
}

fn shown(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(version: Version, uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    fn is_valid(request: &Request) -> bool {
        authority(request.version(), request.uri(), request.headers()).is_ok()
    }

    #[test]
    fn one_valid_host_is_required() {
        let (v10, v11, v2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        let long = "x".repeat(70_000);
        let cases: [(Version, &str, &[&str], bool); 26] = [
            (v11, "/", &["a"], true),
            (v11, "/", &["a:80"], true),
            (v11, "/", &["[::1]:8080"], true),
            (v11, "/", &["a:"], true),
            (v11, "/", &[], false),
            (v11, "/", &["a", "a"], false),
            (v11, "/", &["a", "b"], false),
            (v11, "/", &[""], false),
            (v11, "/", &["a b"], false),
            (v11, "/", &["a/b"], false),
            (v11, "/", &["a, b"], false),
            (v11, "/", &["user@a"], false),
            (v11, "/", &["a:b"], false),
            (v11, "/", &["a:99999"], false),
            (v11, "/", &["[::1"], false),
            (v11, "/", &[&long], false),
            (v11, "http://a/", &["A:80"], true),
            (v11, "http://a/", &["b"], false),
            (v11, "http://a/", &[], false),
            (v10, "/", &[], true),
            (v10, "/", &["a", "b"], false),
            (v2, "https://a/", &[], true),
            (v2, "https://a/", &["a:443"], true),
            (v2, "https://a/", &["b"], false),
            (v2, "/", &[], false),
            (v2, "https://a/", &["a", "a"], false),
        ];
        for (version, uri, hosts, expected) in cases {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            assert_eq!(is_valid(&request(version, uri, &headers)), expected, "{version:?} {uri} {hosts:?}");
        }
    }

    #[test]
    fn hosts_are_names_and_addresses() {
        let longest = format!("{}.{}", "a".repeat(100), "b".repeat(152));
        let too_long = format!("{longest}c");
        let cases = [
            ("localhost", true),
            ("example.com.:80", true),
            ("my_host-1.a~b", true),
            ("127.0.0.1:8080", true),
            ("[::1]", true),
            ("[::ffff:10.0.0.1]:65535", true),
            (&longest, true),
            (&too_long, false),
            ("..", false),
            (".", false),
            ("a..b", false),
            (".a", false),
            ("-", false),
            ("a.-", false),
            ("a,b", false),
            ("a%20b", false),
            ("localhost:+80", false),
            ("localhost:-1", false),
            ("localhost: 80", false),
            ("localhost:65536", false),
            ("localhost:80:80", false),
            (":80", false),
            ("::1", false),
            ("[::1%25lo]", false),
            ("[::1]x", false),
            ("[v1.a]", false),
            ("[127.0.0.1]", false),
            ("ü", false),
        ];
        for (host, expected) in cases {
            assert_eq!(parse(host.as_bytes()).is_some(), expected, "{host}");
        }
        assert_eq!(parse(b"A.Example:080"), Some(("a.example".to_owned(), Some(80))));
        assert_eq!(parse(b"[::1]:"), Some(("[::1]".to_owned(), None)));
    }

    #[test]
    fn admin_listener_rejects_web_pages() {
        type Headers<'h> = &'h [(&'h str, &'h str)];
        let cases: [(&str, Headers<'_>, bool); 14] = [
            ("127.0.0.1:9000", &[("host", "127.0.0.1:9000")], true),
            ("127.0.0.1:9000", &[("host", "localhost:9000")], true),
            ("127.0.0.1:9000", &[("host", "LOCALHOST")], true),
            ("127.0.0.1:9000", &[("host", "[::1]:9000")], true),
            ("10.0.0.5:9000", &[("host", "10.0.0.5:9000")], true),
            ("0.0.0.0:9000", &[("host", "10.0.0.5:9000")], true),
            ("127.0.0.1:9000", &[("host", "10.0.0.5:9000")], false),
            ("127.0.0.1:9000", &[("host", "pages.example")], false),
            ("127.0.0.1:9000", &[("host", "localhost.pages.example:9000")], false),
            ("127.0.0.1:9000", &[("host", "127.0.0.1:9000"), ("origin", "http://127.0.0.1:9000")], false),
            ("127.0.0.1:9000", &[("host", "127.0.0.1:9000"), ("origin", "null")], false),
            ("127.0.0.1:9000", &[("host", "127.0.0.1:9000"), ("sec-fetch-site", "cross-site")], false),
            ("127.0.0.1:9000", &[("host", "127.0.0.1:9000"), ("sec-fetch-site", "same-site")], false),
            ("127.0.0.1:9000", &[("host", "127.0.0.1:9000"), ("sec-fetch-site", "none")], true),
        ];
        for (own, headers, expected) in cases {
            let request = request(Version::HTTP_11, "/admin/reload", headers);
            assert_eq!(admits(own.parse().ok(), &request).is_ok(), expected, "{own} {headers:?}");
        }
    }
}
