//! From a file's tensors to a decoder's layers: the matrices that a layer multiplies by, and the
//! source of each.

use std::collections::HashSet;

use infer_kernels::{Pool, QuantizedMatrix};

use super::experts::{Expert, Experts};
use super::layer::{FeedForward, Layer};
use super::products::{Branch, Gate, Projection, Residual};
use crate::language::architecture::Architecture;
use crate::language::config::{DecoderConfig, ExpertConfig};
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
    /// (experts, hidden)
    router: Option<MatrixSpec>,
    /// Gate and up: two matrices, or one with the gate's rows first. Those of experts have the rows
    /// of all experts, one after the other, as does `down`.
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
        let DecoderConfig { family, hidden, feed_forward, attention, experts, .. } = config;
        let [queries, keys, values] = [
            attention.query_columns(),
            attention.kv_heads * attention.key_dim,
            attention.kv_heads * attention.value_dim,
        ];
        let matrix =
            |part: &str, shape: &[usize]| matrix_spec(gguf, format!("blk.{layer}.{part}.weight"), shape);
        let side_by_side = |parts: &[(&str, usize)]| {
            parts.iter().map(|(part, rows)| matrix(part, &[*rows, *hidden])).collect::<Result<_, _>>()
        };
        let qkv = if family.fused {
            side_by_side(&[("attn_qkv", queries + keys + values)])
        } else {
            side_by_side(&[("attn_q", queries), ("attn_k", keys), ("attn_v", values)])
        };
        let attention_output = matrix("attn_output", &[*hidden, attention.out_columns()])?;
        let (router, gate_up, down) = if let Some(ExpertConfig { count, .. }) = *experts {
            let gate = matrix("ffn_gate_exps", &[count, *feed_forward, *hidden])?;
            let up = matrix("ffn_up_exps", &[count, *feed_forward, *hidden])?;
            let down = matrix("ffn_down_exps", &[count, *hidden, *feed_forward])?;
            (Some(matrix("ffn_gate_inp", &[count, *hidden])?), vec![gate, up], down)
        } else {
            let gate_up = if family.fused {
                side_by_side(&[("ffn_up", 2 * feed_forward)])
            } else {
                side_by_side(&[("ffn_gate", *feed_forward), ("ffn_up", *feed_forward)])
            };
            (None, gate_up?, matrix("ffn_down", &[*hidden, *feed_forward])?)
        };
        Ok(LayerMatrices { qkv: qkv?, attention_output, router, gate_up, down })
    }

    /// All matrices, in the order of use.
    pub(super) fn all(&self) -> impl Iterator<Item = &MatrixSpec> {
        let LayerMatrices { qkv, attention_output, router, gate_up, down } = self;
        qkv.iter().chain([attention_output]).chain(router).chain(gate_up).chain([down])
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
    matrix_spec(gguf, name.to_owned(), &[vocabulary, config.hidden])
}

/// The matrix `name` of this shape, whose rows may have several dimensions.
///
/// # Errors
///
/// If the file lacks it, or has it with another shape.
fn matrix_spec(gguf: &Gguf, name: String, shape: &[usize]) -> Result<MatrixSpec, GgufError> {
    let ty = gguf.require_tensor(&name, shape)?.ty;
    let (columns, rows) = shape.split_last().expect("a matrix has columns");
    Ok(MatrixSpec { name, ty, rows: rows.iter().product(), columns: *columns })
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
        let residual = |part: &str| {
            if !config.family.post_norms {
                return Ok(Residual::Scale(config.residual_scale));
            }
            let mut weight = norm(part, config.hidden)?;
            weight.iter_mut().for_each(|weight| *weight *= config.residual_scale);
            Ok(Residual::Norm { weight, epsilon: config.epsilon })
        };
        let branch = |spec: &MatrixSpec, part: &str| {
            Ok(Branch { matrix: self.matrix(spec)?, residual: residual(part)? })
        };
        let feed_forward = match (&matrices.router, &config.experts) {
            (Some(router), Some(experts)) => FeedForward::Experts(Experts {
                router: self.matrix(router)?,
                experts: self.experts(config, matrices)?,
                used: experts.used,
                residual: residual(POST_NORMS[1])?,
            }),
            _ => FeedForward::Dense {
                gate: self.gate(&matrices.gate_up, config.feed_forward)?,
                down: branch(&matrices.down, POST_NORMS[1])?,
            },
        };
        Ok(Layer {
            attention_norm: norm("attn_norm", config.hidden)?,
            qkv: self.projection(&matrices.qkv)?,
            head_norms,
            attention_output: branch(&matrices.attention_output, POST_NORMS[0])?,
            feed_forward_norm: norm("ffn_norm", config.hidden)?,
            feed_forward,
        })
    }

    fn gate(&self, spec: &[MatrixSpec], feed_forward: usize) -> Result<Gate, GgufError> {
        match spec {
            [gate, up] => Ok(Gate { gate: self.matrix(gate)?, up: self.matrix(up)? }),
            [fused, ..] => {
                let (gate, up) = self.matrix(fused)?.split(feed_forward).ok_or_else(|| {
                    let message = format!("has a gate of {feed_forward} rows, expected a multiple of 32");
                    GgufError::tensor(&fused.name, message)
                })?;
                Ok(Gate { gate, up })
            }
            [] => unreachable!("a layer has a gate"),
        }
    }

    fn experts(&self, config: &DecoderConfig, matrices: &LayerMatrices) -> Result<Vec<Expert>, GgufError> {
        let [gate, up] = &matrices.gate_up[..] else { unreachable!("experts have a gate and an up matrix") };
        let gates = self.stacked(gate, config.feed_forward)?;
        let ups = self.stacked(up, config.feed_forward)?;
        let downs = self.stacked(&matrices.down, config.hidden)?;
        let experts = gates.into_iter().zip(ups).zip(downs);
        Ok(experts.map(|((gate, up), down)| Expert { gate: Gate { gate, up }, down }).collect())
    }

    /// The matrices of `rows` rows that the tensor `spec` consists of.
    fn stacked(&self, spec: &MatrixSpec, rows: usize) -> Result<Vec<QuantizedMatrix>, GgufError> {
        let mut rest = self.matrix(spec)?;
        let mut all = Vec::with_capacity(spec.rows / rows);
        while rest.rows() > rows {
            let (first, others) = rest.split(rows).ok_or_else(|| {
                let message = format!("has experts of {rows} rows, expected a multiple of 32");
                GgufError::tensor(&spec.name, message)
            })?;
            all.push(first);
            rest = others;
        }
        all.push(rest);
        Ok(all)
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
