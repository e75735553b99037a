//! Products of a layer's matrices, and their steps up to the next product or the residual stream.

use infer_kernels::{Activation, Activations, Pool, QuantizedMatrix, Write, add_rms_norm};

/// The first `len` of `values`, which grow if needed. Their contents are left over from earlier
/// use.
pub(super) fn room(values: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if values.len() < len {
        values.resize(len, 0.0);
    }
    &mut values[..len]
}

/// The matrices of gate and up, each (feed-forward, hidden).
pub(super) struct Gate {
    pub(super) gate: QuantizedMatrix,
    pub(super) up: QuantizedMatrix,
}

impl Gate {
    pub(super) fn size_bytes(&self) -> usize {
        self.gate.size_bytes() + self.up.size_bytes()
    }

    /// Writes `activation(gate · input) * (up · input)` to `out`, (rows, feed-forward).
    pub(super) fn apply(
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
            Residual::Scale(scale) => self.matrix.matmul(pool, input, stream, columns, Write::Add(*scale)),
            residual @ Residual::Norm { .. } => {
                let product = room(scratch, stream.len());
                self.matrix.matmul(pool, input, product, columns, Write::Set);
                residual.add(pool, product, stream);
            }
        }
    }
}

impl Residual {
    /// Adds `result`, (rows, hidden), to `stream`.
    pub(super) fn add(&self, pool: &Pool, result: &[f32], stream: &mut [f32]) {
        match self {
            Residual::Scale(scale) => {
                stream.iter_mut().zip(result).for_each(|(sum, value)| *sum += scale * value);
            }
            Residual::Norm { weight, epsilon } => add_rms_norm(pool, result, weight, *epsilon, stream),
        }
    }
}
