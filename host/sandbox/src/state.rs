//! Data of a store: state, usage and budgets of one instance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use infer_engine::{Model, RunError, TokenUsage};
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;

use crate::call::{Annotations, Request};
use crate::clock::Clock;
use crate::error::Cause;
use crate::guest_limits::Limits;
use crate::guest_log::GuestLog;
use crate::http::HttpOptions;
use crate::memory::{INSTANCE_BYTES, Reservation};

/// Grants of a component, shared by all of its instances.
#[derive(Clone, Debug)]
pub(crate) struct Grants {
    /// The component's name in the configuration.
    pub(crate) component: Arc<str>,
    /// Models by the name that the guest uses.
    pub(crate) models: BTreeMap<String, Arc<Model>>,
    /// Settings that `wasi:config/store` returns.
    pub(crate) settings: BTreeMap<String, String>,
    /// Budgets of each instance.
    pub(crate) limits: Limits,
    /// Options of an HTTP component.
    pub(crate) http: HttpOptions,
}

/// The host's state of one instance.
pub(crate) struct State {
    pub(crate) grants: Arc<Grants>,
    pub(crate) guest_log: Arc<GuestLog>,
    pub(crate) deadline: Instant,
    /// Settings of the request.
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) clock: Clock,
    pub(crate) table: ResourceTable,
    pub(crate) created: Instant,
    pub(crate) instantiate: Duration,
    /// The request's share of the memory of all requests.
    pub(crate) reservation: Reservation,
    /// Bytes of tensors held now.
    pub(crate) tensor_bytes: usize,
    pub(crate) tensor_bytes_peak: usize,
    pub(crate) memory_bytes: usize,
    /// Time spent waiting in models' queues, then time computing.
    pub(crate) queue: Duration,
    pub(crate) compute: Duration,
    pub(crate) batch: usize,
    /// Usage of language models.
    pub(crate) tokens: TokenUsage,
    /// The guest's remarks for the caller.
    pub(crate) annotations: Annotations,
    /// Last error of a model, which the guest sees without its kind.
    pub(crate) model_error: Option<RunError>,
    /// True if some model returned no outputs for a temporary reason.
    pub(crate) is_partial: bool,
    /// Limit at which a memory or a table was refused growth. Growth fails softly, so only this
    /// explains an abort of the guest after it.
    pub(crate) refused: Option<Cause>,
}

impl State {
    pub(crate) fn new(
        grants: Arc<Grants>,
        reservation: Reservation,
        request: &Request,
        clock: Clock,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(grants.limits.handles);
        let guest_log = GuestLog::new(grants.component.clone(), request.id.clone(), grants.limits.log_lines);
        State {
            grants,
            guest_log: Arc::new(guest_log),
            deadline: request.deadline,
            settings: request.settings.clone(),
            clock,
            table,
            created: Instant::now(),
            instantiate: Duration::ZERO,
            reservation,
            tensor_bytes: 0,
            tensor_bytes_peak: 0,
            memory_bytes: 0,
            queue: Duration::ZERO,
            compute: Duration::ZERO,
            batch: 0,
            tokens: TokenUsage::default(),
            annotations: Annotations::default(),
            model_error: None,
            is_partial: false,
            refused: None,
        }
    }

    /// Marks the end of instantiation; guest time follows.
    pub(crate) fn instantiated(&mut self) {
        self.instantiate = self.created.elapsed();
    }

    /// Charges `bytes` of tensors.
    ///
    /// # Errors
    ///
    /// The cause if they exceed a budget.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), Cause> {
        let limit = self.grants.limits.tensor_bytes;
        match self.tensor_bytes.checked_add(bytes) {
            Some(total) if total <= limit => {
                self.hold(bytes)?;
                self.tensor_bytes = total;
                self.tensor_bytes_peak = self.tensor_bytes_peak.max(total);
                Ok(())
            }
            _ => Err(Cause::TensorBytes(limit)),
        }
    }

    /// Releases bytes that `charge` counted.
    pub(crate) fn release(&mut self, bytes: usize) {
        self.tensor_bytes -= bytes;
        self.reservation.shrink(bytes);
    }

    fn hold(&mut self, bytes: usize) -> Result<(), Cause> {
        self.reservation.grow(bytes).map_err(|_| Cause::ServerMemory(self.reservation.max_bytes()))
    }
}

impl AsMut<State> for State {
    fn as_mut(&mut self) -> &mut State {
        self
    }
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.grants.limits.memory_bytes;
        if desired > limit || maximum.is_some_and(|maximum| desired > maximum) {
            self.refused = Some(Cause::Memory(limit));
            return Ok(false);
        }
        let beyond = |bytes: usize| bytes.saturating_sub(INSTANCE_BYTES);
        if let Err(cause) = self.hold(beyond(desired) - beyond(current)) {
            self.refused = Some(cause);
            return Ok(false);
        }
        self.memory_bytes = self.memory_bytes.max(desired);
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let limit = self.grants.limits.table_elements;
        if desired > limit || maximum.is_some_and(|maximum| desired > maximum) {
            self.refused = Some(Cause::Table(limit));
            return Ok(false);
        }
        Ok(true)
    }
}
