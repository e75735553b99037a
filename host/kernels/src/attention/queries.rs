//! One task of attention: several queries that share a KV head, against all of their spans.
#![allow(clippy::needless_range_loop, reason = "register tiles are indexed by number")]
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code; each function documents its contract")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::element::{Byte, Element, Half};
use super::shape::{AttentionShape, BLOCK_TOKENS, Chunk, KEY_GROUP, KvType, Offsets};
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
        match self.shape.kv_type {
            KvType::F16 => self.tiles::<S, Half>(),
            KvType::Int8 => self.tiles::<S, Byte>(),
        }
    }
}

impl Queries<'_> {
    #[inline(always)]
    unsafe fn tiles<S: Simd, E: Element>(&self) {
        let mut first = self.first;
        let end = self.first + self.count;
        let mut single_until = first;
        while first < end {
            let count = if first < single_until { 1 } else { (end - first).min(S::QUERIES) };
            let finite = if count == 1 {
                self.tile::<S, E, 1>(first, 1)
            } else if S::QUERIES == 8 && count > 4 {
                self.tile::<S, E, 8>(first, count)
            } else {
                self.tile::<S, E, 4>(first, count)
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
    keys: *const u8,
    values: *const u8,
    key_scales: *const f32,
    value_scales: *const f32,
    /// Slots that at least one query of the tile attends to: from `from` up to, but excluding,
    /// `tokens`.
    from: usize,
    tokens: usize,
    position: usize,
}

impl Queries<'_> {
    /// Computes a tile of queries. Returns true if all results are finite.
    #[inline(always)]
    unsafe fn tile<S: Simd, E: Element, const Q: usize>(&self, first: usize, count: usize) -> bool {
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
            key_scales: std::ptr::null(),
            value_scales: std::ptr::null(),
            from: 0,
            tokens: 0,
            position: 0,
        }; SPANS];
        let mut spans = 0;
        let mut position = 0;
        let Offsets { values, key_scales, value_scales, end } = shape.offsets();
        for (index, span) in chunk.spans.iter().enumerate() {
            if position >= seen_to {
                break;
            }
            if position + span.tokens > seen_from && span.tokens > 0 {
                let head = span.block[end * self.head..].as_ptr();
                batch[spans] = VisibleSpan {
                    keys: head,
                    values: head.add(values),
                    key_scales: head.add(key_scales).cast(),
                    value_scales: head.add(value_scales).cast(),
                    from: seen_from.saturating_sub(position),
                    tokens: span.tokens.min(seen_to - position),
                    position,
                };
                spans += 1;
            }
            // The same spans form a batch for every query, whatever its window and its tile, so
            // that results do not depend on the tile.
            if index % SPANS == SPANS - 1 && spans > 0 {
                add_batch::<S, E, Q>(state, &batch[..spans], shape, &positions);
                spans = 0;
            }
            position += span.tokens;
        }
        if spans > 0 {
            add_batch::<S, E, Q>(state, &batch[..spans], shape, &positions);
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
unsafe fn add_batch<S: Simd, E: Element, const Q: usize>(
    state: &mut State<Q>,
    batch: &[VisibleSpan],
    shape: &AttentionShape,
    positions: &[usize; Q],
) {
    score::<S, E, Q>(state, batch, shape.key_dim);
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
        let seen = (own + 1).saturating_sub(window)..own + 1;
        hide(batch, &seen, scores, f32::NEG_INFINITY);
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
        let mut totals = [0.0f32; BLOCK_TOKENS];
        for part in (0..BLOCK_TOKENS).step_by(S::LANES) {
            let mut total = S::splat(0.0);
            for (visible, scores) in batch.iter().zip(scores.chunks_exact_mut(BLOCK_TOKENS)) {
                let at = scores.as_mut_ptr().add(part);
                let mut weight = S::exp(S::sub(S::load_f32(at), max));
                total = S::add(total, weight);
                if E::SCALED {
                    weight = S::mul(weight, S::load_f32(visible.value_scales.add(part)));
                }
                S::store_f32(at, weight);
            }
            S::store_f32(totals.as_mut_ptr().add(part), total);
        }
        state.weight[query] += sum(totals);
        hide(batch, &seen, scores, 0.0);
    }
    add_values::<S, E, Q>(state, batch, shape.value_dim);
}

/// Sets the slots of positions that a query does not attend to.
#[inline(always)]
fn hide(batch: &[VisibleSpan], seen: &Range<usize>, scores: &mut [f32; SLOTS], value: f32) {
    for (visible, scores) in batch.iter().zip(scores.chunks_exact_mut(BLOCK_TOKENS)) {
        let from = seen.start.saturating_sub(visible.position).min(visible.tokens);
        let to = seen.end.saturating_sub(visible.position).clamp(from, visible.tokens);
        if to - from < BLOCK_TOKENS {
            scores[..from].fill(value);
            scores[to..].fill(value);
        }
    }
}

/// The sum, in the same order with every instruction set.
#[inline(always)]
fn sum(mut totals: [f32; BLOCK_TOKENS]) -> f32 {
    let mut half = BLOCK_TOKENS / 2;
    while half > 0 {
        for i in 0..half {
            totals[i] += totals[i + half];
        }
        half /= 2;
    }
    totals[0]
}

/// Computes the scores of all slots of a batch, several vectors of keys at a time. A single query
/// uses more vectors, to keep the multipliers busy.
#[inline(always)]
unsafe fn score<S: Simd, E: Element, const Q: usize>(
    state: &mut State<Q>,
    batch: &[VisibleSpan],
    dim: usize,
) {
    if Q == 1 {
        score_vectors::<S, E, Q, 4>(state, batch, dim);
    } else {
        score_vectors::<S, E, Q, 2>(state, batch, dim);
    }
}

#[inline(always)]
unsafe fn score_vectors<S: Simd, E: Element, const Q: usize, const V: usize>(
    state: &mut State<Q>,
    batch: &[VisibleSpan],
    dim: usize,
) {
    let vectors = batch.len() * BLOCK_TOKENS / S::LANES;
    let group = if E::SCALED { KEY_GROUP } else { dim };
    for vector in (0..vectors).step_by(V) {
        let mut keys = [std::ptr::null(); V];
        let mut scales = [std::ptr::null(); V];
        for v in 0..V {
            let slot = (vector + v).min(vectors - 1) * S::LANES;
            let visible = &batch[slot / BLOCK_TOKENS];
            keys[v] = visible.keys.add(slot % BLOCK_TOKENS * E::BYTES);
            scales[v] = visible.key_scales.wrapping_add(slot % BLOCK_TOKENS);
        }
        for begin in (0..dim).step_by(group) {
            let mut sums = [[S::splat(0.0); Q]; V];
            for d in begin..dim.min(begin + group) {
                let mut loaded = [S::splat(0.0); V];
                for v in 0..V {
                    loaded[v] = E::load::<S>(keys[v].add(d * BLOCK_TOKENS * E::BYTES));
                }
                for query in 0..Q {
                    let value = S::splat(*state.queries.get_unchecked(query).get_unchecked(d));
                    for v in 0..V {
                        sums[v][query] = S::mul_add(value, loaded[v], sums[v][query]);
                    }
                }
            }
            for v in 0..V.min(vectors - vector) {
                for query in 0..Q {
                    let at = state.scores[query].as_mut_ptr().add((vector + v) * S::LANES);
                    let mut score = sums[v][query];
                    if E::SCALED {
                        let scale = S::load_f32(scales[v].add(begin / KEY_GROUP * BLOCK_TOKENS));
                        score = match begin {
                            0 => S::mul(score, scale),
                            _ => S::mul_add(score, scale, S::load_f32(at)),
                        };
                    }
                    S::store_f32(at, score);
                }
            }
        }
    }
}

/// Adds the weighted values of a batch, several vectors of features at a time.
#[inline(always)]
unsafe fn add_values<S: Simd, E: Element, const Q: usize>(
    state: &mut State<Q>,
    batch: &[VisibleSpan],
    dim: usize,
) {
    let whole = dim - dim % S::LANES;
    let mut d = 0;
    macro_rules! while_whole {
        ($vectors:literal) => {
            while d + $vectors * S::LANES <= whole {
                add_features::<S, E, Q, $vectors>(state, batch, dim, d);
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
                    let value = E::load_one(visible.values.add((token * dim + d) * E::BYTES));
                    state.sums[query][d] = weights[token].mul_add(value, state.sums[query][d]);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn add_features<S: Simd, E: Element, const Q: usize, const V: usize>(
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
                *value = E::load::<S>(visible.values.add((token * dim + d + v * S::LANES) * E::BYTES));
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
