//! Shapes of attention: heads, spans of KV blocks, and runs of queries.

use std::ops::Range;

use half::f16;

use crate::limits::MAX_HEAD_DIM;

/// Number of token slots in a KV block.
pub const BLOCK_TOKENS: usize = 16;

/// Head counts and sizes of a layer's attention, and the score of a query and a key.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AttentionShape {
    /// Number of query heads, a multiple of `kv_heads`.
    pub query_heads: usize,
    /// Number of heads of keys and values.
    pub kv_heads: usize,
    /// Features per head of queries and keys: even, at most 256. Whole vectors are fastest, such as
    /// 64, 96 and 128.
    pub key_dim: usize,
    /// Features per head of values, within the same limits.
    pub value_dim: usize,
    /// Factor of the product of a query and a key; in most models 1 / sqrt(key_dim).
    pub scale: f32,
    /// A score becomes `cap * tanh(score / cap)` (Gemma 2).
    pub soft_cap: Option<f32>,
    /// Number of positions that a query attends to, its own included; `None` for all preceding
    /// ones.
    pub window: Option<usize>,
}

impl AttentionShape {
    /// The usual attention: keys and values of `head_dim` features, a scale of 1 / sqrt(head_dim),
    /// neither soft cap nor window.
    pub fn new(query_heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        let scale = 1.0 / (head_dim as f32).sqrt();
        let (key_dim, value_dim) = (head_dim, head_dim);
        AttentionShape { query_heads, kv_heads, key_dim, value_dim, scale, soft_cap: None, window: None }
    }

    /// Number of columns of the queries.
    pub fn query_columns(&self) -> usize {
        self.query_heads * self.key_dim
    }

    /// Number of columns of queries, keys and values together.
    pub fn qkv_columns(&self) -> usize {
        self.query_columns() + self.kv_heads * (self.key_dim + self.value_dim)
    }

    /// Number of columns of the result.
    pub fn out_columns(&self) -> usize {
        self.query_heads * self.value_dim
    }

    /// Number of f16 elements in one layer of one block, keys and values together.
    pub fn layer_elements(&self) -> usize {
        self.kv_heads * self.head_elements()
    }

    pub(crate) fn head_elements(&self) -> usize {
        (self.key_dim + self.value_dim) * BLOCK_TOKENS
    }

    pub(crate) fn check(&self) {
        let Self { query_heads, kv_heads, key_dim, value_dim, .. } = *self;
        for dim in [key_dim, value_dim] {
            let even = dim.is_multiple_of(2) && (2..=MAX_HEAD_DIM).contains(&dim);
            assert!(even, "heads of {dim} features: expected an even number up to {MAX_HEAD_DIM}");
        }
        let whole = kv_heads > 0 && query_heads > 0 && query_heads.is_multiple_of(kv_heads);
        assert!(whole, "{query_heads} query heads: expected a multiple of {kv_heads} KV heads");
    }
}

/// The first `tokens` slots in one layer of one block.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    /// Number of filled slots, at most [`BLOCK_TOKENS`].
    pub tokens: usize,
    /// Elements of the layer, of length `AttentionShape::layer_elements`.
    pub block: &'a [f16],
}

/// Consecutive queries of one sequence.
pub struct Chunk<'a> {
    /// Rows in `qkv` and `out`.
    pub rows: Range<usize>,
    /// Position of the first row.
    pub position: usize,
    /// Keys and values of positions `0..position + rows.len()` in order. Any span may be partly
    /// filled.
    pub spans: &'a [Span<'a>],
}
