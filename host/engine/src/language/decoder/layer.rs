//! The weights of one layer.

use infer_kernels::{Activation, Activations, HeadNorms, Pool, QuantizedMatrix, Write, add_rms_norm};

pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    pub(super) qkv: Projection,
    pub(super) head_norms: Option<[Vec<f32>; 2]>,
    pub(super) attention_output: Branch,
    pub(super) feed_forward_norm: Vec<f32>,
    pub(super) gate: QuantizedMatrix,
    pub(super) up: QuantizedMatrix,
    pub(super) down: Branch,
}

impl Layer {
    /// Size of the packed weights in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        let Layer { qkv, attention_output, gate, up, down, .. } = self;
        let matrices = qkv.parts.iter().chain([&attention_output.matrix, gate, up, &down.matrix]);
        matrices.map(QuantizedMatrix::size_bytes).sum()
    }

    /// The norms of the heads of queries and of keys.
    pub(super) fn head_norms(&self, epsilon: f32) -> Option<HeadNorms<'_>> {
        self.head_norms.as_ref().map(|[queries, keys]| HeadNorms { queries, keys, epsilon })
    }

    /// Writes `activation(gate · input) * (up · input)` to `out`, (rows, feed-forward).
    pub(super) fn gated(
        &self,
        pool: &Pool,
        activation: Activation,
        input: &mut Activations,
        out: &mut Activations,
    ) {
        let columns = self.gate.rows();
        let out = out.room(input.rows(), columns);
        self.gate.matmul(pool, input, out, columns, Write::Set);
        self.up.matmul(pool, input, out, columns, Write::Gate(activation));
    }
}

/// Matrices with the same input, whose outputs are concatenated; one or several tensors in the
/// file.
pub(super) struct Projection {
    pub(super) parts: Vec<QuantizedMatrix>,
    pub(super) bias: Option<Vec<f32>>,
}

impl Projection {
    pub(super) fn apply(&self, pool: &Pool, input: &mut Activations, out: &mut [f32]) {
        let stride = self.parts.iter().map(QuantizedMatrix::rows).sum();
        let mut column = 0;
        for part in &self.parts {
            part.matmul(pool, input, &mut out[column..], stride, Write::Set);
            column += part.rows();
        }
        if let Some(bias) = &self.bias {
            for row in out.chunks_exact_mut(stride) {
                row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            }
        }
    }
}

/// The last matrix of attention or of the feed-forward network: its product is added to the
/// residual stream.
pub(super) struct Branch {
    pub(super) matrix: QuantizedMatrix,
    pub(super) residual: Residual,
}

/// The last step before a product is added to the residual stream.
pub(super) enum Residual {
    Scale(f32),
    /// An RMS norm with these weights.
    Norm {
        weight: Vec<f32>,
        epsilon: f32,
    },
}

impl Branch {
    /// Adds the product of `input` to `stream`, (rows, matrix rows). `scratch` holds the product
    /// before its norm.
    pub(super) fn add(
        &self,
        pool: &Pool,
        input: &mut Activations,
        stream: &mut [f32],
        scratch: &mut Vec<f32>,
    ) {
        let columns = self.matrix.rows();
        match &self.residual {
            Residual::Scale(1.0) => self.matrix.matmul(pool, input, stream, columns, Write::Add),
            Residual::Scale(scale) => {
                self.matrix.matmul(pool, input, stream, columns, Write::AddScaled(*scale));
            }
            Residual::Norm { weight, epsilon } => {
                let product = super::room(scratch, stream.len());
                self.matrix.matmul(pool, input, product, columns, Write::Set);
                add_rms_norm(pool, product, weight, *epsilon, stream);
            }
        }
    }
}
