//! A loaded component, and its calls.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use infer_engine::{Model, TokenUsage};
use tokio::time::timeout_at;
use wasmtime::component::{Component as Compiled, InstancePre};
use wasmtime::{Store, UpdateDeadline};

use crate::answer::{check_labels, check_verdict, presentable};
use crate::bindings::classifier::ClassifierPre;
use crate::bindings::moderator::ModeratorPre;
use crate::bindings::predictor::PredictorPre;
use crate::clock::Clock;
use crate::compiled::{Entry, Kept};
use crate::error::{CallError, Cause, LoadError};
use crate::limits::Limits;
use crate::memory::{Held, RequestMemory};
use crate::sandbox::{NoSlot, Sandbox, Slots};
use crate::state::{Grants, State};
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
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            World::Moderator => "moderator",
            World::Classifier => "classifier",
            World::Predictor => "predictor",
        })
    }
}

/// A component of one world, linked: each call instantiates it.
#[derive(Clone)]
enum Linked {
    Moderator(ModeratorPre<State>),
    Classifier(ClassifierPre<State>),
    Predictor(PredictorPre<State>),
}

/// What a call is part of. Its clones share one account.
#[derive(Clone, Debug)]
pub struct Request {
    /// For the log.
    pub id: Arc<str>,
    /// When the answer is no longer wanted.
    pub deadline: Instant,
    account: Arc<Mutex<Account>>,
}

/// What the calls of a request have used together, whether they were answered or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Calls that had an instance.
    pub calls: usize,
    /// The guests' own time on a processor.
    pub guest: Duration,
    /// Models running for them.
    pub compute: Duration,
    /// The most linear memory of one call, in bytes.
    pub memory_bytes_peak: usize,
    /// The most tensors that one call held at once, in bytes.
    pub tensor_bytes_peak: usize,
}

impl Request {
    /// A request that has used nothing yet.
    #[must_use]
    pub fn new(id: Arc<str>, deadline: Instant) -> Self {
        Request { id, deadline, account: Arc::default() }
    }

    /// The same request, whose answer is no longer wanted after `deadline`.
    #[must_use]
    pub fn until(&self, deadline: Instant) -> Self {
        Request { deadline, ..self.clone() }
    }

    /// What it has used so far.
    #[must_use]
    pub fn account(&self) -> Account {
        *self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn charge(&self, usage: &Usage) {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        account.calls += 1;
        account.guest += usage.guest;
        account.compute += usage.compute;
        account.memory_bytes_peak = account.memory_bytes_peak.max(usage.memory_bytes_peak);
        account.tensor_bytes_peak = account.tensor_bytes_peak.max(usage.tensor_bytes_peak);
    }
}

/// What a call used.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Waiting for an instance and in models' queues.
    pub queue: Duration,
    /// Making the instance.
    pub instantiate: Duration,
    /// The guest's own time on a processor, without `instantiate`.
    pub guest: Duration,
    /// Models running for this call.
    pub compute: Duration,
    /// Clearing up the instance.
    pub drop: Duration,
    /// Rows of the largest batch that this call was computed in; 0 when no model ran.
    pub batch: usize,
    /// Tokens of language models.
    pub tokens: TokenUsage,
    /// The most linear memory, in bytes.
    pub memory_bytes_peak: usize,
    /// The most tensors held at once, in bytes.
    pub tensor_bytes_peak: usize,
}

/// A call's result, and what it used either way.
#[derive(Debug)]
pub struct Outcome<T> {
    /// The answer.
    pub result: Result<T, CallError>,
    /// What it took.
    pub usage: Usage,
}

impl<T> Outcome<T> {
    /// Turn an answer that breaks the interface's rules into an error.
    fn checked(mut self, component: &str, check: impl FnOnce(&T) -> Result<(), String>) -> Self {
        if let Ok(answer) = &self.result
            && let Err(message) = check(answer)
        {
            self.result = Err(CallError::Answer { component: component.to_owned(), message });
        }
        self
    }
}

/// A component, compiled and linked: each call makes an instance of it.
pub struct Component {
    linked: Linked,
    grants: Arc<Grants>,
    slots: Arc<Slots>,
    memory: RequestMemory,
    /// What a call is expected to hold: as much as the last ones have, and less the longer none has.
    expected_bytes: Arc<AtomicUsize>,
}

impl Sandbox {
    /// Compile a component, or take the machine code that was kept of it, and link it to the host.
    ///
    /// `name` is the component's name in the configuration; `bytes` is a component in binary form.
    ///
    /// # Errors
    ///
    /// When the bytes are not a component, when it imports what guests are not given, or exports no world's interface.
    pub fn load(&self, name: &str, bytes: &[u8], options: ComponentOptions) -> Result<Component, LoadError> {
        let component = || name.to_owned();
        let (compiled, _) = self.compile(name, bytes)?;
        self.check_imports(name, &compiled)?;
        let pre = self
            .linker
            .instantiate_pre(&compiled)
            .map_err(|error| LoadError::Limit { component: component(), message: format!("{error:#}") })?;
        let linked = link(pre).ok_or_else(|| {
            let ty = compiled.component_type();
            let exports: Vec<_> = ty.exports(&self.engine).map(|(name, _)| format!("`{name}`")).collect();
            let exports = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
            LoadError::Export { component: component(), exports }
        })?;
        let ComponentOptions { models, settings, limits } = options;
        let grants = Arc::new(Grants { component: Arc::from(name), models, settings, limits });
        let (slots, memory) = (self.slots.clone(), self.memory.clone());
        Ok(Component { linked, grants, slots, memory, expected_bytes: Arc::default() })
    }

    /// Compile a component ahead of its first use, and say where its machine code is kept; none where none is kept.
    ///
    /// # Errors
    ///
    /// When the bytes are not a component that compiles.
    pub fn compile_ahead(&self, name: &str, bytes: &[u8]) -> Result<Option<Kept>, LoadError> {
        self.compile(name, bytes).map(|(_, kept)| kept)
    }

    /// Where the machine code of these bytes is kept; none where it is not.
    pub fn kept(&self, bytes: &[u8]) -> Option<PathBuf> {
        let entry = Entry::new(self.compiled_folder.as_deref()?, &self.engine, bytes);
        Some(entry.path().to_owned()).filter(|path| path.is_file())
    }

    /// A folder that fails costs a warning and the time to compile, not the component.
    fn compile(&self, name: &str, bytes: &[u8]) -> Result<(Compiled, Option<Kept>), LoadError> {
        let entry = self.compiled_folder.as_deref().map(|folder| Entry::new(folder, &self.engine, bytes));
        if let Some(entry) = &entry {
            let path = entry.path().to_owned();
            match entry.open(&self.engine) {
                Ok(Some((compiled, bytes))) => {
                    return Ok((compiled, Some(Kept { path, bytes, reused: true })));
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
        let compiled = Compiled::from_binary(&self.engine, bytes).map_err(|error| LoadError::Compile {
            component: name.to_owned(),
            message: explain(bytes, &error),
        })?;
        let Some(entry) = entry else { return Ok((compiled, None)) };
        let path = entry.path().to_owned();
        let kept = match entry.keep(&compiled) {
            Ok(bytes) => Some(Kept { path, bytes, reused: false }),
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

    fn check_imports(&self, name: &str, compiled: &Compiled) -> Result<(), LoadError> {
        const GRANTED: [&str; 3] = ["wasi:nn/", "wasi:config/store@", "infer:guest/"];
        let ty = compiled.component_type();
        let refused: Vec<_> = ty
            .imports(&self.engine)
            .filter(|(import, _)| !GRANTED.iter().any(|granted| import.starts_with(granted)))
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

    /// The same component under another name: language models find nothing for it that they computed for this one.
    #[must_use]
    pub fn renamed(&self, name: &str) -> Component {
        let grants = Grants { component: Arc::from(name), ..Grants::clone(&self.grants) };
        let (linked, slots, memory) = (self.linked.clone(), self.slots.clone(), self.memory.clone());
        Component { linked, grants: Arc::new(grants), slots, memory, expected_bytes: Arc::default() }
    }

    /// What the component answers.
    pub fn world(&self) -> World {
        match &self.linked {
            Linked::Moderator(_) => World::Moderator,
            Linked::Classifier(_) => World::Classifier,
            Linked::Predictor(_) => World::Predictor,
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
        self.visit(request, async |store: &mut Store<State>| {
            let guest = pre.instantiate_async(&mut *store).await?;
            store.data_mut().instantiated();
            guest.infer_guest_moderation().call_moderate(store, input).await
        })
        .await
        .checked(&self.grants.component, check_verdict)
    }

    /// The `top` labels of `image`, the bytes of an image file, on a fresh instance.
    pub async fn classify(&self, request: &Request, image: &[u8], top: u32) -> Outcome<Vec<Label>> {
        let Linked::Classifier(pre) = &self.linked else { return self.wrong_world(World::Classifier) };
        self.visit(request, async |store: &mut Store<State>| {
            let guest = pre.instantiate_async(&mut *store).await?;
            store.data_mut().instantiated();
            guest.infer_guest_classification().call_classify(store, image, top).await
        })
        .await
        .checked(&self.grants.component, |labels| check_labels(labels, top))
    }

    /// Run `model`, as the component's configuration names it, on a fresh instance that passes the tensors through.
    pub async fn predict(
        &self,
        request: &Request,
        model: &str,
        inputs: &[NamedTensor],
    ) -> Outcome<Vec<NamedTensor>> {
        let Linked::Predictor(pre) = &self.linked else { return self.wrong_world(World::Predictor) };
        self.visit(request, async |store: &mut Store<State>| {
            let guest = pre.instantiate_async(&mut *store).await?;
            store.data_mut().instantiated();
            guest.infer_guest_prediction().call_predict(store, model, inputs).await
        })
        .await
    }

    /// Take a slot, run `call` in a fresh store under the component's budgets, and account for it.
    async fn visit<T>(
        &self,
        request: &Request,
        call: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<Result<T, Fault>>,
    ) -> Outcome<T> {
        let component = || self.grants.component.to_string();
        let asked = Instant::now();
        let _slot = match self.slots.enter(request.deadline).await {
            Ok(slot) => slot,
            Err(refusal) => {
                let error = match refusal {
                    NoSlot::Busy => {
                        CallError::Busy { component: component(), instances: self.slots.instances }
                    }
                    NoSlot::Deadline => CallError::Deadline { component: component() },
                };
                let usage = Usage { queue: asked.elapsed(), ..Usage::default() };
                return Outcome { result: Err(error), usage };
            }
        };
        let waited = asked.elapsed();

        // Refused now it costs nothing; refused half-way it costs what was done.
        let mut held = self.memory.share();
        if held.reserve(self.expected_bytes.load(Ordering::Relaxed)).is_err() {
            let cause = Cause::ServerMemory(held.most());
            let usage = Usage { queue: waited, ..Usage::default() };
            return Outcome { result: Err(CallError::Stopped { component: component(), cause }), usage };
        }

        let clock = Clock::new();
        let mut store = self.store(request, held, &clock);
        let answer = timeout_at(request.deadline.into(), clock.measure(call(&mut store))).await;

        let state = store.data_mut();
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
        };
        self.expect(state.held.peak());
        let dropping = Instant::now();
        drop(store);
        usage.drop = dropping.elapsed();
        request.charge(&usage);
        Outcome { result, usage }
    }

    /// A call has wanted `bytes`: so will the next, as far as is known.
    fn expect(&self, bytes: usize) {
        let next = |expected: usize| Some(bytes.max(expected - expected.div_ceil(8)));
        let _ = self.expected_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    fn store(&self, request: &Request, held: Held, clock: &Clock) -> Store<State> {
        let limits = &self.grants.limits;
        let engine = match &self.linked {
            Linked::Moderator(pre) => pre.engine(),
            Linked::Classifier(pre) => pre.engine(),
            Linked::Predictor(pre) => pre.engine(),
        };
        let mut store = Store::new(
            engine,
            State::new(self.grants.clone(), held, request.id.clone(), request.deadline, clock.clone()),
        );
        store.limiter(|state| state);
        store.set_hostcall_fuel(limits.tensor_bytes);
        store.set_max_component_handles(limits.handles);
        store.set_epoch_deadline(1);
        let (clock, guest_time) = (clock.clone(), limits.guest_time);
        store.epoch_deadline_callback(move |_| {
            if clock.spent_inside() > guest_time {
                return Err(Cause::GuestTime(guest_time).into());
            }
            // Tokio's own yield lets it look after sockets and timers before this guest goes on.
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        store
    }

    fn wrong_world<T>(&self, expected: World) -> Outcome<T> {
        let component = self.grants.component.to_string();
        let error = CallError::World { component, expected, found: self.world() };
        Outcome { result: Err(error), usage: Usage::default() }
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
    match &state.refused {
        Some(refused) => refused.clone(),
        None => Cause::Trap(error.root_cause().to_string()),
    }
}
