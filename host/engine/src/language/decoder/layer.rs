//! The weights of one layer.

use infer_kernels::{Activation, Activations, HeadNorms, Pool, QuantizedMatrix};

use super::experts::{ExpertBuffers, Experts};
use super::products::{Branch, Gate, Projection};

pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    pub(super) qkv: Projection,
    pub(super) head_norms: Option<[Vec<f32>; 2]>,
    pub(super) attention_output: Branch,
    pub(super) feed_forward_norm: Vec<f32>,
    pub(super) feed_forward: FeedForward,
}

pub(super) enum FeedForward {
    Dense { gate: Gate, down: Branch },
    Experts(Experts),
}

/// Buffers of the feed-forward network, and of the norms of results.
#[derive(Default)]
pub(super) struct Scratch {
    /// (rows, feed-forward)
    gated: Activations,
    /// Products before their norm, (rows, hidden), in families with such norms.
    pub(super) branch: Vec<f32>,
    experts: ExpertBuffers,
}

impl Layer {
    /// Size of the packed weights in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        let Layer { qkv, attention_output, feed_forward, .. } = self;
        let attention = qkv.parts.iter().chain([&attention_output.matrix]);
        let feed_forward = match feed_forward {
            FeedForward::Dense { gate, down } => gate.size_bytes() + down.matrix.size_bytes(),
            FeedForward::Experts(experts) => experts.size_bytes(),
        };
        attention.map(QuantizedMatrix::size_bytes).sum::<usize>() + feed_forward
    }

    /// The norms of the heads of queries and of keys.
    pub(super) fn head_norms(&self, epsilon: f32) -> Option<HeadNorms<'_>> {
        self.head_norms.as_ref().map(|[queries, keys]| HeadNorms { queries, keys, epsilon })
    }
}

impl FeedForward {
    /// Adds the network's result for `input`, (rows, hidden), to `stream`.
    pub(super) fn add(
        &self,
        pool: &Pool,
        activation: Activation,
        input: &mut Activations,
        stream: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let Scratch { gated, branch, experts: buffers } = scratch;
        match self {
            FeedForward::Dense { gate, down } => {
                gate.apply(pool, activation, input, gated);
                down.add(pool, gated, stream, branch);
            }
            FeedForward::Experts(experts) => experts.add(pool, activation, input, stream, gated, buffers),
        }
    }
}
