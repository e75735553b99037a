//! Sample inputs for a model, made from its card: one row of plausible numbers per input.

use anyhow::Context as _;
use infer_engine::{Axis, Card, DType, Tensor};

/// A text of a model that takes texts.
const TEXT: &str = "The council moves the market to the other side of the river.";

/// The tensor of a text.
pub(super) fn text(text: &str) -> (String, Tensor) {
    ("text".to_owned(), Tensor::from_bytes(text.into()))
}

/// One tensor per input of `card`, with every dynamic axis at 1; a text for a model with a
/// tokenizer.
///
/// # Errors
///
/// When the card describes a tensor that cannot be created.
pub(super) fn inputs(card: &Card) -> anyhow::Result<Vec<(String, Tensor)>> {
    if card.takes_texts() {
        return Ok(vec![text(TEXT)]);
    }
    let mut inputs = Vec::new();
    for input in &card.inputs {
        let shape: Vec<usize> = input
            .shape
            .iter()
            .map(|axis| match axis {
                Axis::Fixed(size) => *size,
                Axis::Dynamic { .. } => 1,
            })
            .collect();
        let data = data(input.dtype, shape.iter().product());
        let tensor =
            Tensor::new(input.dtype, shape, data).with_context(|| format!("input `{}`", input.name))?;
        inputs.push((input.name.clone(), tensor));
    }
    Ok(inputs)
}

/// Values from -1 to 1 for float types; small ids for integers.
fn data(dtype: DType, elements: usize) -> Vec<u8> {
    let scaled = |index: usize| ((index * 7919 % 256) as f32 - 127.0) / 128.0;
    let indices = 0..elements;
    match dtype {
        DType::F16 => indices.flat_map(|index| half::f16::from_f32(scaled(index)).to_le_bytes()).collect(),
        DType::BF16 => indices.flat_map(|index| half::bf16::from_f32(scaled(index)).to_le_bytes()).collect(),
        DType::F32 => indices.flat_map(|index| scaled(index).to_le_bytes()).collect(),
        DType::F64 => indices.flat_map(|index| f64::from(scaled(index)).to_le_bytes()).collect(),
        DType::U8 => indices.map(|index| (index * 7919 % 256) as u8).collect(),
        DType::I32 => indices.flat_map(|index| ((index * 7919 % 256) as i32).to_le_bytes()).collect(),
        DType::I64 => indices.flat_map(|index| ((index * 7919 % 256) as i64).to_le_bytes()).collect(),
    }
}
