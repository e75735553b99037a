//! The two traits between a model's queue and the library that computes it.

use std::borrow::Cow;
use std::fmt;

use crate::card::{Axis, Card};
use crate::dtype::DType;
use crate::model::Capacity;
use crate::tensor::{Tensor, shape_text};

/// A library that runs ONNX files.
pub(crate) trait Backend: Send + Sync {
    /// A word for logs and tables.
    fn name(&self) -> &'static str;

    /// Load a file into `capacity.sessions` sessions of `capacity.threads` threads each. They share
    /// what they can.
    ///
    /// # Errors
    ///
    /// When the file cannot be loaded, or needs what the backend lacks.
    fn load(
        &self,
        bytes: Cow<'static, [u8]>,
        card: &Card,
        capacity: &Capacity,
    ) -> Result<Vec<Box<dyn Session>>, BackendError>;
}

/// A loaded model that computes one call at a time.
pub(crate) trait Session: Send {
    /// What the file takes, in its own order.
    fn inputs(&self) -> &[Port];

    /// What the file gives, in its own order.
    fn outputs(&self) -> &[Port];

    /// Compute all outputs, in the order of [`Session::outputs`], from `inputs` in the order of
    /// [`Session::inputs`].
    ///
    /// The inputs have the card's types and shapes. They are borrowed so that a batch that fails
    /// can be computed again job by job, and because both backends read them in place.
    ///
    /// # Errors
    ///
    /// When the backend refuses or fails. The session can be used again.
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, BackendError>;
}

/// A tensor that a file takes or gives, as the file declares it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Port {
    /// Its name in the file.
    pub(crate) name: String,
    /// The types by which a card may rightly call it; none where no tensor of ours can be passed.
    pub(crate) dtypes: &'static [DType],
    /// The type as the backend reports it, for messages.
    pub(crate) declared: String,
    /// Its axes; none where the file does not tell.
    pub(crate) shape: Option<Vec<Axis>>,
}

impl Port {
    /// Type and shape as messages show them: `f32 (N, 1000)`.
    pub(crate) fn describe(&self) -> String {
        match &self.shape {
            Some(shape) => format!("{} {}", self.declared, shape_text(shape)),
            None => self.declared.clone(),
        }
    }
}

/// What a backend answers instead of tensors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum BackendError {
    /// Right for the model, and more than this backend can do.
    Unsupported(String),
    /// Anything else.
    Failed(String),
}

/// What a library said, passed on.
pub(super) fn failed(error: impl fmt::Display) -> BackendError {
    BackendError::Failed(error.to_string())
}

/// The one type of a list that is needed for as long as the program runs.
pub(super) fn only(dtype: DType) -> &'static [DType] {
    let position = DType::ALL.iter().position(|known| *known == dtype);
    position.map_or(&[], |position| &DType::ALL[position..=position])
}
