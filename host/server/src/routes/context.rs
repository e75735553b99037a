//! Admission of requests: authentication, permissions and capacity, checked before the body is
//! read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use infer_config::ServerConfig;
use infer_config::paths::Route;
use infer_control::live::Live;
use infer_control::registry::Registry;
use tokio::runtime::Handle;
use tokio::time::sleep_until;
use tracing::{Instrument as _, Span, error};

use super::encoding;
use super::guard::Guards;
use super::moderate::{Moderators, ResponseStore};
use crate::abort::Abort;
use crate::admission::Gate;
use crate::bodies::{Arriving, BodyMemory, Sender, Share};
use crate::error::ApiError;
use crate::keys::{Key, Keyring, Rejected};
use crate::rates;
use crate::rates::Addresses;
use crate::serve::{Lease, Peer};
use crate::upstream::Upstreams;

/// State shared by all requests of a snapshot.
pub struct RequestContext {
    pub(super) registry: Arc<Registry>,
    pub(super) server: ServerConfig,
    pub(super) live: Weak<Live>,
    /// Set once the server has been asked to stop.
    stopping: Arc<AtomicBool>,
    pub(super) gate: Arc<Gate>,
    pub(super) responses: Arc<ResponseStore>,
    pub(super) moderators: Arc<Moderators>,
    pub(super) guards: Guards,
    pub(super) upstreams: Arc<Upstreams>,
    memory: BodyMemory,
    keys: Keyring,
    addresses: Option<Arc<Addresses>>,
    /// Runtime of the handlers.
    pub(super) work: Handle,
}

/// The authenticated key; `None` if no keys are configured.
#[derive(Clone)]
pub(super) struct Caller(pub(super) Option<Arc<Key>>);

impl Caller {
    /// True if the key permits requests for the model `name`.
    pub(super) fn may_ask(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|key| key.may_ask(name))
    }

    /// Checks whether the key permits `component`.
    ///
    /// # Errors
    ///
    /// 403 if it does not.
    pub(super) fn check(&self, component: &str) -> Result<(), ApiError> {
        if self.0.as_ref().is_none_or(|key| key.may_use(component)) {
            return Ok(());
        }
        Err(ApiError::forbidden(format!(
            "this API key may not use component `{component}`; ask the operator, or GET /v1/models for the \
             permitted ones"
        )))
    }
}

/// State of the admission layer in front of a handler.
#[derive(Clone)]
pub(super) struct AdmissionLayer {
    pub(super) context: Arc<RequestContext>,
    /// The component of the route; `None` if the request selects it, and the handler checks the
    /// permission.
    pub(super) component: Option<Arc<str>>,
    /// The limit on queued work, if any.
    pub(super) gate: Option<Arc<Gate>>,
    /// True if the handler decodes content codings itself; otherwise a body with a content coding
    /// is rejected.
    pub(super) takes_codings: bool,
}

impl RequestContext {
    /// Creates the context of `registry`. Handlers run on the current runtime.
    #[must_use]
    pub(crate) fn new(registry: Arc<Registry>, live: Weak<Live>, stopping: Arc<AtomicBool>) -> Self {
        let server = registry.config.server.clone();
        let sandbox = &registry.config.sandbox;
        RequestContext {
            gate: Gate::new(sandbox.instances as usize, sandbox.waiting as usize, server.queue_time),
            responses: Arc::default(),
            moderators: Arc::new(Moderators::new(&registry)),
            guards: Guards::new(&registry),
            upstreams: Arc::new(Upstreams::new(&registry.config, &registry.metrics, &Upstreams::default())),
            memory: BodyMemory::new(server.body_memory_bytes, registry.sandbox.memory().clone()),
            keys: Keyring::new(&registry.config.keys),
            addresses: server.rate_per_ip.map(Addresses::new).map(Arc::new),
            work: Handle::current(),
            registry,
            server,
            live,
            stopping,
        }
    }

    /// Creates the context of `registry` that replaces this one. Counters are kept where the limit
    /// is unchanged: a reload grants no second burst and no second permit.
    #[must_use]
    pub(crate) fn next(&self, registry: Arc<Registry>) -> Self {
        let (server, before) = (registry.config.server.clone(), &self.server);
        let (sandbox, pool) = (&registry.config.sandbox, &self.registry.config.sandbox);
        let same_queue = (sandbox.instances, sandbox.waiting, server.queue_time)
            == (pool.instances, pool.waiting, before.queue_time);
        let gate = if same_queue {
            self.gate.clone()
        } else {
            Gate::new(sandbox.instances as usize, sandbox.waiting as usize, server.queue_time)
        };
        let memory = if server.body_memory_bytes == before.body_memory_bytes {
            self.memory.clone()
        } else {
            BodyMemory::new(server.body_memory_bytes, registry.sandbox.memory().clone())
        };
        let addresses = if server.rate_per_ip == before.rate_per_ip {
            self.addresses.clone()
        } else {
            server.rate_per_ip.map(Addresses::new).map(Arc::new)
        };
        RequestContext {
            gate,
            memory,
            addresses,
            responses: self.responses.clone(),
            moderators: Arc::new(Moderators::new(&registry)),
            guards: Guards::new(&registry),
            upstreams: Arc::new(Upstreams::new(&registry.config, &registry.metrics, &self.upstreams)),
            keys: self.keys.next(&registry.config.keys, &self.registry.config.keys),
            work: self.work.clone(),
            live: self.live.clone(),
            stopping: self.stopping.clone(),
            registry,
            server,
        }
    }

    /// The models and components of this snapshot.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// True if requests need an API key.
    pub(super) fn needs_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Checks whether the server accepts requests.
    pub(super) fn ready(&self) -> Result<(), ApiError> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(ApiError::unavailable("the server is stopping"));
        }
        if let Some((name, _)) = self.registry.models.iter().find(|(_, model)| !model.is_serving()) {
            return Err(ApiError::unavailable(format!("model `{name}` has stopped; restart the server")));
        }
        if self.gate.is_standing() {
            return Err(ApiError::unavailable("the queue stays full; send requests to another server"));
        }
        Ok(())
    }

    fn caller(&self, request: &Request) -> Result<Caller, ApiError> {
        let ip = request.extensions().get::<Peer>().and_then(|peer| peer.ip());
        if let (Some(addresses), Some(ip)) = (&self.addresses, ip) {
            addresses.take(ip).map_err(|wait| ApiError::rate_limited("this address", wait))?;
        }
        if self.keys.is_empty() {
            return Ok(Caller(None));
        }
        let sent = bearer(request.headers()).or_else(|| google_key(request));
        let sent = sent.ok_or_else(ApiError::no_key)?;
        let key = self.keys.find(sent).ok_or_else(ApiError::wrong_key)?;
        Span::current().record("key", &key.name);
        if let Some(lease) = request.extensions().get::<Lease>() {
            lease.authenticate();
        }
        Ok(Caller(Some(key)))
    }
}

/// Authenticates the request.
pub(super) async fn identify(
    State(context): State<Arc<RequestContext>>,
    mut request: Request,
    next: Next,
) -> Response {
    match context.caller(&request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Authenticates a request, admits it if its key permits the component and there is capacity, reads
/// its body, and runs its handler on the worker threads.
pub(super) async fn admit(State(layer): State<AdmissionLayer>, mut request: Request, next: Next) -> Response {
    match layer.context.caller(&request) {
        Ok(caller) => request.extensions_mut().insert(caller),
        Err(error) => return error.into_response(),
    };
    match admit_or_reject(&layer, request, next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn admit_or_reject(layer: &AdmissionLayer, request: Request, next: Next) -> Result<Response, ApiError> {
    let AdmissionLayer { context, component, gate, takes_codings } = layer;
    let (mut parts, body) = request.into_parts();
    let key = parts.extensions.get::<Caller>().and_then(|caller| caller.0.clone());
    if let Some(component) = component {
        Caller(key.clone()).check(component)?;
    }
    if !takes_codings {
        encoding::check(&parts.headers)?;
    }
    // Without capacity a request is rejected before its body is read. The permit is taken once the
    // body is complete, so a client that sends no body takes no capacity from others. The
    // concurrency permit is taken at once, because it belongs to one key.
    if let Some(gate) = gate {
        gate.check().map_err(|_| ApiError::busy())?;
    }
    let concurrency = match &key {
        None => None,
        Some(key) => key.enter().map_err(|rejected| match rejected {
            Rejected::Rate(wait) => ApiError::rate_limited("this API key", wait),
            Rejected::Concurrency => ApiError::too_many_at_once(),
        })?,
    };
    let lease = parts.extensions.get::<Lease>().cloned();
    let deadline = parts.extensions.get().map(|call: &infer_sandbox::Request| call.deadline);
    let sender = match &key {
        Some(key) => Sender::Key(key.hash),
        None => Sender::Address(
            parts.extensions.get::<Peer>().and_then(|peer| peer.ip()).map(rates::client_address),
        ),
    };
    let (body, share) = context.body(body, sender, deadline, lease.as_ref()).await?;
    if !takes_codings {
        encoding::check_body(&body)?;
    }
    let permit = match gate {
        Some(gate) => Some(Arc::new(gate.enter().map_err(|_| ApiError::busy())?)),
        None => None,
    };
    if let Some(permit) = &permit {
        parts.extensions.insert(permit.clone());
    }
    let handler = next.run(Request::from_parts(parts, Body::from(body)));
    let work = async move {
        let response = handler.await;
        // Permits and memory belong to the request until its response is sent, or it is dropped
        // with its client.
        if response.body().size_hint().exact().is_none()
            && let Some(lease) = lease
        {
            lease.hold(Box::new((permit, concurrency, share)));
        }
        response
    };
    let mut task = Abort(context.work.spawn(work.instrument(Span::current())));
    (&mut task.0).await.map_err(|failure| {
        error!("a handler has panicked or was cancelled: {failure}");
        ApiError::internal("internal")
    })
}

impl RequestContext {
    /// Reads the whole body within its time limit, and returns it with its memory charge.
    async fn body(
        &self,
        body: Body,
        sender: Sender,
        deadline: Option<Instant>,
        lease: Option<&Lease>,
    ) -> Result<(Bytes, Share), ApiError> {
        let due = Instant::now() + self.server.body_time;
        let due = deadline.map_or(due, |deadline| deadline.min(due));
        let slow = || {
            if let Some(lease) = lease {
                lease.mark_wasted();
            }
            ApiError::slow_request()
        };
        let mut reading = Reading {
            arriving: self.memory.arriving(sender),
            due,
            max_pause: self.server.connections.header_time,
            max_bytes: self.server.max_body_bytes,
        };
        reading.read(body, lease).await.map_err(|stop| match stop {
            Stop::Slow => slow(),
            Stop::Rejected(error) => error,
        })?;
        if let Some(lease) = lease {
            lease.arrived();
        }
        reading.arriving.whole().map_err(|_| slow())
    }
}

/// Reason why a body is not read to its end.
enum Stop {
    Slow,
    Rejected(ApiError),
}

/// A body that is being read.
struct Reading {
    arriving: Arriving,
    /// Deadline for the whole body.
    due: Instant,
    /// Maximum time without sufficient progress.
    max_pause: Duration,
    /// Maximum length, in bytes.
    max_bytes: usize,
}

impl Reading {
    /// Reads the whole body, which is charged as it arrives: a declared length costs nothing, and
    /// at most `max_bytes` bytes are read.
    async fn read(&mut self, mut body: Body, lease: Option<&Lease>) -> Result<(), Stop> {
        let too_large = || Stop::Rejected(ApiError::body_too_large(self.max_bytes));
        if body.size_hint().lower() > self.max_bytes as u64 {
            return Err(too_large());
        }
        loop {
            let next = self.due.min(self.arriving.progressed_at() + self.max_pause);
            let frame = tokio::select! {
                biased;
                frame = body.frame() => frame,
                () = sleep_until(next.into()) => return Err(Stop::Slow),
                () = self.arriving.evicted() => return Err(Stop::Slow),
            };
            let Some(frame) = frame else { return Ok(()) };
            let frame = frame.map_err(|error| {
                if let Some(lease) = lease {
                    lease.mark_wasted();
                }
                Stop::Rejected(ApiError::invalid("", format!("the body is incomplete: {error}")))
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if self.arriving.length() + data.len() > self.max_bytes {
                return Err(too_large());
            }
            if let Some(lease) = lease {
                lease.receive(data.len());
            }
            self.arriving.add(data).map_err(|_| Stop::Rejected(ApiError::busy()))?;
            if body.is_end_stream() {
                return Ok(());
            }
            self.arriving.list();
        }
    }
}

/// The token after `Bearer` in the `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// The key in `X-Goog-Api-Key` or in the query, as Google's clients send it; only on the
/// Perspective route.
fn google_key(request: &Request) -> Option<&str> {
    if !Route::AnalyzeComment.has_path(request.uri().path()) {
        return None;
    }
    let header = request.headers().get("x-goog-api-key").and_then(|value| value.to_str().ok());
    header.or_else(|| request.uri().query()?.split('&').find_map(|member| member.strip_prefix("key=")))
}
