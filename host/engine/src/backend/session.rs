//! Traits between the queue of a model and the library that computes it.

use std::borrow::Cow;
use std::fmt;
use std::time::Instant;

use crate::card::{Axis, Card};
use crate::dtype::DType;
use crate::tensor::{Tensor, shape_text};

/// A library that runs ONNX files.
pub(crate) trait Backend: Send + Sync {
    /// Short name for logs and tables.
    fn name(&self) -> &'static str;

    /// Loads a file into one session per entry of `threads`, with that many threads. Sessions share
    /// as much memory as the library permits. `may_saturate`: sums of the file's int8 products may
    /// exceed the 16 bits in which this processor adds them.
    ///
    /// # Errors
    ///
    /// When the file cannot be loaded, or needs an unsupported feature.
    fn load(
        &self,
        bytes: Cow<'static, [u8]>,
        card: &Card,
        threads: &[usize],
        may_saturate: bool,
    ) -> Result<Vec<Box<dyn Session>>, BackendError>;
}

/// A session of a loaded model, which computes one call at a time.
pub(crate) trait Session: Send {
    /// Inputs in the order of the file.
    fn inputs(&self) -> &[Port];

    /// Outputs in the order of the file.
    fn outputs(&self) -> &[Port];

    /// Computes all outputs, in the order of [`Session::outputs`], from `inputs` in the order of
    /// [`Session::inputs`].
    ///
    /// The inputs have the types and shapes of the card. They are borrowed because both backends
    /// read them in place, and so that a failed batch can be computed again job by job.
    ///
    /// # Errors
    ///
    /// When the library reports an error, or stops at `deadline`: ONNX Runtime does so between two
    /// operators, rten does not. The session remains usable.
    fn run(&mut self, inputs: &[Tensor], deadline: Instant) -> Result<Vec<Tensor>, BackendError>;
}

/// An input or output, as the file declares it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Port {
    /// Name in the file.
    pub(crate) name: String,
    /// Types that a card may declare for it; empty if no tensor can be passed.
    pub(crate) dtypes: &'static [DType],
    /// Type as the backend reports it, for messages.
    pub(crate) declared: String,
    /// Axes; `None` if the file does not declare them.
    pub(crate) shape: Option<Vec<Axis>>,
}

impl Port {
    /// Type and shape as shown in messages: `f32 (N, 1000)`.
    pub(crate) fn describe(&self) -> String {
        match &self.shape {
            Some(shape) => format!("{} {}", self.declared, shape_text(shape)),
            None => self.declared.clone(),
        }
    }
}

/// Error of a backend.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum BackendError {
    /// The model or the inputs need an unsupported feature, or the values of the inputs do not fit
    /// the model.
    Unsupported(String),
    /// The computation was stopped at its deadline.
    Deadline,
    /// Any other error.
    Failed(String),
}

/// Converts an error of a library.
pub(super) fn failed(error: impl fmt::Display) -> BackendError {
    BackendError::Failed(error.to_string())
}

/// Converts a library's message about values that an operator of the model rejects.
pub(super) fn unfit(message: &str) -> BackendError {
    BackendError::Unsupported(format!("the values of the inputs do not fit the model: {message}"))
}

/// Static list of one type.
pub(super) fn only(dtype: DType) -> &'static [DType] {
    let position = DType::ALL.iter().position(|known| *known == dtype);
    position.map_or(&[], |position| &DType::ALL[position..=position])
}

/// Returns true if this processor sums pairs of int8 products in 16 bits, which saturate: x86-64
/// without VNNI. That changes a model's scores (one image fell from 0.95 to 0.45).
pub(crate) fn int8_saturates() -> bool {
    #[cfg(target_arch = "x86_64")]
    return !std::arch::is_x86_feature_detected!("avx512vnni")
        && !std::arch::is_x86_feature_detected!("avxvnni");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}
