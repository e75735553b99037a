//! Answering HTTP requests, and sending some: `wasi:http` with Rust's types.
//!
//! A component that exports a [`Handler`] is asked whatever comes to its route. Its answer is on
//! its way as soon as [`Respond::begin`] is called, and each part of its body as soon as it is
//! written.

use std::fmt;

use crate::bindings::handler::exports::wasi::http::incoming_handler::Guest as Exported;
use crate::bindings::handler::wasi::http::outgoing_handler;
use crate::bindings::handler::wasi::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    Scheme,
};
use crate::bindings::handler::wasi::io::streams::{InputStream, OutputStream, StreamError};

pub use crate::bindings::handler::wasi::http::types::{ErrorCode, Method};

/// The most that is read or written in one call to the host, in bytes.
const PIECE_BYTES: usize = 16 << 10;

/// What a component does with a request.
pub trait Handler {
    /// Answer `request` by `respond`. Without an answer the client is told that the component has
    /// failed.
    fn handle(request: Request, respond: Respond);
}

impl<T: Handler> Exported for T {
    fn handle(request: IncomingRequest, outparam: ResponseOutparam) {
        <T as Handler>::handle(Request::new(request), Respond(outparam));
    }
}

/// Names and values.
pub type Headers = Vec<(String, Vec<u8>)>;

/// What a client asks.
#[derive(Debug)]
pub struct Request {
    /// GET, POST and so on.
    pub method: Method,
    /// The path and the query, as they came.
    pub path: String,
    /// All but those that belong to the connection.
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

    /// The first value of the header `name`, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// The whole body. The host has it before the component is asked, and has bounded it.
    ///
    /// # Errors
    ///
    /// When it was read before, or is cut off.
    pub fn read(&mut self) -> Result<Vec<u8>, Broken> {
        let body = self.request.consume().map_err(|()| Broken("the body was read before".to_owned()))?;
        let mut body = Body::new(body)?;
        let mut whole = Vec::new();
        while let Some(piece) = body.read()? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}

/// Where an answer is given.
#[derive(Debug)]
pub struct Respond(ResponseOutparam);

impl Respond {
    /// Give the answer's `status` and `headers`; its body is written to what is returned.
    ///
    /// # Errors
    ///
    /// When a header or the status is none that may be sent.
    pub fn begin(self, status: u16, headers: &[(String, Vec<u8>)]) -> Result<Writer, Broken> {
        let response = OutgoingResponse::new(fields(headers)?);
        response.set_status_code(status).map_err(|()| Broken(format!("{status} is no status")))?;
        let writer = Writer::new(response.body())?;
        ResponseOutparam::set(self.0, Ok(response));
        Ok(writer)
    }

    /// Give a whole answer, a text of the type `kind`.
    ///
    /// # Errors
    ///
    /// As [`Respond::begin`], or when the client has gone.
    pub fn send(self, status: u16, kind: &str, body: &[u8]) -> Result<(), Broken> {
        let headers = [("content-type", kind), ("content-length", &body.len().to_string())]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let mut writer = self.begin(status, &headers)?;
        writer.write(body)?;
        writer.finish()
    }

    /// Say that there is no answer; the client is told that the component has failed, and the log
    /// why.
    pub fn fail(self, message: &str) {
        ResponseOutparam::set(self.0, Err(ErrorCode::InternalError(Some(message.to_owned()))));
    }
}

/// A body that is being written. One that is not [finished](Writer::finish) is cut off.
#[derive(Debug)]
pub struct Writer {
    // Before the body, which cannot end while it is there.
    stream: OutputStream,
    body: OutgoingBody,
}

impl Writer {
    fn new(body: Result<OutgoingBody, ()>) -> Result<Self, Broken> {
        let taken = || Broken("the body was taken before".to_owned());
        let body = body.map_err(|()| taken())?;
        let stream = body.write().map_err(|()| taken())?;
        Ok(Writer { stream, body })
    }

    /// Write `bytes`, and see them on their way.
    ///
    /// # Errors
    ///
    /// When nobody reads them any more.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        // The most that this call of the standard takes.
        const ONCE: usize = 4096;
        bytes
            .chunks(ONCE)
            .try_for_each(|piece| self.stream.blocking_write_and_flush(piece).map_err(Broken::from))
    }

    /// The end of the body.
    ///
    /// # Errors
    ///
    /// When it is shorter or longer than its `content-length`.
    pub fn finish(self) -> Result<(), Broken> {
        drop(self.stream);
        OutgoingBody::finish(self.body, None).map_err(Broken::from)
    }
}

/// A body that is being read.
#[derive(Debug)]
pub struct Body {
    // Before the body, which cannot end while it is there.
    stream: InputStream,
    _body: IncomingBody,
}

impl Body {
    fn new(body: IncomingBody) -> Result<Self, Broken> {
        let stream = body.stream().map_err(|()| Broken("the body was read before".to_owned()))?;
        Ok(Body { stream, _body: body })
    }

    /// What comes next; none at the end.
    ///
    /// # Errors
    ///
    /// When it is cut off.
    pub fn read(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        match self.stream.blocking_read(PIECE_BYTES as u64) {
            Ok(piece) => Ok(Some(piece)),
            Err(StreamError::Closed) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// What another server answered.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// All but those that belong to the connection.
    pub headers: Headers,
    /// Its body, which may still be coming.
    pub body: Body,
}

/// Ask the server that `url` names, such as `https://example.com/path?query`, and wait for its
/// answer's head.
///
/// # Errors
///
/// When `url` is none, when the configuration does not allow its host, or the server cannot be
/// reached.
pub fn send(
    method: &Method,
    url: &str,
    headers: &[(String, Vec<u8>)],
    body: &[u8],
) -> Result<Response, Broken> {
    let (scheme, rest) =
        url.split_once("://").ok_or_else(|| Broken(format!("`{url}` is no URL: it has no scheme")))?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let request = OutgoingRequest::new(fields(headers)?);
    let wrong = |what: &str| Broken(format!("`{url}` is no URL: its {what} is wrong"));
    request.set_method(method).map_err(|()| Broken(format!("{method:?} is no method")))?;
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
            Some(Err(())) => return Err(Broken("the answer was taken before".to_owned())),
            None => answer.subscribe().block(),
        }
    };
    let body = response.consume().map_err(|()| Broken("the answer was read before".to_owned()))?;
    Ok(Response { status: response.status(), headers: response.headers().entries(), body: Body::new(body)? })
}

fn fields(headers: &[(String, Vec<u8>)]) -> Result<Fields, Broken> {
    Fields::from_list(headers).map_err(|error| Broken(format!("a header may not be sent: {error}")))
}

/// Why a request or an answer went no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

impl From<ErrorCode> for Broken {
    fn from(code: ErrorCode) -> Self {
        Broken(match code {
            ErrorCode::HttpRequestDenied => "the configuration does not allow this request".to_owned(),
            ErrorCode::InternalError(Some(message)) => message,
            code => format!("{code:?}"),
        })
    }
}

impl From<StreamError> for Broken {
    fn from(error: StreamError) -> Self {
        Broken(match error {
            StreamError::Closed => "nobody reads it any more".to_owned(),
            StreamError::LastOperationFailed(error) => error.to_debug_string(),
        })
    }
}
