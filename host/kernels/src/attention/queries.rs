//! One task of attention: several queries that share a KV head, against all of their spans.
#![allow(clippy::needless_range_loop, reason = "register tiles are indexed by number")]
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code; each function documents its contract")]

use std::mem::MaybeUninit;

use half::f16;

use super::shape::{AttentionShape, BLOCK_TOKENS, Chunk};
use crate::limits::MAX_HEAD_DIM;
use crate::norm::soft_capped;
use crate::shared::Shared;
use crate::simd::{Job, Simd};

/// Number of spans whose scores are computed together.
const SPANS: usize = 4;
const SLOTS: usize = SPANS * BLOCK_TOKENS;

/// Queries of a chunk that share a KV head: query `i` is row `i / group`, head `i % group` of the
/// KV head.
pub(super) struct Queries<'a> {
    pub(super) shape: &'a AttentionShape,
    pub(super) qkv: &'a [f32],
    pub(super) chunk: &'a Chunk<'a>,
    pub(super) head: usize,
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) out: Shared<f32>,
}

impl<S: Simd> Job<S> for Queries<'_> {
    #[inline(always)]
    unsafe fn run(self) {
        let mut first = self.first;
        let end = self.first + self.count;
        let mut single_until = first;
        while first < end {
            let count = if first < single_until { 1 } else { (end - first).min(S::QUERIES) };
            let finite = if count == 1 {
                self.tile::<S, 1>(first, 1)
            } else if S::QUERIES == 8 && count > 4 {
                self.tile::<S, 8>(first, count)
            } else {
                self.tile::<S, 4>(first, count)
            };
            if !finite && count > 1 {
                // A tile multiplies values that only its later queries attend to by a weight of
                // zero. That has no effect on finite values but turns infinities into NaN, so each
                // query is repeated alone.
                single_until = first + count;
            } else {
                first += count;
            }
        }
    }
}

/// State of `Q` queries: `[query][feature]` and `[query][slot]`.
#[repr(C, align(64))]
struct State<const Q: usize> {
    /// Multiplied by the scale.
    queries: [[f32; MAX_HEAD_DIM]; Q],
    sums: [[f32; MAX_HEAD_DIM]; Q],
    scores: [[f32; SLOTS]; Q],
    max: [f32; Q],
    weight: [f32; Q],
}

/// One span of a batch of spans: its keys and values, and the slots that are visible.
#[derive(Clone, Copy)]
struct VisibleSpan {
    keys: *const u16,
    values: *const u16,
    /// Slots that at least one query of the tile attends to: from `from` up to, but excluding,
    /// `tokens`.
    from: usize,
    tokens: usize,
    position: usize,
}

impl Queries<'_> {
    /// Computes a tile of queries. Returns true if all results are finite.
    #[inline(always)]
    unsafe fn tile<S: Simd, const Q: usize>(&self, first: usize, count: usize) -> bool {
        let Self { shape, chunk, .. } = *self;
        let (dim, group) = (shape.key_dim, shape.query_heads / shape.kv_heads);
        let row_of = |query: usize| (first + query.min(count - 1)) / group;
        let head_of = |query: usize| self.head * group + (first + query.min(count - 1)) % group;
        let mut state = MaybeUninit::<State<Q>>::uninit();
        // Only the features of the shape and the slots of a batch are written, and only those are
        // read.
        let state = &mut *state.as_mut_ptr();
        let mut positions = [0; Q];
        for (query, position) in positions.iter_mut().enumerate() {
            let row = row_of(query);
            *position = chunk.position + row;
            let from = (chunk.rows.start + row) * shape.qkv_columns() + head_of(query) * dim;
            for (to, value) in state.queries[query].iter_mut().zip(&self.qkv[from..from + dim]) {
                *to = value * shape.scale;
            }
            state.sums[query][..shape.value_dim.next_multiple_of(S::LANES)].fill(0.0);
            state.max[query] = -1e30;
            state.weight[query] = 0.0;
        }
        let window = shape.window.unwrap_or(usize::MAX);
        let seen_from = (positions[0] + 1).saturating_sub(window);
        let seen_to = positions[Q - 1] + 1;

        let mut batch = [VisibleSpan {
            keys: std::ptr::null(),
            values: std::ptr::null(),
            from: 0,
            tokens: 0,
            position: 0,
        }; SPANS];
        let mut spans = 0;
        let mut position = 0;
        for span in chunk.spans {
            if position >= seen_to {
                break;
            }
            if position + span.tokens > seen_from && span.tokens > 0 {
                let head = span.block[shape.head_elements() * self.head..].as_ptr().cast::<u16>();
                batch[spans] = VisibleSpan {
                    keys: head,
                    values: head.add(dim * BLOCK_TOKENS),
                    from: seen_from.saturating_sub(position),
                    tokens: span.tokens.min(seen_to - position),
                    position,
                };
                spans += 1;
                if spans == SPANS {
                    add_batch::<S, Q>(state, &batch, shape, &positions);
                    spans = 0;
                }
            }
            position += span.tokens;
        }
        if spans > 0 {
            add_batch::<S, Q>(state, &batch[..spans], shape, &positions);
        }
        let mut finite = true;
        for query in 0..count {
            let at =
                (chunk.rows.start + row_of(query)) * shape.out_columns() + head_of(query) * shape.value_dim;
            let out = std::slice::from_raw_parts_mut(self.out.get().add(at), shape.value_dim);
            let inverse = 1.0 / state.weight[query];
            for (value, sum) in out.iter_mut().zip(&state.sums[query]) {
                *value = sum * inverse;
                finite &= value.is_finite();
            }
        }
        finite
    }
}

/// Adds a batch of spans to the state of the queries.
#[inline(always)]
unsafe fn add_batch<S: Simd, const Q: usize>(
    state: &mut State<Q>,
    batch: &[VisibleSpan],
    shape: &AttentionShape,
    positions: &[usize; Q],
) {
    score::<S, Q>(state, batch, shape.key_dim);
    let window = shape.window.unwrap_or(usize::MAX);
    let slots = batch.len() * BLOCK_TOKENS;
    if let Some(cap) = shape.soft_cap {
        for scores in &mut state.scores {
            for slot in (0..slots).step_by(S::LANES) {
                let at = scores.as_mut_ptr().add(slot);
                S::store_f32(at, soft_capped::<S>(S::load_f32(at), cap));
            }
        }
    }
    for (query, &own) in positions.iter().enumerate() {
        let scores = &mut state.scores[query];
        for (visible, scores) in batch.iter().zip(scores.chunks_exact_mut(BLOCK_TOKENS)) {
            let from = (own + 1).saturating_sub(window).saturating_sub(visible.position).min(visible.tokens);
            let to = (own + 1).saturating_sub(visible.position).clamp(from, visible.tokens);
            if to - from < BLOCK_TOKENS {
                scores[..from].fill(f32::NEG_INFINITY);
                scores[to..].fill(f32::NEG_INFINITY);
            }
        }
        let mut max = S::splat(state.max[query]);
        for slot in (0..slots).step_by(S::LANES) {
            max = S::max(max, S::load_f32(scores.as_ptr().add(slot)));
        }
        let max = S::reduce_max(max);
        if max > state.max[query] {
            let shrink = S::reduce_max(S::exp(S::splat(state.max[query] - max)));
            state.max[query] = max;
            state.weight[query] *= shrink;
            let sums = state.sums[query].as_mut_ptr();
            for d in (0..shape.value_dim).step_by(S::LANES) {
                S::store_f32(sums.add(d), S::mul(S::load_f32(sums.add(d)), S::splat(shrink)));
            }
        }
        let max = S::splat(state.max[query]);
        let mut total = S::splat(0.0);
        for slot in (0..slots).step_by(S::LANES) {
            let at = scores.as_mut_ptr().add(slot);
            let weight = S::exp(S::sub(S::load_f32(at), max));
            total = S::add(total, weight);
            S::store_f32(at, weight);
        }
        state.weight[query] += S::reduce_add(total);
    }
    add_values::<S, Q>(state, batch, shape.value_dim);
}

/// Computes the scores of all slots of a batch, several vectors of keys at a time. A single query
/// uses more vectors, to keep the multipliers busy.
#[inline(always)]
unsafe fn score<S: Simd, const Q: usize>(state: &mut State<Q>, batch: &[VisibleSpan], dim: usize) {
    if Q == 1 {
        score_vectors::<S, Q, 4>(state, batch, dim);
    } else {
        score_vectors::<S, Q, 2>(state, batch, dim);
    }
}

#[inline(always)]
unsafe fn score_vectors<S: Simd, const Q: usize, const V: usize>(
    state: &mut State<Q>,
    batch: &[VisibleSpan],
    dim: usize,
) {
    let vectors = batch.len() * BLOCK_TOKENS / S::LANES;
    for vector in (0..vectors).step_by(V) {
        let mut keys = [std::ptr::null(); V];
        for v in 0..V {
            let slot = (vector + v).min(vectors - 1) * S::LANES;
            keys[v] = batch[slot / BLOCK_TOKENS].keys.add(slot % BLOCK_TOKENS);
        }
        let mut sums = [[S::splat(0.0); Q]; V];
        for d in 0..dim {
            let mut loaded = [S::splat(0.0); V];
            for v in 0..V {
                loaded[v] = S::load_f16(keys[v].add(d * BLOCK_TOKENS));
            }
            for query in 0..Q {
                let value = S::splat(*state.queries.get_unchecked(query).get_unchecked(d));
                for v in 0..V {
                    sums[v][query] = S::mul_add(value, loaded[v], sums[v][query]);
                }
            }
        }
        for query in 0..Q {
            for v in 0..V.min(vectors - vector) {
                S::store_f32(state.scores[query].as_mut_ptr().add((vector + v) * S::LANES), sums[v][query]);
            }
        }
    }
}

/// Adds the weighted values of a batch, several vectors of features at a time.
#[inline(always)]
unsafe fn add_values<S: Simd, const Q: usize>(state: &mut State<Q>, batch: &[VisibleSpan], dim: usize) {
    let whole = dim - dim % S::LANES;
    let mut d = 0;
    macro_rules! while_whole {
        ($vectors:literal) => {
            while d + $vectors * S::LANES <= whole {
                add_features::<S, Q, $vectors>(state, batch, dim, d);
                d += $vectors * S::LANES;
            }
        };
    }
    if Q == 1 {
        while_whole!(6);
        while_whole!(4);
    }
    while_whole!(2);
    while_whole!(1);
    for d in whole..dim {
        for query in 0..Q {
            for (visible, weights) in batch.iter().zip(state.scores[query].chunks_exact(BLOCK_TOKENS)) {
                for token in visible.from..visible.tokens {
                    let value = f16::from_bits(*visible.values.add(token * dim + d)).to_f32();
                    state.sums[query][d] += weights[token] * value;
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn add_features<S: Simd, const Q: usize, const V: usize>(
    state: &mut State<Q>,
    batch: &[VisibleSpan],
    dim: usize,
    d: usize,
) {
    let mut sums = [[S::splat(0.0); Q]; V];
    for query in 0..Q {
        for v in 0..V {
            sums[v][query] = S::load_f32(state.sums[query].as_ptr().add(d + v * S::LANES));
        }
    }
    for (index, visible) in batch.iter().enumerate() {
        let weights = state.scores.as_ptr().cast::<f32>().add(index * BLOCK_TOKENS);
        for token in visible.from..visible.tokens {
            let mut values = [S::splat(0.0); V];
            for (v, value) in values.iter_mut().enumerate() {
                *value = S::load_f16(visible.values.add(token * dim + d + v * S::LANES));
            }
            for query in 0..Q {
                let weight = S::splat(*weights.add(query * SLOTS + token));
                for v in 0..V {
                    sums[v][query] = S::mul_add(weight, values[v], sums[v][query]);
                }
            }
        }
    }
    for query in 0..Q {
        for v in 0..V {
            S::store_f32(state.sums[query].as_mut_ptr().add(d + v * S::LANES), sums[v][query]);
        }
    }
}
