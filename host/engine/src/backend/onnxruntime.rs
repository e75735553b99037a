//! Backend on ONNX Runtime, from a shared library that is loaded at run time.

use std::borrow::Cow;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use half::{bf16, f16};
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{RunOptions, Session as OrtSession, SessionInputValue, SessionInputs};
use ort::value::{
    DynValue, Outlet, PrimitiveTensorElementType, Tensor as OrtTensor, TensorElementType, TensorRef,
    ValueType,
};
use ort::{ErrorCode, LoadDynamicError};

use super::error::RuntimeError;
use super::library;
use super::session::{Backend, BackendError, Port, Session, failed, only, unfit};
use super::watchdog::watch;
use crate::card::{Axis, Card};
use crate::dtype::{DType, Element};
use crate::tensor::Tensor;

/// ONNX Runtime permits one environment per process, and a loaded library is never unloaded. This
/// is a mutex rather than a `OnceLock`, because two concurrent calls must not both load, and a
/// failed load must permit another attempt.
static LOADED: Mutex<Option<OnnxRuntime>> = Mutex::new(None);

/// A loaded library and its environment.
#[derive(Clone)]
pub(crate) struct OnnxRuntime {
    environment: Environment,
    path: PathBuf,
}

impl OnnxRuntime {
    /// Loads the library at `path`, or returns the loaded one if it is the same.
    ///
    /// # Errors
    ///
    /// When the file does not exist, when it is not an ONNX Runtime of version 1.24 or later, or
    /// when the process has loaded another one.
    pub(crate) fn open(path: &Path) -> Result<Self, RuntimeError> {
        let path =
            path.canonicalize().map_err(|source| RuntimeError::Missing { path: path.to_owned(), source })?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        match &*loaded {
            Some(runtime) if runtime.path == path => Ok(runtime.clone()),
            Some(runtime) => Err(RuntimeError::Second { path, loaded: runtime.path.clone() }),
            None => {
                let runtime = OnnxRuntime { environment: environment(&path)?, path };
                *loaded = Some(runtime.clone());
                Ok(runtime)
            }
        }
    }

    /// The library that this process has loaded.
    pub(crate) fn loaded() -> Option<Self> {
        LOADED.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Version, if the file name contains it, and path of the library.
    pub(crate) fn describe(&self) -> String {
        // The build information of the library contains a commit, but no version.
        let version = library::version_text(&self.path).map(|version| format!(" {version}"));
        format!("ONNX Runtime{}, {}", version.unwrap_or_default(), self.path.display())
    }
}

fn environment(path: &Path) -> Result<Environment, RuntimeError> {
    let unusable = |message: String| RuntimeError::NotOnnxRuntime { path: path.to_owned(), message };
    let builder = ort::init_from(path).map_err(|error| match error {
        LoadDynamicError::BadVersion { version_str, .. } => {
            RuntimeError::TooOld { path: path.to_owned(), found: version_str }
        }
        LoadDynamicError::Dlopen { error, .. } => {
            // The error only states that loading failed; its source has the reason.
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            unusable(reason.unwrap_or_else(|| error.to_string()))
        }
        LoadDynamicError::MissingApi { .. } => unusable("it does not export `OrtGetApiBase`".to_owned()),
        LoadDynamicError::InvalidVersionString => unusable("its version is not text".to_owned()),
    })?;
    let builder = builder.with_name("infer").with_telemetry(false).with_logger(Arc::new(log));
    builder.build().map_err(|error| unusable(error.to_string()))
}

/// Start of the log line about a failed operator.
const FAILED_RUN: &str = "Non-zero status code returned while running";

/// Forwards a line of ONNX Runtime's log to ours.
fn log(level: LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Verbose => tracing::trace!(target: "onnxruntime", category, location, "{message}"),
        LogLevel::Info => tracing::debug!(target: "onnxruntime", category, location, "{message}"),
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", category, location, "{message}"),
        // The run returns the same error, and its cause may be the values of a request.
        LogLevel::Error if message.starts_with(FAILED_RUN) => {
            tracing::debug!(target: "onnxruntime", category, location, "{message}");
        }
        LogLevel::Error | LogLevel::Fatal => {
            tracing::error!(target: "onnxruntime", category, location, "{message}");
        }
    }
}

impl Backend for OnnxRuntime {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn load(
        &self,
        bytes: Cow<'static, [u8]>,
        _card: &Card,
        threads: &[usize],
        may_saturate: bool,
    ) -> Result<Vec<Box<dyn Session>>, BackendError> {
        let session = |threads: &usize| -> Result<Box<dyn Session>, BackendError> {
            Ok(Box::new(Loaded::new(&self.environment, &bytes, *threads, may_saturate)?))
        };
        threads.iter().map(session).collect()
    }
}

struct Loaded {
    session: OrtSession,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl Loaded {
    fn new(
        environment: &Environment,
        bytes: &[u8],
        threads: usize,
        may_saturate: bool,
    ) -> Result<Self, BackendError> {
        let mut builder = OrtSession::builder(environment).map_err(failed)?;
        // Exact kernels take up to twice as long, and reject some files that have int8 weights but
        // no int8 products.
        if may_saturate {
            builder = builder.with_precise_qmm().map_err(failed)?;
        }
        let session = builder
            .with_optimization_level(GraphOptimizationLevel::Level3)
            .map_err(failed)?
            .with_intra_threads(threads)
            .map_err(failed)?
            // Threads spin while they wait for other parts of an operator, and stop when the run
            // ends. Otherwise they would occupy the cores of the guests between requests.
            .with_intra_op_spinning(true)
            .map_err(failed)?
            .with_config_entry("session.force_spinning_stop", "1")
            .map_err(failed)?
            .commit_from_memory(bytes)
            .map_err(failed)?;
        let inputs = session.inputs().iter().map(port).collect();
        let outputs = session.outputs().iter().map(port).collect();
        Ok(Loaded { session, inputs, outputs })
    }
}

impl Session for Loaded {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn run(&mut self, inputs: &[Tensor], deadline: Instant) -> Result<Vec<Tensor>, BackendError> {
        let values = inputs.iter().map(to_value).collect::<Result<Vec<_>, _>>()?;
        let options = Arc::new(RunOptions::new().map_err(failed)?);
        let watch = watch(options.clone(), deadline);
        let outputs = self.session.run_with_options(SessionInputs::<0>::ValueSlice(&values), &options);
        drop(watch);
        let outputs = outputs.map_err(|error| match error.code() {
            _ if Instant::now() >= deadline => BackendError::Deadline,
            // An operator rejects the values or shapes of its inputs.
            ErrorCode::InvalidArgument => unfit(error.message()),
            _ => failed(error),
        })?;
        outputs.values().map(|value| from_value(&value)).collect()
    }
}

fn port(outlet: &Outlet) -> Port {
    let name = outlet.name().to_owned();
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return Port { name, dtypes: &[], declared: "not a tensor".to_owned(), shape: None };
    };
    let axes: Vec<_> = shape
        .iter()
        .zip(dimension_symbols.iter())
        .map(|(&size, symbol)| match usize::try_from(size) {
            Ok(size) => Axis::Fixed(size),
            Err(_) => Axis::varying(if symbol.is_empty() { "?".to_owned() } else { symbol.to_string() }),
        })
        .collect();
    // The library reports no axes both for a scalar and for an unknown shape.
    let shape = if axes.is_empty() { None } else { Some(axes) };
    match dtype(*ty) {
        Some(dtype) => Port { name, dtypes: only(dtype), declared: dtype.to_string(), shape },
        None => Port { name, dtypes: &[], declared: ty.to_string(), shape },
    }
}

fn dtype(ty: TensorElementType) -> Option<DType> {
    Some(match ty {
        TensorElementType::Float16 => DType::F16,
        TensorElementType::Bfloat16 => DType::BF16,
        TensorElementType::Float32 => DType::F32,
        TensorElementType::Float64 => DType::F64,
        TensorElementType::Uint8 => DType::U8,
        TensorElementType::Int32 => DType::I32,
        TensorElementType::Int64 => DType::I64,
        _ => return None,
    })
}

fn to_value(tensor: &Tensor) -> Result<SessionInputValue<'_>, BackendError> {
    match tensor.dtype() {
        DType::F16 => view::<f16>(tensor),
        DType::BF16 => view::<bf16>(tensor),
        DType::F32 => view::<f32>(tensor),
        DType::F64 => view::<f64>(tensor),
        DType::U8 => view::<u8>(tensor),
        DType::I32 => view::<i32>(tensor),
        DType::I64 => view::<i64>(tensor),
    }
}

/// Passes the tensor to the library without a copy if its memory is aligned.
fn view<T: Element + PrimitiveTensorElementType + Debug>(
    tensor: &Tensor,
) -> Result<SessionInputValue<'_>, BackendError> {
    let elements = tensor.elements::<T>().map_err(failed)?;
    match elements {
        Cow::Borrowed(values) => {
            let value = TensorRef::from_array_view((tensor.shape(), values)).map_err(failed)?;
            Ok(value.into())
        }
        Cow::Owned(values) => {
            let value = OrtTensor::from_array((tensor.shape(), values)).map_err(failed)?;
            Ok(value.into())
        }
    }
}

fn from_value(value: &DynValue) -> Result<Tensor, BackendError> {
    let ty = match value.dtype() {
        ValueType::Tensor { ty, .. } => dtype(*ty),
        _ => None,
    };
    match ty {
        Some(DType::F16) => copy::<f16>(value),
        Some(DType::BF16) => copy::<bf16>(value),
        Some(DType::F32) => copy::<f32>(value),
        Some(DType::F64) => copy::<f64>(value),
        Some(DType::U8) => copy::<u8>(value),
        Some(DType::I32) => copy::<i32>(value),
        Some(DType::I64) => copy::<i64>(value),
        None => Err(BackendError::Failed(format!("an output has the unsupported type {}", value.dtype()))),
    }
}

fn copy<T: Element + PrimitiveTensorElementType>(value: &DynValue) -> Result<Tensor, BackendError> {
    let (shape, values) = value.try_extract_tensor::<T>().map_err(failed)?;
    let shape = shape.iter().map(|&size| usize::try_from(size)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| BackendError::Failed("an output has a negative axis".to_owned()))?;
    Tensor::from_slice(&shape, values).map_err(failed)
}
