//! The wasi:nn host: the standard's interface over the engine's models, under a component's
//! budgets.
//!
//! Errors that the interface can express reach the guest as values. Others (a tensor's constructor
//! returns no result) stop the guest: the trap contains a [`Cause`].

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use infer_engine::text::{MESSAGE_BYTES, QUOTE_BYTES, excerpt, excerpt_of, names};
use infer_engine::{Context, DType, RunError, Tensor};
use wasmtime::component::{Linker, Resource};
use wasmtime::{Result, StoreContextMut};

use crate::bindings::wasi::nn::errors::{self, ErrorCode};
use crate::bindings::wasi::nn::graph::{self, ExecutionTarget, GraphEncoding};
use crate::bindings::wasi::nn::inference;
use crate::bindings::wasi::nn::tensor::{self, TensorType};
use crate::bindings::{HostContext, HostError, HostGraph, HostTensor};
use crate::error::Cause;
use crate::state::State;

/// Name of the interface of tensors.
const TENSOR: &str = "wasi:nn/tensor@0.2.0-rc-2024-10-28";

type Answer<T> = std::result::Result<Resource<T>, Resource<HostError>>;

impl State {
    fn push<T: Send + 'static>(&mut self, entry: T) -> Result<Resource<T>> {
        let handles = self.grants.limits.handles;
        self.table.push(entry).map_err(|_| Cause::Handles(handles).into())
    }

    /// Creates an error value for the guest. Its text is an excerpt, so it counts against `handles`
    /// only.
    fn fail(&mut self, code: ErrorCode, data: impl Display) -> Result<Resource<HostError>> {
        self.push(HostError { code, data: excerpt_of(data, MESSAGE_BYTES) })
    }

    /// Removes the guest's tensors from the table. Their bytes stay charged until the caller
    /// releases them.
    fn take(
        &mut self,
        inputs: Vec<(String, Resource<HostTensor>)>,
    ) -> Result<(Vec<(String, HostTensor)>, usize)> {
        let mut cost = 0;
        let mut taken = Vec::with_capacity(inputs.len());
        for (name, handle) in inputs {
            let tensor = self.table.delete(handle)?;
            cost += tensor.cost();
            taken.push((name, tensor));
        }
        Ok((taken, cost))
    }

    /// Runs the model within the rest of the compute time, and records its usage.
    async fn run(
        &mut self,
        context: &mut Context,
        inputs: Vec<(String, Tensor)>,
    ) -> Result<Vec<(String, Tensor)>, RunError> {
        let began = Instant::now();
        let left = self.grants.limits.compute_time.saturating_sub(self.queue + self.compute);
        let deadline = self.deadline.min(began + left);
        let clock = self.clock.clone();
        match clock.outside(context.run(inputs, deadline)).await {
            Ok(reply) => {
                self.queue += reply.queue;
                self.compute += reply.compute;
                self.batch = self.batch.max(reply.batch);
                self.tokens += reply.usage.unwrap_or_default();
                Ok(reply.outputs)
            }
            Err(error) => {
                self.queue += began.elapsed();
                Err(error)
            }
        }
    }
}

impl tensor::Host for State {}

impl tensor::HostTensor for State {
    fn new(&mut self, dimensions: Vec<u32>, ty: TensorType, data: Vec<u8>) -> Result<Resource<HostTensor>> {
        let tensor = HostTensor { dimensions, ty, data: Arc::new(data) };
        self.charge(tensor.cost())?;
        self.push(tensor)
    }

    fn dimensions(&mut self, handle: Resource<HostTensor>) -> Result<Vec<u32>> {
        Ok(self.table.get(&handle)?.dimensions.clone())
    }

    fn ty(&mut self, handle: Resource<HostTensor>) -> Result<TensorType> {
        Ok(self.table.get(&handle)?.ty)
    }

    /// Replaced by [`link_data`], which makes no copy.
    fn data(&mut self, handle: Resource<HostTensor>) -> Result<Vec<u8>> {
        Ok(self.table.get(&handle)?.data.to_vec())
    }

    fn drop(&mut self, handle: Resource<HostTensor>) -> Result<()> {
        let tensor = self.table.delete(handle)?;
        self.release(tensor.cost());
        Ok(())
    }
}

/// Replaces the function that returns the data of a tensor: the bytes are written into the guest's
/// memory in place. The generated function has to return a copy of them.
pub(crate) fn link_data<D: AsMut<State> + 'static>(linker: &mut Linker<D>) -> Result<()> {
    linker.allow_shadowing(true);
    linker.instance(TENSOR)?.func_wrap(
        "[method]tensor.data",
        |mut store: StoreContextMut<'_, D>, (handle,): (Resource<HostTensor>,)| {
            let tensor = store.data_mut().as_mut().table.get(&handle)?;
            Ok((tensor.data.clone(),))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

impl graph::Host for State {
    fn load(&mut self, _: Vec<Vec<u8>>, _: GraphEncoding, _: ExecutionTarget) -> Result<Answer<HostGraph>> {
        let refusal =
            "loading models from guest bytes is not supported; use `load-by-name` with a configured model";
        Ok(Err(self.fail(ErrorCode::Security, refusal)?))
    }

    fn load_by_name(&mut self, name: String) -> Result<Answer<HostGraph>> {
        match self.grants.models.get(&name) {
            Some(model) => {
                let graph = HostGraph(model.clone());
                Ok(Ok(self.push(graph)?))
            }
            None => {
                let known = names(self.grants.models.keys());
                let name = excerpt(&name, QUOTE_BYTES);
                let known = if known.is_empty() { "none".to_owned() } else { known };
                let data = format!("no model `{name}` is configured for this component; configured: {known}");
                Ok(Err(self.fail(ErrorCode::NotFound, data)?))
            }
        }
    }
}

impl graph::HostGraph for State {
    fn init_execution_context(&mut self, graph: Resource<HostGraph>) -> Result<Answer<HostContext>> {
        let context = self.table.get(&graph)?.0.context(&self.grants.component);
        Ok(Ok(self.push(HostContext(Some(context)))?))
    }

    fn drop(&mut self, handle: Resource<HostGraph>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl inference::Host for State {}

type Outputs = std::result::Result<Vec<(String, Resource<HostTensor>)>, Resource<HostError>>;

impl inference::HostGraphExecutionContext for State {
    async fn compute(
        &mut self,
        context: Resource<HostContext>,
        inputs: Vec<(String, Resource<HostTensor>)>,
    ) -> Result<Outputs> {
        let mut taken = self.table.get_mut(&context)?.0.take().expect("a guest makes one call at a time");
        let (inputs, cost) = self.take(inputs)?;
        let outputs = match to_engine(inputs) {
            Ok(inputs) => self.run(&mut taken, inputs).await,
            Err(message) => Err(RunError::InvalidInput { model: taken.model().name().to_owned(), message }),
        };
        self.table.get_mut(&context)?.0 = Some(taken);
        self.release(cost);
        match outputs {
            Ok(outputs) => self.return_outputs(outputs),
            Err(error) => {
                self.is_partial |= is_temporary(&error);
                let failure = self.fail(code(&error), &error)?;
                self.model_error = Some(error);
                Ok(Err(failure))
            }
        }
    }

    fn drop(&mut self, handle: Resource<HostContext>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl State {
    /// Returns computed tensors to the guest, all or none of them.
    fn return_outputs(&mut self, outputs: Vec<(String, Tensor)>) -> Result<Outputs> {
        let outputs: Vec<_> = outputs.into_iter().map(|(name, tensor)| (name, from_engine(tensor))).collect();
        let cost = outputs.iter().map(|(_, tensor)| tensor.cost()).sum();
        if let Err(cause) = self.charge(cost) {
            if matches!(cause, Cause::ServerMemory(_)) {
                return Err(cause.into());
            }
            let data = format!("the outputs take {cost} bytes: {cause}");
            return Ok(Err(self.fail(ErrorCode::TooLarge, data)?));
        }
        let mut handles = Vec::with_capacity(outputs.len());
        for (name, tensor) in outputs {
            handles.push((name, self.push(tensor)?));
        }
        Ok(Ok(handles))
    }
}

impl errors::Host for State {}

impl errors::HostError for State {
    fn code(&mut self, handle: Resource<HostError>) -> Result<ErrorCode> {
        Ok(self.table.get(&handle)?.code)
    }

    fn data(&mut self, handle: Resource<HostError>) -> Result<String> {
        Ok(self.table.get(&handle)?.data.clone())
    }

    fn drop(&mut self, handle: Resource<HostError>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

fn to_engine(inputs: Vec<(String, HostTensor)>) -> std::result::Result<Vec<(String, Tensor)>, String> {
    let convert = |(name, tensor): (String, HostTensor)| {
        let shape = tensor.dimensions.iter().map(|&size| size as usize).collect();
        match Tensor::new(dtype(tensor.ty), shape, Arc::unwrap_or_clone(tensor.data)) {
            Ok(tensor) => Ok((name, tensor)),
            Err(error) => Err(format!("tensor `{}`: {error}", excerpt(&name, QUOTE_BYTES))),
        }
    };
    inputs.into_iter().map(convert).collect()
}

fn from_engine(tensor: Tensor) -> HostTensor {
    let ty = match tensor.dtype() {
        DType::F16 => TensorType::Fp16,
        DType::F32 => TensorType::Fp32,
        DType::F64 => TensorType::Fp64,
        DType::BF16 => TensorType::Bf16,
        DType::U8 => TensorType::U8,
        DType::I32 => TensorType::I32,
        DType::I64 => TensorType::I64,
    };
    // An engine's output came from memory, so each axis is far below 2³².
    let dimensions = tensor.shape().iter().map(|&size| u32::try_from(size).unwrap_or(u32::MAX)).collect();
    HostTensor { dimensions, ty, data: Arc::new(tensor.into_data()) }
}

fn dtype(ty: TensorType) -> DType {
    match ty {
        TensorType::Fp16 => DType::F16,
        TensorType::Fp32 => DType::F32,
        TensorType::Fp64 => DType::F64,
        TensorType::Bf16 => DType::BF16,
        TensorType::U8 => DType::U8,
        TensorType::I32 => DType::I32,
        TensorType::I64 => DType::I64,
    }
}

/// Returns true if the same computation may succeed later.
fn is_temporary(error: &RunError) -> bool {
    !matches!(error, RunError::InvalidInput { .. } | RunError::TooLarge { .. } | RunError::Unsupported { .. })
}

fn code(error: &RunError) -> ErrorCode {
    match error {
        RunError::InvalidInput { .. } => ErrorCode::InvalidArgument,
        RunError::TooLarge { .. } => ErrorCode::TooLarge,
        RunError::Deadline { .. } => ErrorCode::Timeout,
        RunError::Unsupported { .. } => ErrorCode::UnsupportedOperation,
        RunError::Busy { .. } | RunError::Failed { .. } | RunError::Closed { .. } => ErrorCode::RuntimeError,
    }
}
