//! Causal attention that reads keys and values in place from shared KV blocks.
//!
//! For each KV head, one layer of a block stores keys as `(key_dim, 16 tokens)` and then values as
//! `(16 tokens, value_dim)`, in f16 or int8. Scales of int8 follow in f32: those of keys as
//! `(key_dim / 32, 16 tokens)`, then one for each token's values. Sixteen scores are therefore one
//! product with a vector of keys, and a weighted sum runs along rows of values. A task takes
//! several queries that share a KV head and passes over the spans once, four at a time, with the
//! running softmax of Milakov and Gimelshein (2018).

mod element;
mod queries;
mod shape;
mod store;

use crate::pool::Pool;
use crate::shared::Shared;
use crate::simd::Simd;
use crate::simd::dispatch::{InstructionSet, with_simd};
use queries::Queries;
pub use shape::{AttentionShape, BLOCK_TOKENS, Chunk, KvType, Span};
pub(crate) use store::store_head;

/// Maximum number of queries per task.
const QUERIES: usize = 8;

/// Writes softmax(q · k · scale) v of each query to `out`, `(rows, query_heads * value_dim)`; a
/// soft cap applies to the scores. A query attends to positions up to its own, or to the last
/// `window` of them. `qkv` holds the queries as `rope_and_store` left them.
///
/// # Panics
/// If a chunk exceeds `qkv` or `out`, if its spans cover fewer positions or have another shape, or
/// if two chunks share a row.
pub fn attention(pool: &Pool, shape: &AttentionShape, qkv: &[f32], chunks: &[Chunk<'_>], out: &mut [f32]) {
    attention_on(InstructionSet::chosen(), pool, shape, qkv, chunks, out);
}

pub(crate) fn attention_on(
    set: InstructionSet,
    pool: &Pool,
    shape: &AttentionShape,
    qkv: &[f32],
    chunks: &[Chunk<'_>],
    out: &mut [f32],
) {
    check(shape, qkv, chunks, out);
    let group = shape.query_heads / shape.kv_heads;
    // The tasks of a chunk are consecutive, so that each task can find the first one of its chunk.
    let mut first_tasks = Vec::with_capacity(chunks.len() + 1);
    let mut tasks = 0;
    for chunk in chunks {
        first_tasks.push(tasks);
        tasks += (chunk.rows.len() * group).div_ceil(QUERIES) * shape.kv_heads;
    }
    let shared = Shared::new(out);
    pool.run(tasks, |task| {
        let index = first_tasks.partition_point(|&first| first <= task) - 1;
        let chunk = &chunks[index];
        let queries = chunk.rows.len() * group;
        let tiles = queries.div_ceil(QUERIES);
        let task = task - first_tasks[index];
        // The keys and values of a head stay in the second-level cache for all its queries. Late
        // queries attend to most keys; starting with them leaves short tasks to balance the end.
        let (head, tile) = (task / tiles, tiles - 1 - task % tiles);
        let first = tile * QUERIES;
        let count = QUERIES.min(queries - first);
        let job = Queries { shape, qkv, chunk, head, first, count, out: shared };
        // SAFETY: `set` is available; shapes were checked, and each task writes only its own heads
        // of its own rows.
        unsafe { with_simd!(set, S => <S as Simd>::enter(job)) };
    });
}

fn check(shape: &AttentionShape, qkv: &[f32], chunks: &[Chunk<'_>], out: &[f32]) {
    shape.check();
    let rows = (qkv.len() / shape.qkv_columns()).min(out.len() / shape.out_columns());
    let mut ranges: Vec<(usize, usize)> =
        chunks.iter().map(|chunk| (chunk.rows.start, chunk.rows.end)).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|two| two[0].1 <= two[1].0), "chunks share rows");
    for chunk in chunks {
        assert!(
            chunk.rows.start <= chunk.rows.end && chunk.rows.end <= rows,
            "chunk of rows {:?} of {rows}",
            chunk.rows
        );
        for span in chunk.spans {
            assert_eq!(span.block.len(), shape.layer_bytes(), "length of a block's layer");
            assert!(span.tokens <= BLOCK_TOKENS, "a span of {} tokens", span.tokens);
        }
        let tokens: usize = chunk.spans.iter().map(|span| span.tokens).sum();
        let end = chunk.position.checked_add(chunk.rows.len());
        assert!(end.is_some_and(|end| end <= tokens), "{tokens} tokens for position {}", chunk.position);
    }
}

#[cfg(test)]
mod tests;
