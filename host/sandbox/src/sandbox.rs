//! The WebAssembly engine and the instance pool.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout_at;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Enabled, Engine, PoolingAllocationConfig, Strategy};

use crate::bindings;
use crate::error::PoolError;
use crate::guest_limits::Limits;
use crate::http::{self, Http};
use crate::memory::RequestMemory;
use crate::nn;
use crate::state::State;
use crate::ticker::Ticker;
use crate::turns::Turns;

/// Memory of an idle slot that is cleared in place rather than returned to the system, in bytes: an
/// image tensor or two. Clearing is cheaper than the page faults of the next request, and the pool
/// keeps few idle slots.
const KEEP_RESIDENT: usize = 2 << 20;

/// Maximum number of core modules in one component. A guest in Rust has one; a guest in Python has
/// about forty, one for each library.
const MODULES: u32 = 64;

/// Options of the sandbox.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// Maximum number of guest instances at a time.
    pub instances: u32,
    /// Maximum number of requests that wait for an instance; more are rejected.
    pub waiting: u32,
    /// The largest `memory_bytes` of any component that will be loaded.
    pub max_memory_bytes: usize,
    /// The largest `table_elements` of any component that will be loaded.
    pub max_table_elements: usize,
    /// Folder that caches the machine code of components; only the operator may write there. `None`
    /// disables the cache.
    pub compiled_folder: Option<PathBuf>,
    /// Memory that requests may hold together: bodies, tensors, and growth of guests. Pools may
    /// share it.
    pub memory: RequestMemory,
}

impl SandboxOptions {
    /// Returns true if a pool of this size also serves `requested`.
    #[must_use]
    pub fn serves(&self, requested: &SandboxOptions) -> bool {
        (self.instances, self.waiting) == (requested.instances, requested.waiting)
            && self.max_memory_bytes >= requested.max_memory_bytes
            && self.max_table_elements >= requested.max_table_elements
    }
}

impl Default for SandboxOptions {
    fn default() -> Self {
        let limits = Limits::default();
        SandboxOptions {
            instances: 32,
            waiting: 256,
            max_memory_bytes: limits.memory_bytes,
            max_table_elements: limits.table_elements,
            compiled_folder: None,
            memory: RequestMemory::default(),
        }
    }
}

/// One WebAssembly engine for all components of the process.
pub struct Sandbox {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
    /// Linker of components that answer HTTP requests themselves.
    pub(crate) http_linker: Linker<Http>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) compiled_folder: Option<PathBuf>,
    pub(crate) memory: RequestMemory,
}

impl Sandbox {
    /// Reserves the pool's address space and starts the ticker. No memory is used until guests run.
    ///
    /// # Errors
    ///
    /// When the address space cannot be reserved, as under a low `ulimit -v`.
    pub fn new(options: &SandboxOptions) -> Result<Self, PoolError> {
        Sandbox::start(options)
            .map_err(|error| PoolError { instances: options.instances, message: format!("{error:#}") })
    }

    fn start(options: &SandboxOptions) -> wasmtime::Result<Self> {
        let engine = Engine::new(&config(options))?;
        let mut linker = Linker::new(&engine);
        bindings::Guest::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
        nn::link_data(&mut linker)?;
        let http_linker = http::linker(&engine)?;
        let running = Arc::new(Semaphore::new(options.instances as usize));
        let slots = Slots {
            instances: options.instances,
            ticker: Ticker::start(&engine, running.clone(), options.instances)?,
            turns: Turns::new(),
            running,
            admitted: Semaphore::new((options.instances + options.waiting) as usize),
        };
        let compiled_folder = options.compiled_folder.clone();
        let memory = options.memory.clone();
        Ok(Sandbox { engine, linker, http_linker, slots: Arc::new(slots), compiled_folder, memory })
    }

    /// Memory of all requests, for others who hold memory for them.
    pub fn memory(&self) -> &RequestMemory {
        &self.memory
    }
}

fn config(options: &SandboxOptions) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(options.instances)
        .total_core_instances(options.instances * MODULES)
        .total_memories(options.instances)
        .total_tables(options.instances * 4)
        .total_stacks(options.instances)
        .max_memories_per_component(1)
        .max_tables_per_component(4)
        .max_core_instances_per_component(MODULES)
        .max_memory_size(options.max_memory_bytes)
        .table_elements(options.max_table_elements)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .async_stack_keep_resident(64 << 10)
        .table_keep_resident(16 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .allocation_strategy(pool)
        .strategy(Strategy::Cranelift)
        .epoch_interruption(true)
        // No guest is concurrent with itself: a request is one call.
        .concurrency_support(false)
        // A short model runs on the guest's stack, below the guest's own share of it.
        .async_stack_size(2 << 20)
        .max_wasm_stack(512 << 10)
        // Page faults on the 4 GiB reservation replace bounds checks.
        .memory_reservation(4 << 30)
        .wasm_simd(true)
        .wasm_relaxed_simd(false)
        // Traps report the function, never the instruction.
        .generate_address_map(false)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16));
    config
}

/// Permits to run and to wait.
#[derive(Debug)]
pub(crate) struct Slots {
    pub(crate) instances: u32,
    running: Arc<Semaphore>,
    ticker: Ticker,
    pub(crate) turns: Turns,
    /// Running and waiting requests: a bound on the queue for `running`.
    admitted: Semaphore,
}

/// A slot of the pool, released on drop.
pub(crate) struct Slot<'s> {
    _running: SemaphorePermit<'s>,
    _admitted: SemaphorePermit<'s>,
}

/// Reason for which there is no slot.
pub(crate) enum NoSlot {
    Busy,
    Deadline,
}

impl Slots {
    /// Waits for a slot, first come first served.
    pub(crate) async fn enter(&self, deadline: Instant) -> Result<Slot<'_>, NoSlot> {
        let admitted = self.admitted.try_acquire().map_err(|_| NoSlot::Busy)?;
        match timeout_at(deadline.into(), self.running.acquire()).await {
            Ok(Ok(running)) => {
                self.ticker.wake();
                Ok(Slot { _running: running, _admitted: admitted })
            }
            Ok(Err(_)) => unreachable!("the semaphore is never closed"),
            Err(_) => Err(NoSlot::Deadline),
        }
    }
}
