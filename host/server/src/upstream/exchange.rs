//! One request to an upstream and its response: slots, retries, deadlines and size limits.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout, timeout_at};
use tracing::info;

use super::breaker::Ticket;
use super::connection::Connection;
use super::fault::Cause;
use super::pool::Pool;
use super::retry;
use super::upstreams::Upstream;
use crate::limits::{LINGER_TIMEOUT, MAX_UPSTREAM_ERROR_BYTES};

/// Name and version of this program, for upstreams.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("infer/", env!("CARGO_PKG_VERSION")));

/// A request to forward. No header of the client is forwarded.
pub(crate) struct Outgoing {
    /// Path below the upstream's URL.
    pub(crate) path: &'static str,
    /// Accepted content type.
    pub(crate) accept: &'static str,
    pub(crate) body: Bytes,
}

/// A response, whose body is still arriving. Dropping it cancels the request.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    incoming: Incoming,
    connection: Connection,
    pool: Arc<Pool>,
    slot: OwnedSemaphorePermit,
    ticket: Ticket,
    received: usize,
    max_bytes: usize,
    idle: Duration,
    deadline: Instant,
}

impl Upstream {
    /// Sends a request, and again if it fails before the first byte of a response and the retry
    /// budget permits it. Returns responses with a status 2xx or 4xx, apart from 401, 403, 407 and
    /// 429.
    ///
    /// # Errors
    ///
    /// The cause for which the last attempt failed.
    pub(crate) async fn send(&self, request: &Outgoing, deadline: Instant) -> Result<Answer, Cause> {
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| Cause::Busy)?;
        self.budget.deposit();
        let mut retries = 0;
        loop {
            let mut ticket = self.breaker.enter(Instant::now()).map_err(Cause::Open)?;
            let cause = match self.attempt(request, deadline).await {
                Ok((response, connection)) => {
                    ticket.answered();
                    let (head, incoming) = response.into_parts();
                    return Ok(Answer {
                        status: head.status,
                        headers: head.headers,
                        incoming,
                        connection,
                        pool: self.pool.clone(),
                        slot,
                        ticket,
                        received: 0,
                        max_bytes: self.config.max_response_bytes,
                        idle: self.config.times.idle,
                        deadline,
                    });
                }
                Err(cause) => cause,
            };
            if cause.is_failure() {
                ticket.fail(Instant::now());
            } else {
                drop(ticket);
            }
            if retries == self.config.resilience.retries || !cause.is_retryable() {
                return Err(cause);
            }
            let retry_after = match &cause {
                Cause::Status { retry_after, .. } => *retry_after,
                _ => None,
            };
            let Some(pause) = retry::pause(retries, retry_after, deadline) else { return Err(cause) };
            if !self.budget.withdraw() {
                return Err(cause);
            }
            retries += 1;
            self.counts.retried();
            info!(upstream = &*self.name, retries, "upstream `{}` {cause}; trying again", self.name);
            sleep(pause).await;
        }
    }

    /// Sends a request once.
    async fn attempt(
        &self,
        request: &Outgoing,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Connection), Cause> {
        loop {
            let kept = self.pool.take();
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connector.connect(&self.config, deadline).await?,
            };
            let began = Instant::now();
            let due = began + self.config.times.first_byte;
            let sending = async {
                connection.sender.ready().await.map_err(|error| (error, true))?;
                let sent = connection.sender.try_send_request(self.request(request)).await;
                sent.map_err(|mut error| {
                    let is_unsent = error.take_message().is_some();
                    (error.into_error(), is_unsent)
                })
            };
            match timeout_at(due.min(deadline).into(), sending).await {
                Err(_) if due < deadline => return Err(Cause::FirstByte(self.config.times.first_byte)),
                Err(_) => return Err(Cause::Deadline),
                // The upstream closed the connection while it was idle.
                Ok(Err((_, true))) if is_kept => {}
                Ok(Err((error, _))) => return Err(Cause::head(&error)),
                Ok(Ok(response)) => {
                    self.counts.first_byte(began.elapsed());
                    check(&response)?;
                    return Ok((response, connection));
                }
            }
        }
    }

    /// The request with the allowed headers.
    fn request(&self, outgoing: &Outgoing) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(outgoing.body.clone()));
        *request.method_mut() = axum::http::Method::POST;
        let path = format!("{}{}", self.config.url.path, outgoing.path);
        // The configuration permits only characters that a URI may have.
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.host.clone());
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static(outgoing.accept));
        if let Some(key) = &self.authorization {
            headers.insert(header::AUTHORIZATION, key.clone());
        }
        request
    }
}

/// Rejects responses that are neither an answer nor an error of the request.
fn check(response: &Response<Incoming>) -> Result<(), Cause> {
    let (status, headers) = (response.status(), response.headers());
    if status.is_redirection() {
        return Err(Cause::Redirect(status));
    }
    if matches!(status.as_u16(), 401 | 403 | 407) {
        return Err(Cause::Key(status));
    }
    if status == StatusCode::TOO_MANY_REQUESTS || !(status.is_success() || status.is_client_error()) {
        let retry_after = headers.get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| retry::retry_after(value, SystemTime::now()));
        return Err(Cause::Status { status, retry_after });
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if coding != "identity" => Err(Cause::Coding(quoted(coding))),
        _ => Ok(()),
    }
}

/// A header's value for a message.
pub(super) fn quoted(value: &HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    format!("`{}`", infer_engine::text::excerpt(&text, infer_engine::text::QUOTE_BYTES))
}

impl Answer {
    /// Checks the content type.
    ///
    /// # Errors
    ///
    /// If it is another one.
    pub(crate) fn expect_type(&self, expected: &'static str) -> Result<(), Cause> {
        let found = self.headers.get(header::CONTENT_TYPE);
        let essence = found.and_then(|value| value.to_str().ok()?.split(';').next()).map(str::trim);
        if essence.is_some_and(|essence| essence.eq_ignore_ascii_case(expected)) {
            return Ok(());
        }
        let found = found.map_or_else(|| "missing".to_owned(), quoted);
        Err(Cause::ContentType { found, expected })
    }

    /// Returns the next bytes of the body, or `None` at its end.
    ///
    /// # Errors
    ///
    /// If it stalls, is cut, or is too large.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Cause> {
        let due = Instant::now() + self.idle;
        loop {
            let frame = timeout_at(due.min(self.deadline).into(), self.incoming.frame()).await;
            let frame = frame
                .map_err(|_| if due < self.deadline { Cause::Stalled(self.idle) } else { Cause::Deadline })?;
            let Some(frame) = frame else { return Ok(None) };
            let Ok(data) = frame.map_err(|error| Cause::body(&error))?.into_data() else { continue };
            self.received = self.received.saturating_add(data.len());
            if self.received > self.max_bytes {
                return Err(Cause::ResponseTooLarge(self.max_bytes));
            }
            return Ok(Some(data));
        }
    }

    /// Returns the beginning of the body of an error, which is short and best-effort.
    pub(crate) async fn error_text(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        while let Ok(Some(data)) = self.next().await {
            text.extend_from_slice(&data);
            if text.len() > MAX_UPSTREAM_ERROR_BYTES {
                text.truncate(MAX_UPSTREAM_ERROR_BYTES);
                break;
            }
        }
        text
    }

    /// The answer is complete. Its connection is kept, if the body ends now.
    pub(crate) async fn succeed(self) {
        let Answer { mut incoming, connection, pool, slot, ticket, .. } = self;
        ticket.succeed();
        // Mostly the end has arrived with the last part.
        match timeout(Duration::ZERO, incoming.frame()).await {
            Ok(None) => pool.put(connection),
            Ok(Some(_)) => {}
            Err(_) => drop(tokio::spawn(async move {
                // Keeps the slot, so that the number of connections stays within its limit.
                let _slot = slot;
                if let Ok(None) = timeout(LINGER_TIMEOUT, incoming.frame()).await {
                    pool.put(connection);
                }
            })),
        }
    }

    /// The answer has failed.
    pub(crate) fn fail(self, cause: &Cause) {
        if cause.is_failure() {
            self.ticket.fail(Instant::now());
        }
    }
}
