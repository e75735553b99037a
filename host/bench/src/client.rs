//! A minimal HTTP/1.1 client with keep-alive, for generating load.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use crate::limits::MAX_RESPONSE_BYTES;

/// A client for one path of one server.
pub(super) struct Client {
    authority: String,
    path: String,
    /// Idle connections: at most as many as requests were in flight.
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// The body of a request.
pub(super) struct Body {
    content_type: &'static str,
    bytes: Bytes,
}

/// A complete request, which can be sent again.
#[derive(Clone)]
pub(super) struct Request {
    request: hyper::Request<Full<Bytes>>,
}

impl Body {
    pub(super) fn json(value: &Value) -> Body {
        Body { content_type: "application/json", bytes: value.to_string().into() }
    }

    pub(super) fn bytes(bytes: Vec<u8>) -> Body {
        Body { content_type: "application/octet-stream", bytes: bytes.into() }
    }
}

impl Client {
    /// Creates a client for `path` at `authority`, a host with an optional port. Does not connect.
    pub(super) fn new(authority: &str, path: &str) -> Client {
        Client { authority: authority.to_owned(), path: path.to_owned(), idle: Mutex::default() }
    }

    /// Builds a POST of `body`.
    pub(super) fn request(&self, body: Body) -> Request {
        let Body { content_type, bytes } = body;
        let mut request = hyper::Request::post(&self.path).header(HOST, &self.authority);
        request = request.header(CONTENT_TYPE, content_type);
        Request {
            request: request
                .body(Full::new(bytes))
                .expect("host and path were checked when the arguments were parsed"),
        }
    }

    /// Sends `request` and returns the response body.
    ///
    /// # Errors
    ///
    /// A one-line message if the connection fails, the status is not a success, or there is no
    /// response by `deadline`.
    pub(super) async fn send(&self, request: Request, deadline: Instant) -> Result<Bytes, String> {
        let sent = timeout_at(deadline.into(), self.exchange(request.request)).await;
        let (status, body) = sent.map_err(|_| "no answer by the deadline".to_owned())??;
        if status.is_success() {
            return Ok(body);
        }
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let said = answer["error"]["message"].as_str().unwrap_or_default();
        let said: String = said.chars().filter(|c| !c.is_control()).take(120).collect();
        Err(format!("{} {said}", status.as_u16()).trim_end().to_owned())
    }

    /// Sends GET `path` and parses the response as JSON.
    ///
    /// # Errors
    ///
    /// As [`Client::send`], or if the response is not JSON.
    pub(super) async fn get(&self, path: &str, deadline: Instant) -> Result<Value, String> {
        let request = hyper::Request::get(path).header(HOST, &self.authority).body(Full::default());
        let request = request.map_err(|error| error.to_string())?;
        let body = self.send(Request { request }, deadline).await?;
        serde_json::from_slice(&body).map_err(|error| format!("`{path}` did not return JSON: {error}"))
    }

    async fn exchange(
        &self,
        request: hyper::Request<Full<Bytes>>,
    ) -> Result<(hyper::StatusCode, Bytes), String> {
        // The server may have closed an idle connection; the request then goes over a new one.
        while let Some(mut connection) = self.take() {
            if connection.ready().await.is_err() {
                continue;
            }
            match connection.try_send_request(request.clone()).await {
                Ok(response) => return self.read(connection, response).await,
                Err(failure) if failure.message().is_some() => {}
                Err(failure) => return Err(format!("the connection failed: {}", failure.error())),
            }
        }
        let mut connection = self.connect().await?;
        let response = connection
            .send_request(request)
            .await
            .map_err(|error| format!("the connection failed: {error}"))?;
        self.read(connection, response).await
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let failed =
            |error: &dyn std::fmt::Display| format!("cannot connect to `{}`: {error}", self.authority);
        let has_port = self.authority.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
        let address = if has_port { self.authority.clone() } else { format!("{}:80", self.authority) };
        let stream = TcpStream::connect(&address).await.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        tokio::spawn(async move {
            // The request that uses the connection reports its failure.
            let _ = connection.await;
        });
        Ok(sender)
    }

    async fn read(
        &self,
        connection: SendRequest<Full<Bytes>>,
        response: hyper::Response<hyper::body::Incoming>,
    ) -> Result<(hyper::StatusCode, Bytes), String> {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
        let body = body.map_err(|error| format!("the response was interrupted: {error}"))?.to_bytes();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok((status, body))
    }

    fn take(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}
