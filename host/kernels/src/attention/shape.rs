//! Shapes of attention: heads, spans of KV blocks, and runs of queries.

use std::ops::Range;

use crate::limits::MAX_HEAD_DIM;

/// Number of token slots in a KV block.
pub const BLOCK_TOKENS: usize = 16;

/// Number of features of a key that share a scale in [`KvType::Int8`]. A few features of a key are
/// far larger than the others in some models, such as Qwen2.5.
pub(crate) const KEY_GROUP: usize = 32;

/// Type of the numbers in KV blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KvType {
    /// Half precision.
    F16,
    /// Signed bytes, with a scale in f32 for each value head of a token, and for each 32 features
    /// of its key heads.
    Int8,
}

impl KvType {
    /// Every type.
    pub const ALL: [Self; 2] = [Self::F16, Self::Int8];

    /// `f16` or `int8`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }
}

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
    /// Type of keys and values in blocks.
    pub kv_type: KvType,
}

/// Places of the parts of a head in one layer of a block, in bytes. Keys come first.
pub(crate) struct Offsets {
    pub(crate) values: usize,
    pub(crate) key_scales: usize,
    pub(crate) value_scales: usize,
    pub(crate) end: usize,
}

impl AttentionShape {
    /// The usual attention: keys and values of `head_dim` features in f16, a scale of 1 /
    /// sqrt(head_dim), neither soft cap nor window.
    pub fn new(query_heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        let scale = 1.0 / (head_dim as f32).sqrt();
        let (key_dim, value_dim) = (head_dim, head_dim);
        let (soft_cap, window, kv_type) = (None, None, KvType::F16);
        AttentionShape { query_heads, kv_heads, key_dim, value_dim, scale, soft_cap, window, kv_type }
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

    /// Size of one layer of one block in bytes, keys and values together.
    pub fn layer_bytes(&self) -> usize {
        self.kv_heads * self.offsets().end
    }

    /// Sets the slots from `filled` on in one layer of one block to zero.
    ///
    /// # Panics
    /// If `layer` has another length, or there are fewer slots.
    pub fn clear(&self, layer: &mut [u8], filled: usize) {
        assert_eq!(layer.len(), self.layer_bytes(), "length of a block's layer");
        let Offsets { values, key_scales, end, .. } = self.offsets();
        let bytes = values / (self.key_dim * BLOCK_TOKENS);
        for head in layer.chunks_exact_mut(end) {
            let (head, scales) = head.split_at_mut(key_scales);
            let (keys, values) = head.split_at_mut(values);
            keys.chunks_exact_mut(BLOCK_TOKENS * bytes).for_each(|row| row[filled * bytes..].fill(0));
            values[filled * self.value_dim * bytes..].fill(0);
            scales.chunks_exact_mut(4 * BLOCK_TOKENS).for_each(|row| row[4 * filled..].fill(0));
        }
    }

    pub(crate) fn offsets(&self) -> Offsets {
        let (number, scales) = match self.kv_type {
            KvType::F16 => (2, 0),
            KvType::Int8 => (1, 4 * BLOCK_TOKENS),
        };
        let values = number * self.key_dim * BLOCK_TOKENS;
        let key_scales = values + number * self.value_dim * BLOCK_TOKENS;
        let value_scales = key_scales + scales * self.key_dim.div_ceil(KEY_GROUP);
        Offsets { values, key_scales, value_scales, end: value_scales + scales }
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
    /// Bytes of the layer, of length [`AttentionShape::layer_bytes`].
    pub block: &'a [u8],
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
