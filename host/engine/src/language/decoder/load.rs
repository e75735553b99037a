//! From a file's tensors to a decoder's layers: the matrices that a layer multiplies by, and the
//! source of each.

use std::collections::HashSet;

use infer_kernels::{Pool, QuantizedMatrix};

use super::layer::{Branch, Layer, Projection, Residual};
use crate::language::architecture::Architecture;
use crate::language::config::DecoderConfig;
use crate::language::gguf::{Gguf, GgufError};
use crate::language::packed::{MatrixSpec, PackedFile, pack};

/// The norms of queries' and keys' heads, and those of the results of attention and of the
/// feed-forward network.
const HEAD_NORMS: [&str; 2] = ["attn_q_norm", "attn_k_norm"];
const POST_NORMS: [&str; 2] = ["post_attention_norm", "post_ffw_norm"];

/// The matrices of one layer, present in the file with these shapes.
pub(super) struct LayerMatrices {
    /// Queries, keys and values.
    qkv: Vec<MatrixSpec>,
    attention_output: MatrixSpec,
    /// Gate and up: two matrices, or one with the gate's rows first.
    gate_up: Vec<MatrixSpec>,
    down: MatrixSpec,
}

impl LayerMatrices {
    /// Looks up the matrices of layer `layer`.
    ///
    /// # Errors
    ///
    /// If the file lacks one of them, or has it with another shape.
    pub(super) fn of(gguf: &Gguf, config: &DecoderConfig, layer: usize) -> Result<Self, GgufError> {
        let DecoderConfig { family, hidden, feed_forward, attention, .. } = config;
        let [queries, keys, values] = [
            attention.query_columns(),
            attention.kv_heads * attention.key_dim,
            attention.kv_heads * attention.value_dim,
        ];
        let matrix = |part: &str, rows, columns| {
            matrix_spec(gguf, format!("blk.{layer}.{part}.weight"), rows, columns)
        };
        let side_by_side = |parts: &[(&str, usize)]| {
            parts.iter().map(|(part, rows)| matrix(part, *rows, *hidden)).collect::<Result<_, _>>()
        };
        let (qkv, gate_up) = if family.fused {
            (
                side_by_side(&[("attn_qkv", queries + keys + values)]),
                side_by_side(&[("ffn_up", 2 * feed_forward)]),
            )
        } else {
            let qkv = [("attn_q", queries), ("attn_k", keys), ("attn_v", values)];
            (side_by_side(&qkv), side_by_side(&[("ffn_gate", *feed_forward), ("ffn_up", *feed_forward)]))
        };
        Ok(LayerMatrices {
            qkv: qkv?,
            attention_output: matrix("attn_output", *hidden, attention.out_columns())?,
            gate_up: gate_up?,
            down: matrix("ffn_down", *hidden, *feed_forward)?,
        })
    }

    /// All matrices, in the order of use.
    pub(super) fn all(&self) -> impl Iterator<Item = &MatrixSpec> {
        let LayerMatrices { qkv, attention_output, gate_up, down } = self;
        qkv.iter().chain([attention_output]).chain(gate_up).chain([down])
    }
}

/// Every matrix that a pass multiplies by.
///
/// # Errors
///
/// If the file lacks one of them, or has it with another shape.
pub(crate) fn matrices(
    gguf: &Gguf,
    config: &DecoderConfig,
    vocabulary: usize,
) -> Result<Vec<MatrixSpec>, GgufError> {
    let mut all = Vec::new();
    for layer in 0..config.layers {
        all.extend(LayerMatrices::of(gguf, config, layer)?.all().cloned());
    }
    all.push(head(gguf, config, vocabulary)?);
    Ok(all)
}

/// The matrix that produces logits: `output.weight`, or the table of embeddings if the family or
/// the file ties them.
///
/// # Errors
///
/// If the file has neither, or has it with another shape.
pub(super) fn head(gguf: &Gguf, config: &DecoderConfig, vocabulary: usize) -> Result<MatrixSpec, GgufError> {
    let tied = config.family.tied || gguf.tensor("output.weight").is_none();
    let name = if tied { "token_embd.weight" } else { "output.weight" };
    matrix_spec(gguf, name.to_owned(), vocabulary, config.hidden)
}

/// The matrix `name` of this shape.
///
/// # Errors
///
/// If the file lacks it, or has it with another shape.
pub(super) fn matrix_spec(
    gguf: &Gguf,
    name: String,
    rows: usize,
    columns: usize,
) -> Result<MatrixSpec, GgufError> {
    let ty = gguf.require_tensor(&name, &[rows, columns])?.ty;
    Ok(MatrixSpec { name, ty, rows, columns })
}

/// Checks that the graph uses each tensor of a layer and of the output. An unused tensor would mean
/// that the model computes something else.
///
/// # Errors
///
/// For the first tensor that the graph does not use.
pub(super) fn check_known(
    gguf: &Gguf,
    family: &Architecture,
    layers: &[LayerMatrices],
    head: &MatrixSpec,
) -> Result<(), GgufError> {
    let mut known = HashSet::from(["output_norm.weight".to_owned(), head.name.clone()]);
    for (index, layer) in layers.iter().enumerate() {
        let post = POST_NORMS.iter().filter(|_| family.post_norms);
        let heads = HEAD_NORMS.iter().filter(|_| family.head_norms);
        let norms = ["attn_norm", "ffn_norm"].iter().chain(post).chain(heads);
        known.extend(norms.map(|norm| format!("blk.{index}.{norm}.weight")));
        known.extend(layer.all().map(|spec| spec.name.clone()));
        known.extend(layer.qkv.iter().filter(|_| family.biases).map(MatrixSpec::bias));
    }
    let matters = |name: &str| name.starts_with("blk.") || name.starts_with("output");
    let unknown = gguf.tensor_names().find(|name| matters(name) && !known.contains(*name));
    unknown.map_or(Ok(()), |name| {
        let message = "is not used by this architecture; this variant of the model is not supported";
        Err(GgufError::tensor(name, message))
    })
}

/// Provides each tensor in the form that the decoder uses.
pub(super) struct Loader<'g> {
    pub(super) gguf: &'g Gguf,
    pub(super) pool: &'g Pool,
    /// The file with packed matrices. Without it, matrices are packed in memory.
    pub(super) packed: Option<&'g PackedFile>,
}

impl Loader<'_> {
    pub(super) fn layer(
        &self,
        config: &DecoderConfig,
        index: usize,
        matrices: &LayerMatrices,
    ) -> Result<Layer, GgufError> {
        let norm = |part: &str, len| self.vector(&format!("blk.{index}.{part}.weight"), len);
        let key_dim = config.attention.key_dim;
        let head_norms = match config.family.head_norms {
            true => Some([norm(HEAD_NORMS[0], key_dim)?, norm(HEAD_NORMS[1], key_dim)?]),
            false => None,
        };
        let branch = |spec: &MatrixSpec, part: &str| {
            let residual = if config.family.post_norms {
                let mut weight = norm(part, config.hidden)?;
                weight.iter_mut().for_each(|weight| *weight *= config.residual_scale);
                Residual::Norm { weight, epsilon: config.epsilon }
            } else {
                Residual::Scale(config.residual_scale)
            };
            Ok(Branch { matrix: self.matrix(spec)?, residual })
        };
        let (gate, up) = self.gate_up(&matrices.gate_up, config.feed_forward)?;
        Ok(Layer {
            attention_norm: norm("attn_norm", config.hidden)?,
            qkv: self.projection(&matrices.qkv)?,
            head_norms,
            attention_output: branch(&matrices.attention_output, POST_NORMS[0])?,
            feed_forward_norm: norm("ffn_norm", config.hidden)?,
            gate,
            up,
            down: branch(&matrices.down, POST_NORMS[1])?,
        })
    }

    fn gate_up(
        &self,
        spec: &[MatrixSpec],
        feed_forward: usize,
    ) -> Result<(QuantizedMatrix, QuantizedMatrix), GgufError> {
        match spec {
            [gate, up] => Ok((self.matrix(gate)?, self.matrix(up)?)),
            [fused, ..] => self.matrix(fused)?.split(feed_forward).ok_or_else(|| {
                let message = format!("has a gate of {feed_forward} rows, expected a multiple of 32");
                GgufError::tensor(&fused.name, message)
            }),
            [] => unreachable!("a layer has a gate"),
        }
    }

    fn projection(&self, spec: &[MatrixSpec]) -> Result<Projection, GgufError> {
        let mut parts = Vec::with_capacity(spec.len());
        let mut bias = Vec::new();
        let mut biased = false;
        for spec in spec {
            parts.push(self.matrix(spec)?);
            let name = spec.bias();
            if self.gguf.tensor(&name).is_some() {
                bias.extend(self.vector(&name, spec.rows)?);
                biased = true;
            } else {
                bias.resize(bias.len() + spec.rows, 0.0);
            }
        }
        Ok(Projection { parts, bias: biased.then_some(bias) })
    }

    pub(super) fn matrix(&self, spec: &MatrixSpec) -> Result<QuantizedMatrix, GgufError> {
        match self.packed {
            Some(packed) => packed.matrix(spec),
            None => pack(self.gguf, self.pool, spec),
        }
    }

    pub(super) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, GgufError> {
        self.gguf.require_tensor(name, &[len])?.vector(len)
    }
}
