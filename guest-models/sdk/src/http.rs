//! Answers HTTP requests and sends requests: `wasi:http` with Rust types.
//!
//! A component that exports a [`Handler`] receives every request of its route. [`Respond::begin`]
//! sends the head of the response at once, and each write sends a part of the body.

use std::fmt;

use crate::bindings::handler::exports::wasi::http::incoming_handler::Guest as Exported;
use crate::bindings::handler::wasi::http::outgoing_handler;
use crate::bindings::handler::wasi::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    Scheme,
};
use crate::bindings::handler::wasi::io::streams::{InputStream, OutputStream, StreamError};

pub use crate::bindings::handler::wasi::http::types::{ErrorCode, Method};

/// Maximum number of bytes read or written in one call to the host.
const PIECE_BYTES: usize = 16 << 10;

/// Handler of the component's requests.
pub trait Handler {
    /// Answers `request` through `respond`. Without an answer the client receives an error.
    fn handle(request: Request, respond: Respond);
}

impl<T: Handler> Exported for T {
    fn handle(request: IncomingRequest, outparam: ResponseOutparam) {
        <T as Handler>::handle(Request::new(request), Respond(outparam));
    }
}

/// Names and values of header fields.
pub type Headers = Vec<(String, Vec<u8>)>;

/// A client's request.
#[derive(Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path and query, as received.
    pub path: String,
    /// Header fields, without those of the connection.
    pub headers: Headers,
    request: IncomingRequest,
}

impl Request {
    fn new(request: IncomingRequest) -> Self {
        Request {
            method: request.method(),
            path: request.path_with_query().unwrap_or_default(),
            headers: request.headers().entries(),
            request,
        }
    }

    /// Returns the first value of the header `name`, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// Reads the whole body. The host has received it before it calls the component, and has
    /// limited its size.
    ///
    /// # Errors
    ///
    /// When it was already read, or is cut off.
    pub fn read(&mut self) -> Result<Vec<u8>, HttpError> {
        let body = self.request.consume().map_err(|()| HttpError("the body was already read".to_owned()))?;
        let mut body = Body::new(body)?;
        let mut whole = Vec::new();
        while let Some(piece) = body.read()? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}

/// Sender of the response.
#[derive(Debug)]
pub struct Respond(ResponseOutparam);

impl Respond {
    /// Sends `status` and `headers`. Returns a writer for the body.
    ///
    /// # Errors
    ///
    /// When a header or the status is invalid.
    pub fn begin(self, status: u16, headers: &[(String, Vec<u8>)]) -> Result<Writer, HttpError> {
        let response = OutgoingResponse::new(fields(headers)?);
        response.set_status_code(status).map_err(|()| HttpError(format!("invalid status {status}")))?;
        let writer = Writer::new(response.body())?;
        ResponseOutparam::set(self.0, Ok(response));
        Ok(writer)
    }

    /// Sends a whole response, a text of the media type `kind`.
    ///
    /// # Errors
    ///
    /// As for [`Respond::begin`], or when the client has disconnected.
    pub fn send(self, status: u16, kind: &str, body: &[u8]) -> Result<(), HttpError> {
        let headers = [("content-type", kind), ("content-length", &body.len().to_string())]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let mut writer = self.begin(status, &headers)?;
        writer.write(body)?;
        writer.finish()
    }

    /// Reports a failure. The client receives an error, and the log receives `message`.
    pub fn fail(self, message: &str) {
        ResponseOutparam::set(self.0, Err(ErrorCode::InternalError(Some(message.to_owned()))));
    }
}

/// Writer of a body. A body that is not [finished](Writer::finish) is cut off.
#[derive(Debug)]
pub struct Writer {
    // Declared before the body, which cannot end while its stream exists.
    stream: OutputStream,
    body: OutgoingBody,
}

impl Writer {
    fn new(body: Result<OutgoingBody, ()>) -> Result<Self, HttpError> {
        let taken = || HttpError("the body was already taken".to_owned());
        let body = body.map_err(|()| taken())?;
        let stream = body.write().map_err(|()| taken())?;
        Ok(Writer { stream, body })
    }

    /// Writes `bytes` and flushes them.
    ///
    /// # Errors
    ///
    /// When the reader has disconnected.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        // Maximum that this call of the standard accepts.
        const ONCE: usize = 4096;
        bytes
            .chunks(ONCE)
            .try_for_each(|piece| self.stream.blocking_write_and_flush(piece).map_err(HttpError::from))
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// When its length differs from its `content-length`.
    pub fn finish(self) -> Result<(), HttpError> {
        drop(self.stream);
        OutgoingBody::finish(self.body, None).map_err(HttpError::from)
    }
}

/// Reader of a body.
#[derive(Debug)]
pub struct Body {
    // Declared before the body, which cannot end while its stream exists.
    stream: InputStream,
    _body: IncomingBody,
}

impl Body {
    fn new(body: IncomingBody) -> Result<Self, HttpError> {
        let stream = body.stream().map_err(|()| HttpError("the body was already read".to_owned()))?;
        Ok(Body { stream, _body: body })
    }

    /// Returns the next part, or `None` at the end.
    ///
    /// # Errors
    ///
    /// When it is cut off.
    pub fn read(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        match self.stream.blocking_read(PIECE_BYTES as u64) {
            Ok(piece) => Ok(Some(piece)),
            Err(StreamError::Closed) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// A response of another server.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header fields, without those of the connection.
    pub headers: Headers,
    /// Body, which may still be arriving.
    pub body: Body,
}

/// Sends a request to the server of `url`, such as `https://example.com/path?query`, and waits for
/// the head of its response.
///
/// # Errors
///
/// When `url` is invalid, when the configuration does not allow its host, or when the server is
/// unreachable.
pub fn send(
    method: &Method,
    url: &str,
    headers: &[(String, Vec<u8>)],
    body: &[u8],
) -> Result<Response, HttpError> {
    let (scheme, rest) =
        url.split_once("://").ok_or_else(|| HttpError(format!("invalid URL `{url}`: missing scheme")))?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let request = OutgoingRequest::new(fields(headers)?);
    let wrong = |part: &str| HttpError(format!("invalid URL `{url}`: invalid {part}"));
    request.set_method(method).map_err(|()| HttpError(format!("invalid method {method:?}")))?;
    request.set_scheme(Some(&scheme)).map_err(|()| wrong("scheme"))?;
    request.set_authority(Some(authority)).map_err(|()| wrong("host"))?;
    request
        .set_path_with_query(Some(if path.is_empty() { "/" } else { path }))
        .map_err(|()| wrong("path"))?;
    let mut writer = Writer::new(request.body())?;
    let answer = outgoing_handler::handle(request, None)?;
    writer.write(body)?;
    writer.finish()?;
    let response = loop {
        match answer.get() {
            Some(Ok(response)) => break response?,
            Some(Err(())) => return Err(HttpError("the response was already taken".to_owned())),
            None => answer.subscribe().block(),
        }
    };
    let body = response.consume().map_err(|()| HttpError("the response was already read".to_owned()))?;
    Ok(Response { status: response.status(), headers: response.headers().entries(), body: Body::new(body)? })
}

fn fields(headers: &[(String, Vec<u8>)]) -> Result<Fields, HttpError> {
    Fields::from_list(headers).map_err(|error| HttpError(format!("invalid header: {error}")))
}

/// Error of a request or response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpError(String);

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HttpError {}

impl From<ErrorCode> for HttpError {
    fn from(code: ErrorCode) -> Self {
        HttpError(match code {
            ErrorCode::HttpRequestDenied => "the configuration does not allow this request".to_owned(),
            ErrorCode::InternalError(Some(message)) => message,
            code => format!("{code:?}"),
        })
    }
}

impl From<StreamError> for HttpError {
    fn from(error: StreamError) -> Self {
        HttpError(match error {
            StreamError::Closed => "the other side has closed the stream".to_owned(),
            StreamError::LastOperationFailed(error) => error.to_debug_string(),
        })
    }
}
