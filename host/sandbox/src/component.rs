//! A loaded component, and its calls.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::Response;
use bytes::Bytes;
use infer_engine::Model;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout_at;
use wasmtime::component::{Component as Compiled, InstancePre, ResourceTableError};
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::answer::{check_labels, check_verdict, presentable};
use crate::bindings::classifier::ClassifierPre;
use crate::bindings::moderator::ModeratorPre;
use crate::bindings::predictor::PredictorPre;
use crate::call::{Outcome, Request, Usage};
use crate::clock::Clock;
use crate::compiled::{CachedCode, Entry};
use crate::error::{CallError, Cause, LoadError};
use crate::expectation::{Asked, Expectations};
use crate::http::{self, Answer, Body, Http, HttpOptions};
use crate::interruptible::interruptible;
use crate::limits::Limits;
use crate::memory::{RequestMemory, Reservation};
use crate::sandbox::{NoSlot, Sandbox, Slots};
use crate::state::{Grants, State};
use crate::ticker::TICK;
use crate::types::{Fault, Label, NamedTensor, Part, Verdict};

/// What a component is given beside its bytes.
#[derive(Debug, Default)]
pub struct ComponentOptions {
    /// Models by the name that the guest uses. No other can be reached.
    pub models: BTreeMap<String, Arc<Model>>,
    /// What `wasi:config/store` answers.
    pub settings: BTreeMap<String, String>,
    /// The budgets of each instance.
    pub limits: Limits,
    /// What only a component that answers HTTP requests is given.
    pub http: HttpOptions,
}

/// What a component answers, by what it exports: the worlds of `wit/infer.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// Exports `infer:guest/moderation`.
    Moderator,
    /// Exports `infer:guest/classification`.
    Classifier,
    /// Exports `infer:guest/prediction`.
    Predictor,
    /// Exports `wasi:http/incoming-handler`.
    Handler,
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            World::Moderator => "moderator",
            World::Classifier => "classifier",
            World::Predictor => "predictor",
            World::Handler => "handler",
        })
    }
}

/// A component of one world, linked: each call instantiates it.
#[derive(Clone)]
enum Linked {
    Moderator(ModeratorPre<State>),
    Classifier(ClassifierPre<State>),
    Predictor(PredictorPre<State>),
    Handler(ProxyPre<Http>),
}

/// A component, compiled and linked: each call makes an instance of it.
pub struct Component {
    engine: Engine,
    linked: Linked,
    grants: Arc<Grants>,
    slots: Arc<Slots>,
    /// What this component may have of them; none for all.
    own_slots: Option<Arc<Semaphore>>,
    memory: RequestMemory,
    /// Memory that a call is expected to hold.
    expectations: Arc<Expectations>,
}

impl Sandbox {
    /// Compile a component, or take the machine code that was kept of it, and link it to the host.
    ///
    /// `name` is the component's name in the configuration; `bytes` is a component in binary form.
    ///
    /// # Errors
    ///
    /// When the bytes are not a component, when it imports what guests are not given, or exports no
    /// world's interface.
    pub fn load(&self, name: &str, bytes: &[u8], options: ComponentOptions) -> Result<Component, LoadError> {
        let component = || name.to_owned();
        let (compiled, _) = self.compile(name, bytes)?;
        let ty = compiled.component_type();
        let is_handler = ty.exports(&self.engine).any(|(export, _)| export.starts_with(http::EXPORT));
        self.check_imports(name, &compiled, if is_handler { &http::GRANTED } else { &[] })?;
        let limit = |error: wasmtime::Error| LoadError::Limit {
            component: component(),
            message: format!("{error:#}"),
        };
        let linked = if is_handler {
            let pre = self.http_linker.instantiate_pre(&compiled).map_err(limit)?;
            ProxyPre::new(pre).ok().map(Linked::Handler)
        } else {
            link(self.linker.instantiate_pre(&compiled).map_err(limit)?)
        };
        let linked = linked.ok_or_else(|| {
            let exports: Vec<_> = ty.exports(&self.engine).map(|(name, _)| format!("`{name}`")).collect();
            let exports = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
            LoadError::Export { component: component(), exports }
        })?;
        let ComponentOptions { models, settings, limits, http } = options;
        let own_slots = limits.instances.map(|instances| Arc::new(Semaphore::new(instances)));
        let grants = Arc::new(Grants { component: Arc::from(name), models, settings, limits, http });
        let (engine, slots, memory) = (self.engine.clone(), self.slots.clone(), self.memory.clone());
        let expectations = Arc::new(Expectations::new());
        Ok(Component { engine, linked, grants, slots, own_slots, memory, expectations })
    }

    /// Compile a component ahead of its first use, and say where its machine code is kept; none
    /// where none is kept.
    ///
    /// # Errors
    ///
    /// When the bytes are not a component that compiles.
    pub fn compile_ahead(&self, name: &str, bytes: &[u8]) -> Result<Option<CachedCode>, LoadError> {
        self.compile(name, bytes).map(|(_, kept)| kept)
    }

    /// Where the machine code of these bytes is kept; none where it is not.
    pub fn kept(&self, bytes: &[u8]) -> Option<PathBuf> {
        let entry = Entry::new(self.compiled_folder.as_deref()?, &self.engine, bytes);
        Some(entry.path().to_owned()).filter(|path| path.is_file())
    }

    /// A folder that fails costs a warning and the time to compile, not the component.
    fn compile(&self, name: &str, bytes: &[u8]) -> Result<(Compiled, Option<CachedCode>), LoadError> {
        let entry = self.compiled_folder.as_deref().map(|folder| Entry::new(folder, &self.engine, bytes));
        if let Some(entry) = &entry {
            let path = entry.path().to_owned();
            match entry.open(&self.engine) {
                Ok(Some((compiled, bytes))) => {
                    return Ok((compiled, Some(CachedCode { path, bytes, reused: true })));
                }
                Ok(None) => {}
                Err(reason) => {
                    tracing::warn!(
                        component = name,
                        "`{}` {reason}; the component is compiled anew",
                        path.display()
                    );
                }
            }
        }
        let compiled = interruptible(bytes).and_then(|changed| {
            Compiled::from_binary(&self.engine, &changed).map_err(|error| format!("{error:#}"))
        });
        let compiled = compiled.map_err(|reason| {
            // Explained by the bytes as they are in the file.
            let message = Compiled::from_binary(&self.engine, bytes).err();
            let message = message.map_or(reason, |error| explain(bytes, &error));
            LoadError::Compile { component: name.to_owned(), message }
        })?;
        let Some(entry) = entry else { return Ok((compiled, None)) };
        let path = entry.path().to_owned();
        let kept = match entry.keep(&compiled) {
            Ok(bytes) => Some(CachedCode { path, bytes, reused: false }),
            Err(error) => {
                let shown = path.display();
                tracing::warn!(
                    component = name,
                    "cannot write `{shown}`: {error}; the component is compiled again at the next start"
                );
                None
            }
        };
        Ok((compiled, kept))
    }

    /// Whether the component imports nothing but what every guest may, and what it is granted
    /// `beside` that.
    fn check_imports(&self, name: &str, compiled: &Compiled, beside: &[&str]) -> Result<(), LoadError> {
        const GRANTED: [&str; 3] = ["wasi:nn/", "wasi:config/store@", "infer:guest/"];
        let ty = compiled.component_type();
        let is_granted =
            |import: &str| GRANTED.iter().chain(beside).any(|granted| import.starts_with(granted));
        let refused: Vec<_> = ty
            .imports(&self.engine)
            .filter(|(import, _)| !is_granted(import))
            .map(|(import, _)| format!("`{import}`"))
            .collect();
        if refused.is_empty() {
            return Ok(());
        }
        Err(LoadError::Import { component: name.to_owned(), imports: refused.join(", ") })
    }
}

fn link(pre: InstancePre<State>) -> Option<Linked> {
    if let Ok(pre) = ModeratorPre::new(pre.clone()) {
        return Some(Linked::Moderator(pre));
    }
    if let Ok(pre) = ClassifierPre::new(pre.clone()) {
        return Some(Linked::Classifier(pre));
    }
    PredictorPre::new(pre).ok().map(Linked::Predictor)
}

fn explain(bytes: &[u8], error: &wasmtime::Error) -> String {
    // Magic, then the layer: version 1 is a core module, 0x1000d a component.
    match bytes {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            "the file is a core module; make it a component first (`make guests` and `wasm-tools component new` do)"
                .to_owned()
        }
        [0, b'a', b's', b'm', ..] => format!("{error:#}"),
        _ => "the file does not start with the WebAssembly magic number".to_owned(),
    }
}

impl Component {
    /// The component's name in the configuration.
    pub fn name(&self) -> &str {
        &self.grants.component
    }

    /// The same component under another name: language models find nothing for it that they
    /// computed for this one.
    #[must_use]
    pub fn renamed(&self, name: &str) -> Component {
        let grants = Grants { component: Arc::from(name), ..Grants::clone(&self.grants) };
        let (engine, linked) = (self.engine.clone(), self.linked.clone());
        let (slots, own_slots) = (self.slots.clone(), self.own_slots.clone());
        let (grants, memory) = (Arc::new(grants), self.memory.clone());
        let expectations = Arc::new(Expectations::new());
        Component { engine, linked, grants, slots, own_slots, memory, expectations }
    }

    /// What the component answers.
    pub fn world(&self) -> World {
        match &self.linked {
            Linked::Moderator(_) => World::Moderator,
            Linked::Classifier(_) => World::Classifier,
            Linked::Predictor(_) => World::Predictor,
            Linked::Handler(_) => World::Handler,
        }
    }

    /// The models that the component may use, by the name that it uses.
    pub fn models(&self) -> &BTreeMap<String, Arc<Model>> {
        &self.grants.models
    }

    /// The budgets of each instance.
    pub fn limits(&self) -> &Limits {
        &self.grants.limits
    }

    /// Judge `input` on a fresh instance.
    pub async fn moderate(&self, request: &Request, input: &[Part]) -> Outcome<Verdict> {
        let Linked::Moderator(pre) = &self.linked else { return self.wrong_world(World::Moderator) };
        self.visit(
            request,
            Asked::parts(input),
            |state| state,
            async |store| {
                let guest = pre.instantiate_async(&mut *store).await?;
                store.data_mut().instantiated();
                guest.infer_guest_moderation().call_moderate(store, input).await
            },
        )
        .await
        .checked(&self.grants.component, check_verdict)
    }

    /// The `top` labels of `image`, the bytes of an image file, on a fresh instance.
    pub async fn classify(&self, request: &Request, image: &[u8], top: u32) -> Outcome<Vec<Label>> {
        let Linked::Classifier(pre) = &self.linked else { return self.wrong_world(World::Classifier) };
        self.visit(
            request,
            Asked::image(image),
            |state| state,
            async |store| {
                let guest = pre.instantiate_async(&mut *store).await?;
                store.data_mut().instantiated();
                guest.infer_guest_classification().call_classify(store, image, top).await
            },
        )
        .await
        .checked(&self.grants.component, |labels| check_labels(labels, top))
    }

    /// Run `model`, as the component's configuration names it, on a fresh instance that passes the
    /// tensors through.
    pub async fn predict(
        &self,
        request: &Request,
        model: &str,
        inputs: &[NamedTensor],
    ) -> Outcome<Vec<NamedTensor>> {
        let Linked::Predictor(pre) = &self.linked else { return self.wrong_world(World::Predictor) };
        self.visit(
            request,
            Asked::tensors(inputs),
            |state| state,
            async |store| {
                let guest = pre.instantiate_async(&mut *store).await?;
                store.data_mut().instantiated();
                guest.infer_guest_prediction().call_predict(store, model, inputs).await
            },
        )
        .await
    }

    /// Answer an HTTP request on a fresh instance: `head` is sent as soon as the guest has given
    /// its response, whose body comes as the guest writes it. The call lasts until the guest
    /// returns.
    ///
    /// `incoming` has a whole URI, scheme and authority included. `gone` is sent when the answer is
    /// delivered, and the guest may go on; dropped before that, it ends the guest.
    pub async fn handle(
        &self,
        request: &Request,
        incoming: ::http::Request<Bytes>,
        head: oneshot::Sender<Response<Body>>,
        gone: oneshot::Receiver<()>,
    ) -> Outcome<()> {
        let Linked::Handler(pre) = &self.linked else { return self.wrong_world(World::Handler) };
        let answer = Answer::none();
        let asked = Asked::body(incoming.headers(), incoming.body().len());
        self.visit(request, asked, Http::new, async |store| {
            http::ask(pre, store, incoming, head, &answer, gone).await.map(Ok)
        })
        .await
        .checked(&self.grants.component, |()| answer.check())
    }

    /// Take a slot, run `call` in a fresh store under the component's budgets, and account for it.
    /// The store holds what `data` puts around the instance's state.
    async fn visit<T, D: AsMut<State> + Send + 'static>(
        &self,
        request: &Request,
        asked: Asked,
        data: impl FnOnce(State) -> D,
        call: impl AsyncFnOnce(&mut Store<D>) -> wasmtime::Result<Result<T, Fault>>,
    ) -> Outcome<T> {
        let component = || self.grants.component.to_string();
        let began = Instant::now();
        let busy = |instances| CallError::Busy { component: component(), instances };
        // Refused rather than left to wait: who waits has a place that another component's request
        // would have.
        let _own_slot = match self.own_slots.as_ref().map(|slots| slots.try_acquire()) {
            Some(Err(_)) => {
                let instances = self.grants.limits.instances.unwrap_or_default();
                return Outcome {
                    result: Err(busy(instances as u32)),
                    usage: Usage::default(),
                    notes: Vec::new(),
                };
            }
            own => own.and_then(Result::ok),
        };
        let _slot = match self.slots.enter(request.deadline).await {
            Ok(slot) => slot,
            Err(refusal) => {
                let error = match refusal {
                    NoSlot::Busy => busy(self.slots.instances),
                    NoSlot::Deadline => CallError::Deadline { component: component() },
                };
                let usage = Usage { queue: began.elapsed(), ..Usage::default() };
                return Outcome { result: Err(error), usage, notes: Vec::new() };
            }
        };
        let waited = began.elapsed();

        // Refused now it costs nothing; refused half-way it costs what was done.
        let mut held = self.memory.share();
        if held.reserve(self.expectations.of(asked, began + waited)).is_err() {
            let cause = Cause::ServerMemory(held.most());
            let usage = Usage { queue: waited, ..Usage::default() };
            let result = Err(CallError::Stopped { component: component(), cause });
            return Outcome { result, usage, notes: Vec::new() };
        }

        let (clock, turn) = (Clock::new(), self.slots.turns.begin());
        let mut store = self.store(request, held, &clock, data);
        let answer = timeout_at(request.deadline.into(), clock.measure(turn, call(&mut store))).await;

        let state = store.data_mut().as_mut();
        let result = match answer {
            Ok(Ok(Ok(answer))) => Ok(answer),
            // What the guest makes of memory that it was refused is not the client's doing.
            Ok(Ok(Err(_))) if matches!(state.refused, Some(Cause::ServerMemory(_))) => {
                let cause = state.refused.clone().unwrap_or(Cause::ServerMemory(0));
                Err(CallError::Stopped { component: component(), cause })
            }
            Ok(Ok(Err(fault))) => {
                let (fault, model) = (presentable(fault), state.model_error.take());
                Err(CallError::Fault { component: component(), fault, model })
            }
            Ok(Err(error)) => Err(CallError::Stopped { component: component(), cause: cause(&error, state) }),
            Err(_) => Err(CallError::Deadline { component: component() }),
        };
        let mut usage = Usage {
            queue: waited + state.queue,
            instantiate: state.instantiate,
            guest: clock.spent().saturating_sub(state.instantiate),
            compute: state.compute,
            drop: Duration::ZERO,
            batch: state.batch,
            tokens: state.tokens,
            memory_bytes_peak: state.memory_bytes,
            tensor_bytes_peak: state.tensor_bytes_peak,
            is_partial: state.is_partial,
        };
        let notes = std::mem::take(&mut state.notes);
        let dropping = Instant::now();
        self.expectations.learn(asked, state.held.peak(), dropping);
        drop(store);
        usage.drop = dropping.elapsed();
        request.charge(&usage);
        Outcome { result, usage, notes }
    }

    fn store<D: AsMut<State> + Send + 'static>(
        &self,
        request: &Request,
        held: Reservation,
        clock: &Clock,
        data: impl FnOnce(State) -> D,
    ) -> Store<D> {
        let limits = &self.grants.limits;
        let state =
            State::new(self.grants.clone(), held, request.id.clone(), request.deadline, clock.clone());
        let mut store = Store::new(&self.engine, data(state));
        store.limiter(|data| data.as_mut());
        store.set_hostcall_fuel(limits.tensor_bytes);
        store.set_max_component_handles(limits.handles);
        store.set_epoch_deadline(1);
        let (clock, guest_time) = (clock.clone(), limits.guest_time);
        store.epoch_deadline_callback(move |_| {
            if clock.spent_inside() > guest_time {
                return Err(Cause::GuestTime(guest_time).into());
            }
            if clock.running() < TICK {
                return Ok(UpdateDeadline::Continue(1));
            }
            // Tokio's own yield lets it look after sockets and timers before this guest goes on.
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        store
    }

    fn wrong_world<T>(&self, expected: World) -> Outcome<T> {
        let component = self.grants.component.to_string();
        let error = CallError::World { component, expected, found: self.world() };
        Outcome { result: Err(error), usage: Usage::default(), notes: Vec::new() }
    }
}

/// Why the guest stopped, from the error that unwound it.
fn cause(error: &wasmtime::Error, state: &State) -> Cause {
    if let Some(cause) = error.downcast_ref::<Cause>() {
        return cause.clone();
    }
    // The type behind this message is private to wasmtime.
    if error.root_cause().to_string().contains("fuel allocated for hostcalls") {
        return Cause::TensorBytes(state.grants.limits.tensor_bytes);
    }
    if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) {
        return Cause::Handles(state.grants.limits.handles);
    }
    match &state.refused {
        Some(refused) => refused.clone(),
        None => Cause::Trap(error.root_cause().to_string()),
    }
}
