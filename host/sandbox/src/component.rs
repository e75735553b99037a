//! A loaded component and its calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::Response;
use bytes::Bytes;
use infer_engine::Model;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout_at;
use wasmtime::component::ResourceTableError;
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::answer::{check_labels, check_verdict, presentable};
use crate::bindings::classifier::ClassifierPre;
use crate::bindings::moderator::ModeratorPre;
use crate::bindings::predictor::PredictorPre;
use crate::call::{Annotations, Outcome, Request, Usage};
use crate::clock::Clock;
use crate::error::{CallError, Cause};
use crate::expectation::{Expectations, Input};
use crate::guest_limits::Limits;
use crate::http::{self, Answer, Body, Http};
use crate::memory::{RequestMemory, Reservation};
use crate::sandbox::{NoSlot, Slots};
use crate::state::{Grants, State};
use crate::ticker::TICK;
use crate::types::{Fault, Label, NamedTensor, Part, Verdict};
use crate::world::World;

/// A component linked to the host, by world. Each call instantiates it.
#[derive(Clone)]
pub(crate) enum Linked {
    Moderator(ModeratorPre<State>),
    Classifier(ClassifierPre<State>),
    Predictor(PredictorPre<State>),
    Handler(ProxyPre<Http>),
}

/// A compiled and linked component. Each call creates an instance of it.
pub struct Component {
    pub(crate) engine: Engine,
    pub(crate) linked: Linked,
    pub(crate) grants: Arc<Grants>,
    pub(crate) slots: Arc<Slots>,
    /// Limit on this component's share of the slots, if it has one.
    pub(crate) own_slots: Option<Arc<Semaphore>>,
    pub(crate) memory: RequestMemory,
    /// Memory that a call is expected to take.
    pub(crate) expectations: Arc<Expectations>,
}

impl Component {
    /// The component's name in the configuration.
    pub fn name(&self) -> &str {
        &self.grants.component
    }

    /// The same component under another name. Language models keep separate caches for the two.
    #[must_use]
    pub fn renamed(&self, name: &str) -> Component {
        let grants = Grants { component: Arc::from(name), ..Grants::clone(&self.grants) };
        let (engine, linked) = (self.engine.clone(), self.linked.clone());
        let (slots, own_slots) = (self.slots.clone(), self.own_slots.clone());
        let (grants, memory) = (Arc::new(grants), self.memory.clone());
        let expectations = Arc::new(Expectations::new());
        Component { engine, linked, grants, slots, own_slots, memory, expectations }
    }

    /// The world of the component, which decides the calls that it answers.
    pub fn world(&self) -> World {
        match &self.linked {
            Linked::Moderator(_) => World::Moderator,
            Linked::Classifier(_) => World::Classifier,
            Linked::Predictor(_) => World::Predictor,
            Linked::Handler(_) => World::Handler,
        }
    }

    /// Models that the component may use, by the name that it uses.
    pub fn models(&self) -> &BTreeMap<String, Arc<Model>> {
        &self.grants.models
    }

    /// Budgets of each instance.
    pub fn limits(&self) -> &Limits {
        &self.grants.limits
    }

    /// Judges `input` in a fresh instance.
    pub async fn moderate(&self, request: &Request, input: &[Part]) -> Outcome<Verdict> {
        let Linked::Moderator(pre) = &self.linked else { return self.wrong_world(World::Moderator) };
        self.visit(
            request,
            Input::parts(input),
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

    /// Returns the `top` labels of `image`, the bytes of an image file, from a fresh instance.
    pub async fn classify(&self, request: &Request, image: &[u8], top: u32) -> Outcome<Vec<Label>> {
        let Linked::Classifier(pre) = &self.linked else { return self.wrong_world(World::Classifier) };
        self.visit(
            request,
            Input::image(image),
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

    /// Runs `model`, a name in the component's configuration, through a fresh instance that passes
    /// the tensors on.
    pub async fn predict(
        &self,
        request: &Request,
        model: &str,
        inputs: &[NamedTensor],
    ) -> Outcome<Vec<NamedTensor>> {
        let Linked::Predictor(pre) = &self.linked else { return self.wrong_world(World::Predictor) };
        self.visit(
            request,
            Input::tensors(inputs),
            |state| state,
            async |store| {
                let guest = pre.instantiate_async(&mut *store).await?;
                store.data_mut().instantiated();
                guest.infer_guest_prediction().call_predict(store, model, inputs).await
            },
        )
        .await
    }

    /// Answers an HTTP request in a fresh instance. `head` receives the response as soon as the
    /// guest sets it; its body follows as the guest writes it. The call lasts until the guest
    /// returns.
    ///
    /// `incoming` has an absolute URI, with scheme and authority. Send on `gone` once the answer is
    /// delivered: the guest may then go on. If `gone` is dropped before that, the guest is stopped.
    pub async fn handle(
        &self,
        request: &Request,
        incoming: ::http::Request<Bytes>,
        head: oneshot::Sender<Response<Body>>,
        gone: oneshot::Receiver<()>,
    ) -> Outcome<()> {
        let Linked::Handler(pre) = &self.linked else { return self.wrong_world(World::Handler) };
        let answer = Answer::none();
        let input = Input::body(incoming.headers(), incoming.body().len());
        self.visit(request, input, Http::new, async |store| {
            http::ask(pre, store, incoming, head, &answer, gone).await.map(Ok)
        })
        .await
        .checked(&self.grants.component, |()| answer.check())
    }

    /// Takes a slot, runs `call` in a fresh store under the component's budgets, and accounts for
    /// it. `data` wraps the instance's state into the data of the store.
    async fn visit<T, D: AsMut<State> + Send + 'static>(
        &self,
        request: &Request,
        input: Input,
        data: impl FnOnce(State) -> D,
        call: impl AsyncFnOnce(&mut Store<D>) -> wasmtime::Result<Result<T, Fault>>,
    ) -> Outcome<T> {
        let component = || self.grants.component.to_string();
        let began = Instant::now();
        let busy = |instances| CallError::Busy { component: component(), instances };
        // Rejected rather than queued: a waiting call would take the place of another component's.
        let _own_slot = match self.own_slots.as_ref().map(|slots| slots.try_acquire()) {
            Some(Err(_)) => {
                let instances = self.grants.limits.instances.unwrap_or_default();
                return Outcome {
                    result: Err(busy(instances as u32)),
                    usage: Usage::default(),
                    annotations: Annotations::default(),
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
                return Outcome { result: Err(error), usage, annotations: Annotations::default() };
            }
        };
        let waited = began.elapsed();

        // A rejection before the start costs nothing; a rejection later wastes the work done.
        let mut reservation = self.memory.reservation();
        if reservation.reserve(self.expectations.of(input, began + waited)).is_err() {
            let cause = Cause::ServerMemory(reservation.max_bytes());
            let usage = Usage { queue: waited, ..Usage::default() };
            let result = Err(CallError::Stopped { component: component(), cause });
            return Outcome { result, usage, annotations: Annotations::default() };
        }

        let (clock, turn) = (Clock::new(), self.slots.turns.begin());
        let mut store = self.store(request, reservation, &clock, data);
        let answer = timeout_at(request.deadline.into(), clock.measure(turn, call(&mut store))).await;

        let state = store.data_mut().as_mut();
        let result = match answer {
            Ok(Ok(Ok(answer))) => Ok(answer),
            // A fault after the host refused memory is not the client's error.
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
        let annotations = std::mem::take(&mut state.annotations);
        let dropping = Instant::now();
        self.expectations.learn(input, state.reservation.peak_bytes(), dropping);
        drop(store);
        usage.drop = dropping.elapsed();
        request.charge(&usage);
        Outcome { result, usage, annotations }
    }

    fn store<D: AsMut<State> + Send + 'static>(
        &self,
        request: &Request,
        reservation: Reservation,
        clock: &Clock,
        data: impl FnOnce(State) -> D,
    ) -> Store<D> {
        let limits = &self.grants.limits;
        let state = State::new(self.grants.clone(), reservation, request, clock.clone());
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
            // Tokio's own yield lets it serve sockets and timers before this guest goes on.
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        store
    }

    fn wrong_world<T>(&self, expected: World) -> Outcome<T> {
        let component = self.grants.component.to_string();
        let error = CallError::World { component, expected, found: self.world() };
        Outcome { result: Err(error), usage: Usage::default(), annotations: Annotations::default() }
    }
}

/// The cause for which the guest stopped, from the error that unwound it.
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
