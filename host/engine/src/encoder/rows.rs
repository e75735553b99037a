//! The tensors of a window, as the model's file names them.

use super::tokenizer::{TextTokenizer, Window};
use crate::card::{Axis, Card, Task};
use crate::dtype::DType;
use crate::onnx::{OnnxModel, Row};
use crate::tensor::Tensor;

/// Meaning of an input of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    /// Token ids.
    Ids,
    /// 1 for a token, 0 for padding.
    Mask,
    /// 0 for the first text of a pair, 1 for the second.
    Types,
    /// Positions, from 0.
    Positions,
}

impl Column {
    /// Meaning of the input `name`.
    fn of(name: &str) -> Option<Self> {
        match name {
            "input_ids" | "ids" => Some(Column::Ids),
            "attention_mask" | "mask" => Some(Column::Mask),
            "token_type_ids" | "type_ids" | "segment_ids" => Some(Column::Types),
            "position_ids" => Some(Column::Positions),
            _ => None,
        }
    }
}

/// The inputs of a model, in the order of its file.
pub(super) struct Columns {
    columns: Vec<(Column, DType)>,
    /// Number of tokens of each row, if the file fixes it.
    width: Option<usize>,
    pad: u32,
    pads_left: bool,
    /// True if rows of several texts may be computed together.
    pub(super) joined: bool,
}

impl Columns {
    /// Matches the inputs of `model` by their names.
    ///
    /// # Errors
    ///
    /// A message about the first input that is not known, or that does not take tokens.
    pub(super) fn new(model: &OnnxModel, tokenizer: &TextTokenizer, card: &Card) -> Result<Self, String> {
        let (mut columns, mut width) = (Vec::new(), None);
        let is_only = model.inputs().count() == 1;
        for (name, dtype, shape) in model.inputs() {
            let column = Column::of(name).or(is_only.then_some(Column::Ids)).ok_or_else(|| {
                format!(
                    "input `{name}` has no known meaning, expected `input_ids`, `attention_mask`, \
                     `token_type_ids` or `position_ids`"
                )
            })?;
            let [rows, tokens] = shape else {
                return Err(format!("input `{name}` has {} axes, expected 2: texts and tokens", shape.len()));
            };
            if !matches!(dtype, DType::I32 | DType::I64) {
                return Err(format!("input `{name}` is {dtype}, expected i32 or i64"));
            }
            if matches!(rows, Axis::Fixed(rows) if *rows != 1) {
                return Err(format!("input `{name}` has {rows} rows, expected 1 or a varying number"));
            }
            if let Axis::Fixed(tokens) = tokens {
                width = Some(*tokens);
            }
            columns.push((column, dtype));
        }
        let has = |wanted: Column| columns.iter().any(|(column, _)| *column == wanted);
        if !has(Column::Ids) {
            return Err("the model has no input `input_ids`".to_owned());
        }
        let max_tokens = card.text.as_ref().map_or(0, |text| text.max_tokens);
        if let Some(width) = width
            && max_tokens > width
        {
            return Err(format!("`text.max_tokens` is {max_tokens}, but the model reads {width} tokens"));
        }
        if width.is_some() && tokenizer.pads_left && card.task != Task::TextClassification {
            return Err(format!(
                "it pads on the left, and the model has a fixed width; expected `task` = `text-classification`, found `{}`",
                card.task
            ));
        }
        // Without a mask, padding would change the answer.
        let joined = card.batch_axis.is_some() && (width.is_some() || has(Column::Mask));
        let (pad, pads_left) = (tokenizer.pad, tokenizer.pads_left);
        Ok(Columns { columns, width, pad, pads_left, joined })
    }

    /// Values with which shorter rows are padded, by the names of the inputs.
    pub(super) fn paddings<'c>(card: &'c Card, tokenizer: &TextTokenizer) -> Vec<(&'c str, i64)> {
        let is_ids = |name: &str| card.inputs.len() == 1 || Column::of(name) == Some(Column::Ids);
        let ids = card.inputs.iter().map(|input| input.name.as_str()).filter(|name| is_ids(name));
        ids.map(|name| (name, i64::from(tokenizer.pad))).collect()
    }

    /// Builds the row of a window.
    ///
    /// # Errors
    ///
    /// Not for a valid window; reports a tensor that cannot be created.
    pub(super) fn row(&self, window: &Window) -> Result<Row, String> {
        // A model needs at least one token.
        let length = self.width.unwrap_or(window.ids.len().max(1));
        let empty = length - window.ids.len().min(length);
        let value = |column: Column, index: usize| match column {
            Column::Ids => i64::from(window.ids[index]),
            Column::Mask => 1,
            Column::Types => i64::from(window.types[index]),
            Column::Positions => index as i64,
        };
        let padding = |column: Column| match column {
            Column::Ids => i64::from(self.pad),
            Column::Mask => i64::from(self.width.is_none() && window.ids.is_empty()),
            Column::Types | Column::Positions => 0,
        };
        let tensor = |(column, dtype): &(Column, DType)| {
            let values = (0..window.ids.len().min(length)).map(|index| value(*column, index));
            let filling = std::iter::repeat_n(padding(*column), empty);
            let values: Vec<i64> = if self.pads_left && self.width.is_some() {
                filling.chain(values).collect()
            } else {
                values.chain(filling).collect()
            };
            let tensor = match dtype {
                DType::I32 => {
                    let values: Vec<_> = values.into_iter().map(|value| value as i32).collect();
                    Tensor::from_slice(&[1, length], &values)
                }
                _ => Tensor::from_slice(&[1, length], &values),
            };
            tensor.map_err(|error| error.to_string())
        };
        let inputs = self.columns.iter().map(tensor).collect::<Result<_, _>>()?;
        Ok(Row { inputs, tokens: length })
    }
}
