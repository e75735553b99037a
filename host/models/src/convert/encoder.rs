//! The graph of an encoder: embeddings, attention, feed-forward layers, and the mean of the tokens.

use std::f32::consts::SQRT_2;
use std::fs::File;

use anyhow::bail;

use super::graph::{Attribute, Axis, Element, Graph, Onnx};
use super::quantise::{self, SMALLEST_SCALE};
use super::safetensors::Safetensors;
use super::shape::{Architecture, DISTANCE_CLASSES, DISTANCES, POSITIONS, Shape, WORDS};

/// Settings of an encoder that its file lacks.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Number of attention heads.
    pub attention_heads: usize,
    /// Number that is added to a variance before it divides.
    pub layer_norm_eps: f32,
}

/// Output of the ONNX file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `embedding`, f32 (N, hidden): the mean of the tokens, scaled to length 1.
    Sentence,
    /// `last_hidden_state`, f32 (N, L, hidden).
    Tokens,
}

/// Converts an encoder. The ONNX file has the inputs `input_ids` and `attention_mask`, i64 (N, L).
/// Calls `progress` with the number of bytes that were read.
///
/// # Errors
///
/// If the file is malformed, of another architecture, or lacks a tensor.
pub fn convert(
    file: &File,
    settings: Settings,
    answer: Answer,
    progress: impl FnMut(u64),
) -> anyhow::Result<Onnx> {
    let file = Safetensors::read(file)?;
    let shape = Shape::read(&file)?;
    let heads = settings.attention_heads;
    if heads == 0 || !shape.hidden.is_multiple_of(heads) {
        bail!("it has {} values per token, which {heads} attention heads do not share", shape.hidden);
    }
    let progress = Box::new(progress);
    let mut builder = Builder { graph: Graph::default(), file, shape, settings, read: 0, progress };
    let mut x = builder.embeddings()?;
    let bias = builder.attention_bias()?;
    builder.shared_constants();
    for layer in 0..builder.shape.layers {
        x = builder.layer(&x, &bias, layer)?;
    }
    let hidden = Axis::Fixed(builder.shape.hidden);
    let texts = [Axis::Varying("N"), Axis::Varying("L")];
    let inputs = [("input_ids", Element::I64, &texts[..]), ("attention_mask", Element::I64, &texts[..])];
    let mut graph = builder.graph;
    match answer {
        Answer::Tokens => {
            let name = "last_hidden_state";
            graph.named("Identity", &[&x], &[name], &[]);
            graph.finish(&inputs, (name, Element::F32, &[Axis::Varying("N"), Axis::Varying("L"), hidden]))
        }
        Answer::Sentence => {
            mean(&mut graph, &x);
            graph.finish(&inputs, (EMBEDDING, Element::F32, &[Axis::Varying("N"), hidden]))
        }
    }
}

const EMBEDDING: &str = "embedding";

/// Adds the mean over the mask, scaled to length 1.
fn mean(graph: &mut Graph, x: &str) {
    graph.sizes("axis_1", &[1]);
    graph.sizes("axis_2", &[2]);
    let weights = graph.node("Unsqueeze", &["mask", "axis_2"], &[]);
    let masked = graph.node("Mul", &[x, &weights], &[]);
    let total = graph.node("ReduceSum", &[&masked, "axis_1"], &[("keepdims", Attribute::Int(0))]);
    let count = graph.node("ReduceSum", &["mask", "axis_1"], &[("keepdims", Attribute::Int(1))]);
    let mean = graph.node("Div", &[&total, &count], &[]);
    let along = [("axes", Attribute::Ints(&[1])), ("keepdims", Attribute::Int(1))];
    let length = graph.node("ReduceL2", &[&mean], &along);
    graph.named("Div", &[&mean, &length], &[EMBEDDING], &[]);
}

/// A graph in the making, with the file of its weights.
struct Builder<'a> {
    graph: Graph,
    file: Safetensors<'a>,
    shape: Shape,
    settings: Settings,
    read: u64,
    progress: Box<dyn FnMut(u64) + 'a>,
}

impl Builder<'_> {
    fn floats(&mut self, name: &str, shape: &[usize]) -> anyhow::Result<Vec<f32>> {
        let values = self.file.floats(&format!("{}{name}", self.shape.prefix), shape)?;
        self.read += 4 * values.len() as u64;
        (self.progress)(self.read);
        Ok(values)
    }

    /// The sum of the embeddings of tokens and positions, normalised.
    fn embeddings(&mut self) -> anyhow::Result<String> {
        let Shape { architecture, words, positions, tokens, hidden, .. } = self.shape;
        let quantised = quantise::rows(&self.floats(WORDS, &[words, hidden])?, hidden);
        let (values, scales) = (format!("{WORDS}.int8"), format!("{WORDS}.scale"));
        self.graph.constant(&values, Element::I8, &[words, hidden], quantised.values);
        self.graph.floats(&scales, &[words, 1], &quantised.scales);
        let first = architecture.first_position() * hidden;
        let table = self.floats(POSITIONS, &[positions, hidden])?;
        let mut table = table[first..first + tokens * hidden].to_vec();
        if architecture == Architecture::Bert {
            // A text is one segment, whose type is always 0.
            let name = "embeddings.token_type_embeddings.weight";
            let types = self.file.shape(&format!("{}{name}", self.shape.prefix))?[0].max(1);
            let types = self.floats(name, &[types, hidden])?;
            for row in table.chunks_exact_mut(hidden) {
                row.iter_mut().zip(&types).for_each(|(value, of)| *value += of);
            }
        }
        self.graph.floats("positions", &[tokens, hidden], &table);
        self.graph.sizes("zero", &[0]);
        let ends = [("start", Attribute::Int(1)), ("end", Attribute::Int(2))];
        self.graph.named("Shape", &["input_ids"], &["length"], &ends);
        let position = self.graph.node("Slice", &["positions", "zero", "length", "zero"], &[]);
        let row = self.graph.node("Gather", &[&values, "input_ids"], &[]);
        let row = self.graph.node("Cast", &[&row], &[("to", Attribute::Int(Element::F32 as i64))]);
        let scale = self.graph.node("Gather", &[&scales, "input_ids"], &[]);
        let word = self.graph.node("Mul", &[&row, &scale], &[]);
        let sum = self.graph.node("Add", &[&word, &position], &[]);
        self.layer_norm(&sum, "embeddings.LayerNorm")
    }

    /// The term that each attention adds to its scores: a large negative one for padding, and
    /// MPNet's terms for the distances of tokens.
    fn attention_bias(&mut self) -> anyhow::Result<String> {
        let to_float = [("to", Attribute::Int(Element::F32 as i64))];
        self.graph.named("Cast", &["attention_mask"], &["mask"], &to_float);
        self.graph.floats("one", &[], &[1.0]);
        self.graph.floats("masked_score", &[], &[-1e9]);
        self.graph.sizes("axes_1_2", &[1, 2]);
        let wide = self.graph.node("Unsqueeze", &["mask", "axes_1_2"], &[]);
        let padding = self.graph.node("Sub", &["one", &wide], &[]);
        let padding = self.graph.node("Mul", &[&padding, "masked_score"], &[]);
        if self.shape.architecture == Architecture::Bert {
            return Ok(padding);
        }
        let (heads, tokens) = (self.settings.attention_heads, self.shape.tokens);
        let table = self.floats(DISTANCES, &[DISTANCE_CLASSES, heads])?;
        self.graph.floats(DISTANCES, &[DISTANCE_CLASSES, heads], &table);
        let pairs = (0..tokens).flat_map(|from| (0..tokens).map(move |to| distance_class(from, to)));
        let classes = pairs.flat_map(|class| (class as i32).to_le_bytes()).collect();
        self.graph.constant("distance_classes", Element::I32, &[tokens, tokens], classes);
        self.graph.sizes("zeros", &[0, 0]);
        self.graph.sizes("axes_0_1", &[0, 1]);
        let ends = self.graph.node("Concat", &["length", "length"], &[("axis", Attribute::Int(0))]);
        let classes = self.graph.node("Slice", &["distance_classes", "zeros", &ends, "axes_0_1"], &[]);
        let terms = self.graph.node("Gather", &[DISTANCES, &classes], &[]);
        let terms = self.graph.node("Transpose", &[&terms], &[("perm", Attribute::Ints(&[2, 0, 1]))]);
        Ok(self.graph.node("Add", &[&padding, &terms], &[]))
    }

    /// Adds the constants that all layers use.
    fn shared_constants(&mut self) {
        let (hidden, heads) = (self.shape.hidden, self.settings.attention_heads);
        self.graph.sizes("thirds", &[hidden as i64; 3]);
        self.graph.sizes("split_heads", &[0, 0, heads as i64, (hidden / heads) as i64]);
        self.graph.sizes("join_heads", &[0, 0, hidden as i64]);
        self.graph.floats("half", &[], &[0.5]);
        self.graph.floats("sqrt_2", &[], &[SQRT_2]);
        self.graph.floats("one_127th", &[], &[1.0 / 127.0]);
        self.graph.floats("smallest_scale", &[], &[SMALLEST_SCALE]);
        self.graph.constant("middle", Element::U8, &[], vec![128]);
    }

    /// A layer of the encoder: attention, then the feed-forward layers.
    fn layer(&mut self, x: &str, bias: &str, layer: usize) -> anyhow::Result<String> {
        let Shape { architecture, hidden, inner, .. } = self.shape;
        let named = |part: &str| format!("encoder.layer.{layer}.{part}");
        let ([query, key, value, output], norm) = architecture.attention();
        let qkv =
            Linear { names: &[named(query), named(key), named(value)], inputs: hidden, outputs: hidden };
        // The scores are divided by this: the weights of the query are instead.
        let divisor = ((hidden / self.settings.attention_heads) as f32).sqrt();
        let qkv = self.linear(x, &qkv, divisor)?;
        let parts = ["query", "key", "value"].map(|part| format!("{part}_{layer}"));
        let [query, key, value] = parts.each_ref().map(String::as_str);
        let along = [("axis", Attribute::Int(2))];
        self.graph.named("Split", &[&qkv, "thirds"], &[query, key, value], &along);
        let mut split = |part: &str, order: &[i64]| {
            let heads = self.graph.node("Reshape", &[part, "split_heads"], &[]);
            self.graph.node("Transpose", &[&heads], &[("perm", Attribute::Ints(order))])
        };
        let (query, key) = (split(query, &[0, 2, 1, 3]), split(key, &[0, 2, 3, 1]));
        let value = split(value, &[0, 2, 1, 3]);
        let scores = self.graph.node("MatMul", &[&query, &key], &[]);
        let scores = self.graph.node("Add", &[&scores, bias], &[]);
        let shares = self.graph.node("Softmax", &[&scores], &[("axis", Attribute::Int(-1))]);
        let mixed = self.graph.node("MatMul", &[&shares, &value], &[]);
        let order = [("perm", Attribute::Ints(&[0, 2, 1, 3]))];
        let mixed = self.graph.node("Transpose", &[&mixed], &order);
        let mixed = self.graph.node("Reshape", &[&mixed, "join_heads"], &[]);
        let out = Linear { names: &[named(output)], inputs: hidden, outputs: hidden };
        let out = self.linear(&mixed, &out, 1.0)?;
        let sum = self.graph.node("Add", &[x, &out], &[]);
        let x = self.layer_norm(&sum, &named(norm))?;
        let up = Linear { names: &[named("intermediate.dense")], inputs: hidden, outputs: inner };
        let up = self.linear(&x, &up, 1.0)?;
        let gelu = self.gelu(&up);
        let down = Linear { names: &[named("output.dense")], inputs: inner, outputs: hidden };
        let down = self.linear(&gelu, &down, 1.0)?;
        let sum = self.graph.node("Add", &[&x, &down], &[]);
        self.layer_norm(&sum, &named("output.LayerNorm"))
    }

    /// GELU with the error function, in the form that ONNX Runtime fuses.
    fn gelu(&mut self, x: &str) -> String {
        let scaled = self.graph.node("Div", &[x, "sqrt_2"], &[]);
        let erf = self.graph.node("Erf", &[&scaled], &[]);
        let share = self.graph.node("Add", &[&erf, "one"], &[]);
        let half = self.graph.node("Mul", &[x, "half"], &[]);
        self.graph.node("Mul", &[&half, &share], &[])
    }

    fn layer_norm(&mut self, x: &str, name: &str) -> anyhow::Result<String> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        for name in [&weight, &bias] {
            let values = self.floats(name, &[self.shape.hidden])?;
            self.graph.floats(name, &[self.shape.hidden], &values);
        }
        let epsilon = self.settings.layer_norm_eps;
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))];
        Ok(self.graph.node("LayerNormalization", &[x, &weight, &bias], &attributes))
    }

    /// Linear layers side by side, computed as one product. Weights and biases of the first are
    /// divided by `divisor`.
    fn linear(&mut self, x: &str, linear: &Linear<'_>, divisor: f32) -> anyhow::Result<String> {
        let Linear { names, inputs, outputs } = *linear;
        let (mut values, mut scales, mut biases) = (Vec::new(), Vec::new(), Vec::new());
        for (index, name) in names.iter().enumerate() {
            let divisor = if index == 0 { divisor } else { 1.0 };
            let mut weights = self.floats(&format!("{name}.weight"), &[outputs, inputs])?;
            weights.iter_mut().for_each(|weight| *weight /= divisor);
            let quantised = quantise::rows(&weights, inputs);
            values.extend(quantised.values);
            scales.extend(quantised.scales);
            biases
                .extend(self.floats(&format!("{name}.bias"), &[outputs])?.iter().map(|bias| bias / divisor));
        }
        let name = &names[0];
        let [matrix, scale, bias] = ["int8", "scale", "bias"].map(|kind| format!("{name}.{kind}"));
        let width = names.len() * outputs;
        let values = quantise::transposed(&values, inputs);
        self.graph.constant(&matrix, Element::I8, &[inputs, width], values);
        self.graph.floats(&scale, &[width], &scales);
        self.graph.floats(&bias, &[width], &biases);
        // Each token has the scale of its largest value.
        let graph = &mut self.graph;
        let sizes = graph.node("Abs", &[x], &[]);
        let along = [("axes", Attribute::Ints(&[-1])), ("keepdims", Attribute::Int(1))];
        let top = graph.node("ReduceMax", &[&sizes], &along);
        let token = graph.node("Mul", &[&top, "one_127th"], &[]);
        let token = graph.node("Max", &[&token, "smallest_scale"], &[]);
        let scaled = graph.node("Div", &[x, &token], &[]);
        let bytes = graph.node("QuantizeLinear", &[&scaled, "one", "middle"], &[]);
        let sums = graph.node("MatMulInteger", &[&bytes, &matrix, "middle"], &[]);
        let sums = graph.node("Cast", &[&sums], &[("to", Attribute::Int(Element::F32 as i64))]);
        let sums = graph.node("Mul", &[&sums, &token], &[]);
        let sums = graph.node("Mul", &[&sums, &scale], &[]);
        Ok(graph.node("Add", &[&sums, &bias], &[]))
    }
}

/// Linear layers of equal shape over the same values.
struct Linear<'a> {
    names: &'a [String],
    inputs: usize,
    /// Values of each layer.
    outputs: usize,
}

/// MPNet's class of the distance between two tokens, as in T5: 16 classes for each direction, of
/// which the first 8 are of one distance each, and the others of distances that grow by the square
/// root of 2. Computed in integers, because a logarithm may round differently elsewhere.
fn distance_class(from: usize, to: usize) -> usize {
    const HALF: usize = DISTANCE_CLASSES / 2;
    const EXACT: usize = HALF / 2;
    let distance = from.abs_diff(to);
    let direction = if to > from { HALF } else { 0 };
    if distance < EXACT {
        return direction + distance;
    }
    // (distance / 8)^8 is at least 16^step.
    let power = (distance.min(128) as u128).pow(8);
    let steps = (1..EXACT as u32).take_while(|step| 8_u128.pow(8) * 16_u128.pow(*step) <= power);
    direction + EXACT + steps.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_tokens_share_classes() {
        let before: Vec<_> = [0, 1, 7, 8, 11, 12, 15, 16, 22, 23, 31, 32, 63, 64, 90, 91, 128, 511]
            .map(|distance| distance_class(600, 600 - distance))
            .to_vec();
        assert_eq!(before, [0, 1, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 13, 14, 14, 15, 15, 15]);
        assert_eq!((distance_class(0, 1), distance_class(0, 511)), (17, 31));
    }
}
