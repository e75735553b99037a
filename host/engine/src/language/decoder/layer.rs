//! The weights of one layer.

use infer_kernels::{Activations, Pool, QuantizedMatrix, Write};

pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    pub(super) qkv: Projection,
    pub(super) attention_output: QuantizedMatrix,
    pub(super) feed_forward_norm: Vec<f32>,
    pub(super) gate: QuantizedMatrix,
    pub(super) up: QuantizedMatrix,
    pub(super) down: QuantizedMatrix,
}

impl Layer {
    /// Size of the packed weights in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        let Layer { qkv, attention_output, gate, up, down, .. } = self;
        let matrices = qkv.parts.iter().chain([attention_output, gate, up, down]);
        matrices.map(QuantizedMatrix::size_bytes).sum()
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
