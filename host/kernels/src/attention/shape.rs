//! Shapes of attention: heads, spans of KV blocks, and runs of queries.

use std::ops::Range;

use half::f16;

/// Token slots of a KV block.
pub const BLOCK_TOKENS: usize = 16;

/// The most features of a head.
pub(super) const MAX_HEAD_DIM: usize = 256;

/// Heads of a model's attention.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttentionShape {
    /// A multiple of `kv_heads`.
    pub query_heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Features of a head: even, at most 256; fastest where whole vectors, as 64, 96 and 128.
    pub head_dim: usize,
    /// How many positions a query sees, its own included; all before it where there is none.
    pub window: Option<usize>,
}

impl AttentionShape {
    /// Columns of queries, keys and values together.
    pub fn qkv_columns(&self) -> usize {
        (self.query_heads + 2 * self.kv_heads) * self.head_dim
    }

    /// f16 elements of one layer of one block, keys and values together.
    pub fn layer_elements(&self) -> usize {
        self.kv_heads * self.head_elements()
    }

    pub(crate) fn head_elements(&self) -> usize {
        2 * self.head_dim * BLOCK_TOKENS
    }

    pub(crate) fn check(&self) {
        let Self { query_heads, kv_heads, head_dim, .. } = *self;
        let even = head_dim.is_multiple_of(2) && (2..=MAX_HEAD_DIM).contains(&head_dim);
        assert!(even, "head_dim {head_dim}: expected an even number up to {MAX_HEAD_DIM}");
        let whole = kv_heads > 0 && query_heads > 0 && query_heads.is_multiple_of(kv_heads);
        assert!(whole, "{query_heads} query heads: expected a multiple of {kv_heads} KV heads");
    }
}

/// The first `tokens` slots of one layer of one block.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    /// Filled slots, at most [`BLOCK_TOKENS`].
    pub tokens: usize,
    /// `AttentionShape::layer_elements` long.
    pub block: &'a [f16],
}

/// A run of consecutive queries of one sequence.
pub struct Chunk<'a> {
    /// Rows of `qkv` and of `out`.
    pub rows: Range<usize>,
    /// The position of the first row.
    pub position: usize,
    /// The keys and values of positions `0..position + rows.len()` in order; any may be partly
    /// filled.
    pub spans: &'a [Span<'a>],
}
