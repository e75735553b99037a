//! Components that answer HTTP requests themselves. They export `wasi:http/incoming-handler`, and
//! import the parts of WASI 0.2 that standard libraries of languages need.
//!
//! The interfaces expose little: no files, no environment, no arguments, no sockets; clocks and
//! randomness as configured; standard output and error go to the log; requests may go to the listed
//! hosts only. An instance is bounded as any other guest's: by its limits and by its request's
//! deadline.

mod options;
mod outbound;
mod stdio;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request as HttpRequest, Response, uri};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::oneshot;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Engine, Store};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{
    Error, RequestOptions, Result as HttpResult, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks,
    WasiHttpView, default_send_request,
};

use crate::bindings;
use crate::bindings::infer::guest::log::Level;
use crate::error::Cause;
use crate::guest_log::GuestLog;
use crate::limits::{MAX_BODY_WRITE_BYTES, MAX_BUFFERED_WRITES, MAX_FIELDS_BYTES, MAX_RANDOM_BYTES};
use crate::nn;
use crate::state::{Grants, State};

pub use options::{ClockKind, HttpOptions};
pub use outbound::OutboundHost;

/// Export that identifies such a component.
pub(crate) const EXPORT: &str = "wasi:http/incoming-handler@0.2.";

/// Interfaces that such a component may import beside those of every guest, without `wasi:sockets`.
pub(crate) const GRANTED: [&str; 6] =
    ["wasi:http/", "wasi:io/", "wasi:clocks/", "wasi:random/", "wasi:cli/", "wasi:filesystem/"];

/// Maximum size of the part of an answer that waits outside of the guest for the client, in bytes.
pub const UNSENT_BYTES: usize = (MAX_BUFFERED_WRITES + 1) * MAX_BODY_WRITE_BYTES;

/// Data of the store of an HTTP component.
pub(crate) struct Http {
    state: State,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Hooks,
}

/// Sends the guest's outgoing requests.
struct Hooks {
    grants: Arc<Grants>,
    guest_log: Arc<GuestLog>,
    /// Number of requests that may still be sent.
    left: usize,
}

/// Receiver of the guest's response.
pub(crate) type Head = oneshot::Sender<Response<Body>>;

/// Creates a linker with all that such a component may import.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Http>> {
    use wasmtime_wasi::p2::bindings::{cli, filesystem, random};

    let mut linker = Linker::new(engine);
    bindings::Guest::add_to_linker::<Http, HasSelf<State>>(&mut linker, |http| &mut http.state)?;
    nn::link_data(&mut linker)?;
    // HTTP itself, streams, clocks, randomness, standard output and error.
    wasmtime_wasi_http::p2::add_to_linker_async(&mut linker)?;
    // Interfaces that compilers link in even when unused, with nothing behind them.
    let l = &mut linker;
    random::insecure::add_to_linker::<Http, WasiRandom>(l, |http| http.wasi.random())?;
    random::insecure_seed::add_to_linker::<Http, WasiRandom>(l, |http| http.wasi.random())?;
    cli::exit::add_to_linker::<Http, WasiCli>(l, Http::cli)?;
    cli::environment::add_to_linker::<Http, WasiCli>(l, Http::cli)?;
    cli::terminal_input::add_to_linker::<Http, WasiCli>(l, Http::cli)?;
    cli::terminal_output::add_to_linker::<Http, WasiCli>(l, Http::cli)?;
    cli::terminal_stdin::add_to_linker::<Http, WasiCli>(l, Http::cli)?;
    cli::terminal_stdout::add_to_linker::<Http, WasiCli>(l, Http::cli)?;
    cli::terminal_stderr::add_to_linker::<Http, WasiCli>(l, Http::cli)?;
    filesystem::preopens::add_to_linker::<Http, WasiFilesystem>(l, Http::filesystem)?;
    filesystem::types::add_to_linker::<Http, WasiFilesystem>(l, Http::filesystem)?;
    Ok(linker)
}

impl Http {
    pub(crate) fn new(state: State) -> Self {
        let HttpOptions { outbound: _, clock, random_seed } = &state.grants.http;
        let mut wasi = WasiCtx::builder();
        wasi.max_random_size(MAX_RANDOM_BYTES)
            .stdout(stdio::Lines::new(state.guest_log.clone(), Level::Info))
            .stderr(stdio::Lines::new(state.guest_log.clone(), Level::Warn));
        if *clock == ClockKind::Frozen {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            wasi.wall_clock(Frozen(now)).monotonic_clock(Frozen(now));
        }
        if let Some(seed) = *random_seed {
            wasi.secure_random(StdRng::seed_from_u64(seed))
                .insecure_random(StdRng::seed_from_u64(!seed))
                .insecure_random_seed(u128::from(seed));
        }
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(MAX_FIELDS_BYTES);
        let (grants, guest_log) = (state.grants.clone(), state.guest_log.clone());
        let hooks = Hooks { left: grants.limits.outbound_requests, grants, guest_log };
        Http { wasi: wasi.build(), http, hooks, state }
    }
}

/// Calls a fresh instance, and sends its response to `head` as soon as the guest sets it.
///
/// # Errors
///
/// When the guest is stopped; [`Cause::Gone`] if the client disconnected.
pub(crate) async fn ask(
    pre: &ProxyPre<Http>,
    store: &mut Store<Http>,
    incoming: HttpRequest<Bytes>,
    head: Head,
    answer: &Answer,
    gone: oneshot::Receiver<()>,
) -> wasmtime::Result<()> {
    let is_secure = incoming.uri().scheme() == Some(&uri::Scheme::HTTPS);
    let scheme = if is_secure { Scheme::Https } else { Scheme::Http };
    let mut view = store.data_mut().http();
    let incoming = view.new_incoming_request(scheme, incoming.map(whole))?;
    let mut cut = TruncateOnDrop(Some(answer));
    let answer = answer.clone();
    let outparam = view.new_response_outparam_from_callback(move |response| answer.take(response, head))?;
    let guest = pre.instantiate_async(&mut *store).await?;
    store.data_mut().state.instantiated();
    let left = async {
        // Sent when the answer has been delivered; dropped if the client disconnects before.
        if gone.await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = guest.wasi_http_incoming_handler().call_handle(store, incoming, outparam) => {
            ended?;
            cut.0 = None;
            Ok(())
        }
        () = left => Err(Cause::Gone.into()),
    }
}

/// A complete body.
fn whole(body: Bytes) -> UnsyncBoxBody<Bytes, Error> {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

/// The state of a guest's answer.
#[derive(Clone)]
pub(crate) struct Answer(Arc<AnswerState>);

struct AnswerState {
    /// The error if there is no valid response.
    missing: Mutex<Option<String>>,
    /// True if the guest was stopped: the rest of its body never comes.
    is_cut: AtomicBool,
}

impl Answer {
    pub(crate) fn none() -> Self {
        let missing = Mutex::new(Some("the guest returned without a response".to_owned()));
        Answer(Arc::new(AnswerState { missing, is_cut: AtomicBool::new(false) }))
    }

    /// Passes the guest's response on, if it is valid.
    fn take(&self, response: Result<Response<HyperOutgoingBody>, ErrorCode>, head: Head) {
        let missing = match response {
            Ok(response) if response.status().is_informational() => {
                Some(format!("response status is {}, expected a final status", response.status()))
            }
            Ok(response) => {
                // The client may have disconnected.
                let _ = head.send(response.map(|written| Body { written, answer: self.clone() }));
                None
            }
            Err(code) => Some(format!("the guest returned an error instead of a response: {code:?}")),
        };
        *self.0.missing.lock().unwrap_or_else(PoisonError::into_inner) = missing;
    }

    /// Checks that there is a valid response.
    ///
    /// # Errors
    ///
    /// The error, if there is no valid response.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.0.missing.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }
}

/// Cuts the answer off unless its guest has returned.
struct TruncateOnDrop<'a>(Option<&'a Answer>);

impl Drop for TruncateOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(Answer(fate)) = self.0 {
            fate.is_cut.store(true, Ordering::Relaxed);
        }
    }
}

/// Body of a guest's answer, which the guest may still be writing. It ends with an error when the
/// guest is stopped.
pub struct Body {
    written: HyperOutgoingBody,
    answer: Answer,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.written).poll_frame(context));
        // A dropped instance drops the writing end too, which looks like an end from here. `is_cut`
        // is set before that.
        let is_cut = frame.is_none() && self.answer.0.is_cut.load(Ordering::Relaxed);
        Poll::Ready(if is_cut { Some(Err(Error::HttpResponseIncomplete)) } else { frame })
    }
}

impl AsMut<State> for Http {
    fn as_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl WasiView for Http {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.state.table }
    }
}

impl WasiHttpView for Http {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.state.table, hooks: &mut self.hooks }
    }
}

type Sent = HttpResult<(Response<WasiBody>, Box<dyn Future<Output = HttpResult<()>> + Send>)>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: HttpRequest<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = HttpResult<()>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let uri = request.uri();
        if !self.grants.http.outbound.iter().any(|host| host.allows(uri)) {
            let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority());
            let authority = authority.map_or("", |authority| authority.as_str());
            let message = format!(
                "`{scheme}://{authority}` is not in `allowed_outbound_hosts`; the request was not sent"
            );
            self.guest_log.write(Level::Warn, &message);
            return Box::new(async { Err(Error::HttpRequestDenied) });
        }
        let Some(left) = self.left.checked_sub(1) else {
            let limit = self.grants.limits.outbound_requests;
            let message =
                format!("exceeded its limit of {limit} `outbound_requests`; the request was not sent");
            self.guest_log.write(Level::Warn, &message);
            return Box::new(async { Err(Error::HttpRequestDenied) });
        };
        self.left = left;
        Box::new(async move {
            let (response, connection) = default_send_request(request, options).await?;
            let connection: Box<dyn Future<Output = HttpResult<()>> + Send> = Box::new(connection);
            Ok((response.map(BodyExt::boxed_unsync), connection))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        MAX_BODY_WRITE_BYTES
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        MAX_BUFFERED_WRITES
    }
}

/// A frozen clock.
struct Frozen(Duration);

impl HostWallClock for Frozen {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        self.0
    }
}

impl HostMonotonicClock for Frozen {
    fn resolution(&self) -> u64 {
        1_000_000_000
    }

    fn now(&self) -> u64 {
        0
    }
}
