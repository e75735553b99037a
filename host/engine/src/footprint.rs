//! Prediction of the memory of a model before it is loaded.
//!
//! For a language model, the prediction uses the header of its file. For an ONNX model, it uses the
//! size of the file, the shapes of the card, and measured factors.

mod need;

use std::path::Path;

use crate::card::{Axis, Card, Format, InputSpec};
use crate::dtype::DType;
use crate::language::footprint;
use crate::language::gguf::Gguf;
use crate::limits::{MAX_AXES_PRODUCT, MAX_AXIS_WITHOUT_LIMIT, MAX_ROWS};
use crate::model::{Capacity, LoadError, ModelOptions, map_parts};
use crate::runtime::Runtime;
use crate::weights::CardError;

pub use need::{Footprint, Need};

/// Error of a prediction.
#[derive(Debug, thiserror::Error)]
pub enum FootprintError {
    /// The file of the model is missing or invalid.
    #[error(transparent)]
    Card(#[from] CardError),
    /// The options are invalid.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Parameters with which a model will be loaded.
#[derive(Clone, Copy, Debug)]
pub struct Loading<'a> {
    /// Name of the model in errors.
    pub name: &'a str,
    /// Options of the model.
    pub options: &'a ModelOptions,
    /// File of the model, or its first part; `None` if it is embedded in the program.
    pub file: Option<&'a Path>,
    /// True if packed weights are stored in the cache folder and mapped.
    pub caches_packed: bool,
    /// Maximum bytes of inputs of one job.
    pub job_bytes: u64,
}

/// Factors for ONNX models. They were measured with the three models that ship, as the difference
/// of a server with and without the model: before its first request, and after batches of 8, 64 and
/// 128 rows. Models that take tokens look up a row of numbers for each; int8 image models unpack
/// their weights.
struct Measured {
    /// Per byte of the file, in addition to the file itself, for all sessions together.
    shared: f64,
    /// Per byte of the file, for each session.
    session: f64,
    /// Bytes per input element of the largest batch, in each session.
    element: u64,
}

/// Typical size of a varying axis other than the batch axis, such as the tokens of a text.
const USUAL_SIZE: usize = 128;

/// ONNX Runtime 1.32: models that take tokens, and models that take numbers.
const ONNXRUNTIME: [Measured; 2] = [
    Measured { shared: 0.0, session: 1.6, element: 3_900 },
    Measured { shared: 0.0, session: 2.4, element: 28 },
];

/// rten 0.27.
const RTEN: [Measured; 2] = [
    Measured { shared: 3.0, session: 1.4, element: 2_800 },
    Measured { shared: 13.0, session: 3.0, element: 110 },
];

impl Footprint {
    /// Predicts the memory of the model with `card`.
    ///
    /// # Errors
    ///
    /// When the file of a language model is missing or invalid, or an option is 0.
    pub fn predict(runtime: &Runtime, card: &Card, loading: &Loading<'_>) -> Result<Self, FootprintError> {
        let capacity = loading.options.capacity(loading.name, card.format)?;
        let (Format::Gguf, Some(path)) = (card.format, loading.file) else {
            let measured = if runtime.backend() == "rten" { &RTEN } else { &ONNXRUNTIME };
            return Ok(onnx(card, loading, &capacity, measured));
        };
        let read = Gguf::parse_parts(map_parts(path)?)
            .and_then(|gguf| footprint::of(&gguf, &capacity, loading.caches_packed));
        let wrong = |message: String| CardError::Gguf { path: path.to_owned(), message };
        Ok(read.map_err(|error| wrong(error.to_string()))?)
    }
}

fn onnx(card: &Card, loading: &Loading<'_>, capacity: &Capacity, measured: &[Measured; 2]) -> Footprint {
    let takes_tokens = |input: &InputSpec| matches!(input.dtype, DType::I32 | DType::I64);
    let Measured { shared, session, element } = &measured[usize::from(!card.inputs.iter().any(takes_tokens))];
    let file = card.files.iter().map(|file| file.bytes).fold(0, u64::saturating_add);
    let part = |factor: f64| (factor * file as f64) as u64;
    let sum =
        |elements: &dyn Fn(&InputSpec) -> u64| card.inputs.iter().map(elements).fold(0, u64::saturating_add);
    let sessions = capacity.session_threads().len() as u64;
    let arena = |elements: u64| elements.saturating_mul(*element).saturating_mul(sessions);
    let usual = arena(sum(&|input| elements(card, input, capacity.max_batch, USUAL_SIZE)));
    // A single job may have more rows than a batch.
    let largest = |input: &InputSpec| {
        let max = elements(card, input, MAX_ROWS, usize::MAX);
        max.min(loading.job_bytes / input.dtype.size_bytes() as u64)
    };
    let max_bytes = arena(sum(&largest)).max(usual);
    Footprint {
        needs: vec![
            // An embedded file is part of the program's image, which is mapped.
            Need { is_mapped: loading.file.is_none(), ..Need::own("file", file) },
            Need::own("weights of its sessions", part(*shared) + part(*session).saturating_mul(sessions)),
            Need { max_bytes, ..Need::own("arenas of its sessions", usual) },
        ],
    }
}

/// Number of elements of one input of a job: `rows` along the batch axis, and at most `size` along
/// other varying axes, within the limits of a job.
fn elements(card: &Card, input: &InputSpec, rows: usize, size: usize) -> u64 {
    let size = card.text.as_ref().map_or(size, |text| size.min(text.max_tokens));
    let (mut fixed, mut varying, mut is_bounded) = (1_u64, 1_u64, true);
    for (index, axis) in input.shape.iter().enumerate() {
        match axis {
            Axis::Fixed(size) => fixed = fixed.saturating_mul(*size as u64),
            Axis::Dynamic { max, .. } if card.batch_axis == Some(index) => {
                varying = varying.saturating_mul(rows.min(max.unwrap_or(MAX_ROWS)) as u64);
            }
            Axis::Dynamic { max, .. } => {
                is_bounded &= max.is_some();
                varying = varying.saturating_mul(size.min(max.unwrap_or(MAX_AXIS_WITHOUT_LIMIT)) as u64);
            }
        }
    }
    let max_product = if is_bounded { u64::MAX } else { MAX_AXES_PRODUCT as u64 };
    fixed.saturating_mul(varying.min(max_product))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_job_respects_axis_limits() {
        const CARD: &str = include_str!("../../../weights/toxic-bilstm/card.toml");
        let (head, rest) = CARD.split_once("[text]").unwrap();
        let (_, tensors) = rest.split_once("[[inputs]]").unwrap();
        let (tensors, _) = tensors.split_once("[categories.harassment]").unwrap();
        let head = format!("{head}[[inputs]]{tensors}");
        let size = |shape: &str, rows, size| {
            let text = head.replacen("[\"N\", 100]", shape, 1);
            let text =
                if shape.starts_with("[\"N\"") { text } else { text.replacen("batch_axis = 0", "", 1) };
            let card = Card::parse(&text).unwrap();
            elements(&card, &card.inputs[0], rows, size)
        };
        let cases = [
            ("[\"N\", 100]", 12_800),
            ("[\"N\", { name = \"T\", max = 50 }]", 128 * 50),
            ("[\"N\", \"T\"]", 65_536),
            ("[\"T\", 3]", 3 * 1_024),
            ("[\"T\", \"U\", 3]", 3 * 65_536),
        ];
        for (shape, largest) in cases {
            assert_eq!(size(shape, MAX_ROWS, usize::MAX), largest, "{shape}");
        }
        assert_eq!(
            (size("[\"N\", 100]", 8, USUAL_SIZE), size("[\"N\", \"T\"]", 8, USUAL_SIZE)),
            (800, 8 * 128)
        );
    }
}
