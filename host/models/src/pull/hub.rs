//! Fetches from the Hugging Face hub, or from a mirror named by `HF_ENDPOINT`, over HTTP. The
//! folder `HF_HOME` may contain a token.
//!
//! The URL of a file is `ENDPOINT/OWNER/NAME/resolve/REVISION/FILE`; large files are redirected to
//! another host. Before the download, the size and the tag in the server's response are compared
//! with the card. No text from a server becomes a path.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};
use indicatif::ProgressBar;
use infer_engine::{Hub, files};
use ureq::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RANGE,
};
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::{Agent, Body};

use super::growth::{Growth, Pace, silent};
use super::pip;
use super::transfer::{Fetched, Pull, partial};
use crate::limits::{MAX_ATTEMPTS, MAX_HEADER_BYTES, MAX_REDIRECTS, MAX_SILENCE, MAX_TOKEN_BYTES};

/// Size of the read buffer.
const PIECE_BYTES: usize = 64 << 10;

/// Fetches the file, whose name in the repository is `path`, without verifying it.
pub(super) fn fetch(pull: &Pull<'_>, hub: &Hub, path: &str) -> anyhow::Result<Fetched> {
    let client = Client::new(&hub.repository, &hub.revision, path)?;
    let compared = client.get("bytes=0-0").and_then(|answer| compare(pull, path, &answer));
    compared.map_err(|error| anyhow!("cannot request `{path}`: {error:#}"))?;
    // The hub has the file, so parts from packages are not needed.
    for name in [pip::PARTS, pip::RECORD] {
        pull.scratch.remove_all(name)?;
    }
    let (size, name) = (pull.file.bytes, partial(&pull.file.sha256));
    let file = pull.scratch.open_or_create(&name, 0o600)?;
    let partial = file.metadata()?.len();
    let mut growth = Growth::new(file, if partial > size { 0 } else { partial }, size)?;
    for attempt in 1.. {
        if growth.room() == 0 {
            break;
        }
        let before = growth.bytes();
        if let Err(error) = go_on(&pull.bar, &client, &mut growth) {
            let came = growth.bytes() > before;
            if !came || attempt == MAX_ATTEMPTS || error.is::<TooSlow>() {
                bail!("{} of {size} bytes are fetched, then: {error:#}; pull again to go on", growth.bytes());
            }
        }
    }
    Ok(Fetched { name, file: growth.into_file() })
}

/// Compares the size and the tag in the response, if present, with the card. For large files the
/// tag is the SHA-256.
fn compare(pull: &Pull<'_>, path: &str, answer: &Answer) -> anyhow::Result<()> {
    if let Some(size) = answer.size
        && size != pull.file.bytes
    {
        bail!("`{path}` is {size} bytes on the hub, its card says {}", pull.file.bytes);
    }
    if let Some(tag) = &answer.tag
        && tag.len() == 64
        && *tag != pull.file.sha256
    {
        bail!("`{path}` has sha256 {} on the hub, its card says {}", tag.escape_debug(), pull.file.sha256);
    }
    Ok(())
}

/// A source that is too slow; another connection would be no faster.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct TooSlow(String);

/// An answer without the file.
#[derive(Debug, thiserror::Error)]
#[error("the server returned {0}")]
pub(super) struct Refused(pub(super) StatusCode);

/// Fetches the missing bytes of `growth` over one connection.
pub(super) fn go_on(bar: &ProgressBar, client: &Client, growth: &mut Growth) -> anyhow::Result<()> {
    let from = growth.bytes();
    let answer = client.get(&format!("bytes={from}-"))?;
    match answer.starts_at {
        Some(start) if start == from => {}
        // The server ignored the range and sends the whole file.
        None => growth.clear()?,
        Some(start) => bail!("the response starts at byte {start}, expected byte {from}"),
    }
    let mut body = answer.response.into_body().into_reader();
    let mut piece = vec![0; PIECE_BYTES];
    let mut pace = Pace::new(MAX_SILENCE, Instant::now());
    while growth.room() > 0 {
        bar.set_position(growth.bytes());
        let length = growth.room().min(PIECE_BYTES as u64) as usize;
        let read = match body.read(&mut piece[..length]) {
            Ok(0) => bail!("the connection was closed"),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        growth.write_all(&piece[..read])?;
        pace.record(read as u64, Instant::now()).map_err(|error| TooSlow(error.to_string()))?;
    }
    Ok(())
}

/// Converts a read error; a timeout is reported as a slow source.
fn failed(error: io::Error) -> anyhow::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    match inner {
        Some(ureq::Error::Timeout(_)) => TooSlow(silent(MAX_SILENCE)).into(),
        _ if error.kind() == io::ErrorKind::TimedOut => TooSlow(silent(MAX_SILENCE)).into(),
        _ => error.into(),
    }
}

/// HTTP client for one file.
pub(super) struct Client {
    agent: Agent,
    url: String,
    token: Option<String>,
}

/// A successful response; its body has not been read.
pub(super) struct Answer {
    response: Response<Body>,
    /// Tag of the file, from the first response that has one.
    pub(super) tag: Option<String>,
    /// Commit of the repository, from the first response that has one.
    pub(super) commit: Option<String>,
    /// Size of the whole file, in bytes.
    pub(super) size: Option<u64>,
    /// Offset of the body in the file; `None` if the body is the whole file.
    starts_at: Option<u64>,
}

impl Client {
    /// Client for `file` in a repository. The arguments contain only characters that need no
    /// escaping in a URL.
    pub(super) fn new(repository: &str, revision: &str, file: &str) -> anyhow::Result<Self> {
        let agent = Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .max_response_header_size(MAX_HEADER_BYTES)
            .timeout_resolve(Some(MAX_SILENCE))
            .timeout_connect(Some(MAX_SILENCE))
            .timeout_send_request(Some(MAX_SILENCE))
            .timeout_recv_response(Some(MAX_SILENCE))
            .timeout_per_read(Some(MAX_SILENCE))
            .user_agent(concat!("infer/", env!("CARGO_PKG_VERSION")))
            .build();
        let endpoint = std::env::var("HF_ENDPOINT").unwrap_or_default();
        let endpoint =
            if endpoint.is_empty() { "https://huggingface.co" } else { endpoint.trim_end_matches('/') };
        let url = format!("{endpoint}/{repository}/resolve/{revision}/{file}");
        Ok(Client { agent: agent.into(), url, token: token()? })
    }

    /// Requests the bytes `range` and follows redirects.
    pub(super) fn get(&self, range: &str) -> anyhow::Result<Answer> {
        let mut url = self.url.clone();
        let (mut tag, mut commit) = (None, None);
        for _ in 0..MAX_REDIRECTS {
            let mut request = self.agent.get(&url).header(RANGE, range).header(ACCEPT_ENCODING, "identity");
            if let Some(token) = &self.token
                && origin(&url) == origin(&self.url)
            {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| match error {
                ureq::Error::Timeout(_) => TooSlow(silent(MAX_SILENCE)).into(),
                error => anyhow!("{error}"),
            })?;
            let headers = response.headers();
            tag =
                tag.or_else(|| text(headers, "x-linked-etag").or(text(headers, ETAG.as_str())).map(unquoted));
            commit = commit.or_else(|| text(headers, "x-repo-commit").map(str::to_owned));
            let status = response.status();
            if status.is_redirection() {
                let location = text(headers, LOCATION.as_str()).context("the redirect has no location")?;
                url = resolved(&url, location)?;
                continue;
            }
            let (size, starts_at) = match status {
                StatusCode::OK => {
                    (text(headers, CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok()), None)
                }
                StatusCode::PARTIAL_CONTENT => {
                    let requested = range.trim_start_matches("bytes=").split('-').next();
                    let requested = requested.and_then(|start| start.parse().ok());
                    let range = text(headers, CONTENT_RANGE.as_str()).map(content_range);
                    let (start, size) = range.unwrap_or((requested, None));
                    (size, Some(start.or(requested).unwrap_or(0)))
                }
                status => return Err(Refused(status).into()),
            };
            return Ok(Answer { tag, commit, size, starts_at, response });
        }
        bail!("more than {MAX_REDIRECTS} redirects")
    }
}

/// Reads the token in the folder HF_HOME, else in ~/.cache/huggingface.
fn token() -> anyhow::Result<Option<String>> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = variable("HF_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache/huggingface")));
    let Some(path) = home.map(|home| home.join("token")) else { return Ok(None) };
    match files::read_to_string(&path, MAX_TOKEN_BYTES) {
        Ok(token) => Ok(Some(token.trim().to_owned()).filter(|token| !token.is_empty())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read the token `{}`", path.display())),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Removes the quotes around a tag.
fn unquoted(tag: &str) -> String {
    tag.trim_start_matches("W/").replace('"', "")
}

/// Parses `bytes 5-9/10` into the offset and the total size.
fn content_range(range: &str) -> (Option<u64>, Option<u64>) {
    let Some((bytes, size)) = range.strip_prefix("bytes ").and_then(|range| range.split_once('/')) else {
        return (None, None);
    };
    (bytes.split('-').next().and_then(|start| start.parse().ok()), size.parse().ok())
}

/// Returns scheme and host of a URL.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    &url[..end]
}

/// Resolves `location`, from a response to `url`, into a URL.
fn resolved(url: &str, location: &str) -> anyhow::Result<String> {
    let scheme = url.split("://").next().unwrap_or("https");
    let target = match location {
        _ if location.starts_with("http://") || location.starts_with("https://") => location.to_owned(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{}{location}", origin(url)),
        _ => bail!("redirect to `{}`, expected an http or https URL", shortened(location)),
    };
    if scheme == "https" && target.starts_with("http://") {
        bail!("redirect from https to `{}` is not permitted", shortened(&target));
    }
    Ok(target)
}

/// Shortens a server's text for a message.
fn shortened(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_http_addresses_only() {
        let cases = [
            ("http://a:1/x/y", "/z?q", Some("http://a:1/z?q")),
            ("http://a:1", "/z", Some("http://a:1/z")),
            ("https://a/x", "//b/z", Some("https://b/z")),
            ("http://a/x", "https://b/z", Some("https://b/z")),
            ("https://a/x", "http://b/z", None),
            ("https://a/x", "file:///etc/passwd", None),
            ("https://a/x", "z", None),
            ("https://a/x", "", None),
        ];
        for (url, location, expected) in cases {
            assert_eq!(resolved(url, location).ok().as_deref(), expected, "{url} {location}");
        }
    }

    #[test]
    fn token_is_sent_to_the_endpoint_only() {
        assert_eq!(origin("https://hub.co/x/y"), origin("https://hub.co?z"));
        for other in
            ["http://hub.co/x", "https://hub.co.evil/x", "https://hub.co:1/x", "https://hub.co@evil/x"]
        {
            assert_ne!(origin("https://hub.co/x"), origin(other), "{other}");
        }
    }

    #[test]
    fn ranges_are_read_as_servers_write_them() {
        assert_eq!(content_range("bytes 5-9/10"), (Some(5), Some(10)));
        assert_eq!(content_range("bytes 5-9/*"), (Some(5), None));
        assert_eq!(content_range("bytes */10"), (None, Some(10)));
        assert_eq!(content_range("items 5-9/10"), (None, None));
        assert_eq!(unquoted("W/\"abc\""), "abc");
    }
}
