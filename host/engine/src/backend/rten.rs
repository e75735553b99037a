//! Backend on rten, a pure Rust library that is part of the program, for machines without ONNX
//! Runtime.
//!
//! rten computes f32, i32, i8 and u8, and converts the i64 of a file to i32 when it loads it.
//! Tensors of i64 are converted here in both directions.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use rten::{
    DataType, Dimension, Model, NodeId, NodeInfo, RunError, RunErrorKind, RunOptions, ThreadPool, Value,
    ValueOrView, ValueView,
};
use rten_tensor::{Layout as _, Tensor as RtenTensor};

use super::session::{Backend, BackendError, Port, Session, failed, unfit};
use crate::card::{Axis, Card};
use crate::dtype::{DType, Element};
use crate::tensor::Tensor;

/// Supported element types.
const PASSES: [DType; 4] = [DType::F32, DType::U8, DType::I32, DType::I64];

/// Remedy for a model that this backend cannot run.
const WAY_OUT: &str = "install ONNX Runtime";

/// The backend on rten, which is always available.
pub(crate) struct Rten;

impl Backend for Rten {
    fn name(&self) -> &'static str {
        "rten"
    }

    fn load(
        &self,
        bytes: Cow<'static, [u8]>,
        card: &Card,
        threads: &[usize],
        may_saturate: bool,
    ) -> Result<Vec<Box<dyn Session>>, BackendError> {
        if may_saturate {
            tracing::warn!(
                model = card.name,
                "scores may be wrong: sums of int8 products saturate in rten on this processor; {WAY_OUT}, or quantise \
                 the weights to 7 bits"
            );
        }
        let specs = card.inputs.iter().map(|input| ("input", &input.name, input.dtype));
        let specs = specs.chain(card.outputs.iter().map(|output| ("output", &output.name, output.dtype)));
        for (kind, name, dtype) in specs {
            if !PASSES.contains(&dtype) {
                return Err(BackendError::Unsupported(format!(
                    "{kind} `{name}` is {dtype}, expected one of f32, i32, i64, u8; {WAY_OUT}"
                )));
            }
        }
        let model = match bytes {
            Cow::Borrowed(bytes) => Model::load_static_slice(bytes),
            Cow::Owned(bytes) => Model::load(bytes),
        };
        let model = Arc::new(model.map_err(|error| BackendError::Failed(format!("{error}; or {WAY_OUT}")))?);
        let inputs: Vec<_> = model.input_ids().iter().map(|id| port(&model, *id)).collect();
        let outputs: Vec<_> = model.output_ids().iter().map(|id| port(&model, *id)).collect();
        let wide = outputs.iter().map(|port| is_wide(card, &port.name)).collect::<Vec<_>>();
        let session = |threads: &usize| {
            let pool = Arc::new(ThreadPool::with_num_threads(*threads));
            let (model, inputs, outputs) = (model.clone(), inputs.clone(), outputs.clone());
            Box::new(Loaded { model, pool, inputs, outputs, wide: wide.clone() }) as Box<dyn Session>
        };
        Ok(threads.iter().map(session).collect())
    }
}

/// Checks whether the card declares output `name` as i64.
fn is_wide(card: &Card, name: &str) -> bool {
    card.outputs.iter().any(|output| output.name == name && output.dtype == DType::I64)
}

struct Loaded {
    /// Shared by all sessions: a run does not modify it.
    model: Arc<Model>,
    pool: Arc<ThreadPool>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// True for each output that is i64 in the file and is computed as i32.
    wide: Vec<bool>,
}

impl Session for Loaded {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn run(&mut self, inputs: &[Tensor], _deadline: Instant) -> Result<Vec<Tensor>, BackendError> {
        let ids = self.model.input_ids().iter();
        let values = ids
            .zip(&self.inputs)
            .zip(inputs)
            .map(|((id, port), tensor)| Ok((*id, to_value(&port.name, tensor)?)))
            .collect::<Result<Vec<_>, BackendError>>()?;
        let options = RunOptions::default().with_thread_pool(Some(self.pool.clone()));
        let outputs = self
            .model
            .run(values, self.model.output_ids(), Some(options))
            .map_err(|error| run_error(&error))?;
        outputs.into_iter().zip(&self.wide).map(|(value, wide)| from_value(value, *wide)).collect()
    }
}

/// Start of an operator's error, after its name, about values or shapes of its inputs, such as an
/// id outside a table. The library does not mark such errors in any other way.
const REJECTIONS: [&str; 2] =
    ["failed: input or attribute has invalid value: ", "failed: incompatible input shapes: "];

/// Converts the error of a run.
fn run_error(error: &RunError) -> BackendError {
    let message = error.to_string();
    if error.kind() == RunErrorKind::OperatorError && REJECTIONS.iter().any(|mark| message.contains(mark)) {
        unfit(&message)
    } else {
        BackendError::Failed(message)
    }
}

fn port(model: &Model, id: NodeId) -> Port {
    let info = model.node_info(id);
    let name = info.as_ref().and_then(NodeInfo::name).unwrap_or_default().to_owned();
    let (dtypes, declared): (&'static [DType], &str) = match info.as_ref().and_then(NodeInfo::dtype) {
        Some(rten::ValueType::Tensor(DataType::Float)) => (&[DType::F32], "f32"),
        Some(rten::ValueType::Tensor(DataType::UInt8)) => (&[DType::U8], "u8"),
        // The file has one of the two types, but rten does not report which.
        Some(rten::ValueType::Tensor(DataType::Int32)) => (&[DType::I32, DType::I64], "i32 or i64"),
        Some(rten::ValueType::Tensor(DataType::Int8)) => (&[], "i8"),
        // No declared type: outputs are checked against the card only.
        None => (&PASSES, "of undeclared type"),
        _ => (&[], "not a tensor"),
    };
    let shape = info.and_then(|info| info.shape()).map(|axes| {
        let axis = |axis| match axis {
            Dimension::Fixed(size) => Axis::Fixed(size),
            Dimension::Symbolic(name) => Axis::varying(name),
        };
        axes.into_iter().map(axis).collect()
    });
    Port { name, dtypes, declared: declared.to_owned(), shape }
}

fn to_value<'t>(name: &str, tensor: &'t Tensor) -> Result<ValueOrView<'t>, BackendError> {
    match tensor.dtype() {
        DType::F32 => view::<f32>(tensor),
        DType::U8 => view::<u8>(tensor),
        DType::I32 => view::<i32>(tensor),
        DType::I64 => {
            let values = tensor.elements::<i64>().map_err(failed)?;
            let narrow = |value: &i64| {
                i32::try_from(*value).map_err(|_| {
                    BackendError::Unsupported(format!(
                        "input `{name}` contains {value}, but rten computes i64 tensors as i32; {WAY_OUT}"
                    ))
                })
            };
            let values = values.iter().map(narrow).collect::<Result<Vec<_>, _>>()?;
            Ok(Value::from_shape(tensor.shape(), values).map_err(failed)?.into())
        }
        dtype => Err(BackendError::Unsupported(format!("input `{name}` is {dtype}; {WAY_OUT}"))),
    }
}

/// Passes the tensor to rten without a copy if its memory is aligned.
fn view<'t, T: Element>(tensor: &'t Tensor) -> Result<ValueOrView<'t>, BackendError>
where
    ValueView<'t>: From<rten_tensor::TensorView<'t, T>>,
    Value: From<RtenTensor<T>>,
{
    Ok(match tensor.elements::<T>().map_err(failed)? {
        Cow::Borrowed(values) => ValueView::from_shape(tensor.shape(), values).map_err(failed)?.into(),
        Cow::Owned(values) => Value::from_shape(tensor.shape(), values).map_err(failed)?.into(),
    })
}

fn from_value(value: Value, wide: bool) -> Result<Tensor, BackendError> {
    match value {
        Value::FloatTensor(tensor) => copy(tensor),
        Value::UInt8Tensor(tensor) => copy(tensor),
        Value::Int32Tensor(tensor) if wide => {
            let shape = tensor.shape().to_vec();
            let values: Vec<_> = tensor.into_data().into_iter().map(i64::from).collect();
            Tensor::from_slice(&shape, &values).map_err(failed)
        }
        Value::Int32Tensor(tensor) => copy(tensor),
        other => Err(BackendError::Failed(format!("an output has the unsupported type {}", other.dtype()))),
    }
}

fn copy<T: Element>(tensor: RtenTensor<T>) -> Result<Tensor, BackendError> {
    let shape = tensor.shape().to_vec();
    Tensor::from_slice(&shape, &tensor.into_data()).map_err(failed)
}
