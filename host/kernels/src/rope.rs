//! Rotary position embedding of queries and keys, and storage of keys and values in KV blocks.

use std::ops::Range;

use crate::attention::{AttentionShape, BLOCK_TOKENS, store_head};
use crate::norm::rms_norm_in_place;
use crate::pool::Pool;
use crate::shared::Shared;
use crate::simd::dispatch::{InstructionSet, with_simd};
use crate::simd::{Job, Simd};

/// Pairing of the features that are rotated together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RopeStyle {
    /// Adjacent features `2 i` and `2 i + 1`, as in Llama's GGUF files.
    Pairs,
    /// Features `i` and `i + dims / 2`, as in GPT-NeoX, Phi-3 and Qwen2.
    Halves,
}

/// Cosines and sines of the prepared positions (Su et al. 2021, with the factors and the scale of
/// LongRoPE for models that have them).
pub struct Rope {
    style: RopeStyle,
    /// Rotation per position in radians, for each pair of features.
    frequencies: Vec<f64>,
    scale: f64,
    max_positions: usize,
    /// `(positions, dims / 2)`
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl Rope {
    /// Prepares `theta_i = position * base^(-2i / dims) / factors[i]` for the first `dims` features
    /// of a head. Cosines and sines are multiplied by `attention_scale`. The tables are empty until
    /// [`Rope::prepare`].
    ///
    /// # Panics
    /// If there are fewer than `dims / 2` factors.
    pub fn new(
        style: RopeStyle,
        dims: usize,
        base: f32,
        factors: Option<&[f32]>,
        attention_scale: f32,
        max_positions: usize,
    ) -> Self {
        let half = dims / 2;
        assert!(factors.is_none_or(|factors| factors.len() >= half), "rope factors of {dims} dimensions");
        let frequency = |i: usize| {
            let turn = f64::from(base).powf(-2.0 * i as f64 / dims as f64);
            factors.map_or(turn, |factors| turn / f64::from(factors[i]))
        };
        let frequencies = (0..half).map(frequency).collect();
        let scale = f64::from(attention_scale);
        Self { style, frequencies, scale, max_positions, cosines: Vec::new(), sines: Vec::new() }
    }

    /// Extends the tables to `positions` positions, at most `max_positions`.
    pub fn prepare(&mut self, positions: usize) {
        if self.frequencies.is_empty() {
            return;
        }
        let ready = self.cosines.len() / self.frequencies.len();
        let needed = positions.min(self.max_positions);
        if needed <= ready {
            return;
        }
        // Grow by at least half, so that single steps do not copy the table each time.
        let until = needed.max(ready + ready / 2).min(self.max_positions);
        for position in ready..until {
            for frequency in &self.frequencies {
                let (sine, cosine) = (position as f64 * frequency).sin_cos();
                self.cosines.push((cosine * self.scale) as f32);
                self.sines.push((sine * self.scale) as f32);
            }
        }
    }

    fn tables(&self, position: usize) -> (&[f32], &[f32]) {
        let half = self.frequencies.len();
        let at = position * half..(position + 1) * half;
        (&self.cosines[at.clone()], &self.sines[at])
    }

    /// Rotates one head.
    #[inline(always)]
    fn rotate(&self, position: usize, head: &mut [f32]) {
        let (cosines, sines) = self.tables(position);
        let half = cosines.len();
        match self.style {
            RopeStyle::Halves => {
                let (first, second) = head[..2 * half].split_at_mut(half);
                for i in 0..half {
                    let (a, b) = (first[i], second[i]);
                    first[i] = a * cosines[i] - b * sines[i];
                    second[i] = a * sines[i] + b * cosines[i];
                }
            }
            RopeStyle::Pairs => {
                for (i, pair) in head[..2 * half].chunks_exact_mut(2).enumerate() {
                    let (a, b) = (pair[0], pair[1]);
                    pair[0] = a * cosines[i] - b * sines[i];
                    pair[1] = a * sines[i] + b * cosines[i];
                }
            }
        }
    }
}

/// RMS norms of each head of queries and of keys, before their rotation (QK-norm).
#[derive(Clone, Copy)]
pub struct HeadNorms<'a> {
    /// Weights of a query head, of length `key_dim`.
    pub queries: &'a [f32],
    /// Weights of a key head, of length `key_dim`.
    pub keys: &'a [f32],
    /// Added to the mean of squares.
    pub epsilon: f32,
}

/// Destination of consecutive rows of one sequence.
pub struct Destination<'a> {
    /// Rows in `qkv`.
    pub rows: Range<usize>,
    /// Position of the first row in its sequence.
    pub position: usize,
    /// Slot of the first row in the block.
    pub slot: usize,
    /// One layer of one block, of length [`AttentionShape::layer_bytes`].
    pub block: &'a mut [u8],
}

/// Normalises queries and keys if `norms` are given, rotates them in place in `qkv`, `(rows,
/// qkv_columns)` (query heads, key heads, value heads), and stores keys and values in their blocks.
/// Rows of `qkv` without a destination are not modified.
///
/// # Panics
/// If a destination exceeds `qkv`, its block or the prepared positions, if two share a row, or if
/// the norms have another length.
pub fn rope_and_store(
    pool: &Pool,
    shape: &AttentionShape,
    rope: &Rope,
    norms: Option<HeadNorms<'_>>,
    qkv: &mut [f32],
    destinations: &mut [Destination<'_>],
) {
    check(shape, rope, qkv, destinations);
    let fits = norms.is_none_or(|norms| [norms.queries, norms.keys].iter().all(|w| w.len() == shape.key_dim));
    assert!(fits, "norms of heads: expected {} weights", shape.key_dim);
    let columns = shape.qkv_columns();
    let qkv = Shared::new(qkv);
    let set = InstructionSet::chosen();
    let all = Shared::new(destinations);
    pool.run(destinations.len(), |task| {
        // SAFETY: each task uses only the destination with its own index.
        let destination = unsafe { &mut *all.get().add(task) };
        let len = destination.rows.len() * columns;
        // SAFETY: the rows are inside `qkv`, and destinations do not share rows.
        let rows =
            unsafe { std::slice::from_raw_parts_mut(qkv.get().add(destination.rows.start * columns), len) };
        let job = StoreRows {
            shape,
            rope,
            norms,
            rows,
            position: destination.position,
            slot: destination.slot,
            block: &mut *destination.block,
        };
        // SAFETY: `set` is available.
        unsafe { with_simd!(set, S => <S as Simd>::enter(job)) };
    });
}

fn check(shape: &AttentionShape, rope: &Rope, qkv: &[f32], destinations: &[Destination<'_>]) {
    shape.check();
    let columns = shape.qkv_columns();
    let dims = rope.frequencies.len() * 2;
    assert!(dims <= shape.key_dim, "rope of {dims} dimensions for heads of {}", shape.key_dim);
    let mut ranges: Vec<(usize, usize)> =
        destinations.iter().map(|to| (to.rows.start, to.rows.end)).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|two| two[0].1 <= two[1].0), "destinations share rows");
    for to in destinations {
        assert!(
            to.rows.start <= to.rows.end && to.rows.end <= qkv.len() / columns,
            "destination of rows {:?}",
            to.rows
        );
        assert!(
            to.slot <= BLOCK_TOKENS && to.rows.len() <= BLOCK_TOKENS - to.slot,
            "rows of a destination in one block"
        );
        assert_eq!(to.block.len(), shape.layer_bytes(), "length of a block's layer");
        let ready = rope.cosines.len().checked_div(rope.frequencies.len()).unwrap_or(usize::MAX);
        assert!(
            to.position.checked_add(to.rows.len()).is_some_and(|end| end <= ready),
            "positions are prepared"
        );
    }
}

struct StoreRows<'a> {
    shape: &'a AttentionShape,
    rope: &'a Rope,
    norms: Option<HeadNorms<'a>>,
    rows: &'a mut [f32],
    position: usize,
    slot: usize,
    block: &'a mut [u8],
}

impl<S: Simd> Job<S> for StoreRows<'_> {
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn, reason = "vector code")]
    unsafe fn run(self) {
        let Self { shape, rope, norms, rows, position, slot, block } = self;
        let AttentionShape { query_heads, kv_heads, key_dim, value_dim, .. } = *shape;
        for (i, row) in rows.chunks_exact_mut(shape.qkv_columns()).enumerate() {
            let heads = row[..(query_heads + kv_heads) * key_dim].chunks_exact_mut(key_dim);
            for (head, values) in heads.enumerate() {
                if let Some(HeadNorms { queries, keys, epsilon }) = norms {
                    let weight = if head < query_heads { queries } else { keys };
                    rms_norm_in_place::<S>(values, weight, epsilon);
                }
                rope.rotate(position + i, values);
            }
            let (keys, values) = row[shape.query_columns()..].split_at(kv_heads * key_dim);
            let heads = keys.chunks_exact(key_dim).zip(values.chunks_exact(value_dim));
            let parts = block.chunks_exact_mut(shape.layer_bytes() / kv_heads);
            for ((keys, values), part) in heads.zip(parts) {
                store_head::<S>(shape, part, slot + i, keys, values);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    /// The f16 number at `index`.
    fn half_at(block: &[u8], index: usize) -> f16 {
        f16::from_le_bytes([block[2 * index], block[2 * index + 1]])
    }

    /// Rotates one head of four features at `position` and returns it.
    fn rotated(
        style: RopeStyle,
        dims: usize,
        factors: Option<&[f32]>,
        scale: f32,
        position: usize,
    ) -> Vec<f32> {
        let shape = AttentionShape::new(1, 1, 4);
        let mut rope = Rope::new(style, dims, 100.0, factors, scale, 64);
        rope.prepare(position + 1);
        let mut qkv = vec![1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0, 0.5, 0.25, 0.125, 8.0];
        let mut block = vec![0; shape.layer_bytes()];
        let destination = Destination { rows: 0..1, position, slot: 5, block: &mut block };
        rope_and_store(&Pool::new(1).unwrap(), &shape, &rope, None, &mut qkv, &mut [destination]);
        for d in 0..4 {
            assert_eq!(
                half_at(&block, d * BLOCK_TOKENS + 5),
                f16::from_f32(qkv[4 + d]),
                "rotated keys are stored"
            );
        }
        let values: Vec<f32> =
            (5 * 4..6 * 4).map(|index| half_at(&block, 4 * BLOCK_TOKENS + index).to_f32()).collect();
        assert_eq!(values, [0.5, 0.25, 0.125, 8.0], "values are stored unchanged");
        assert_eq!(block.chunks_exact(2).filter(|value| **value != [0, 0]).count(), 8, "and nothing else");
        assert_eq!(qkv[..4], qkv[4..8], "queries and keys are rotated equally");
        qkv[..4].to_vec()
    }

    #[test]
    fn rows_rotate_by_position() {
        // Angles at position 3: 3 · 100^0 = 3 and 3 · 100^(-2/4) = 0.3; with factors 2 and 3, 1.5
        // and 0.1.
        let turn = |a: f32, b: f32, angle: f32| {
            (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos())
        };
        let (pairs, halves) =
            ([turn(1.0, 2.0, 3.0), turn(3.0, 4.0, 0.3)], [turn(1.0, 3.0, 3.0), turn(2.0, 4.0, 0.3)]);
        let longer = [turn(1.0, 3.0, 1.5), turn(2.0, 4.0, 0.1)];
        let partial = turn(1.0, 2.0, 3.0);
        let factors = [2.0f32, 3.0];
        let cases = [
            (rotated(RopeStyle::Pairs, 4, None, 1.0, 3), [pairs[0].0, pairs[0].1, pairs[1].0, pairs[1].1]),
            (
                rotated(RopeStyle::Halves, 4, None, 1.0, 3),
                [halves[0].0, halves[1].0, halves[0].1, halves[1].1],
            ),
            (
                rotated(RopeStyle::Halves, 4, Some(&factors), 2.0, 3),
                [longer[0].0 * 2.0, longer[1].0 * 2.0, longer[0].1 * 2.0, longer[1].1 * 2.0],
            ),
            (rotated(RopeStyle::Halves, 2, None, 1.0, 3), [partial.0, partial.1, 3.0, 4.0]),
            (rotated(RopeStyle::Pairs, 4, None, 1.0, 0), [1.0, 2.0, 3.0, 4.0]),
        ];
        for (i, (found, expected)) in cases.iter().enumerate() {
            assert!(
                found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-6),
                "case {i}: {found:?}, {expected:?}"
            );
        }
    }

    #[test]
    fn heads_are_normalised_before_rotation() {
        let shape = AttentionShape { value_dim: 2, ..AttentionShape::new(1, 1, 4) };
        let norms = HeadNorms { queries: &[1.0, 2.0, 3.0, 4.0], keys: &[0.5; 4], epsilon: 0.5 };
        let mut rope = Rope::new(RopeStyle::Pairs, 2, 100.0, None, 1.0, 64);
        rope.prepare(4);
        let mut qkv = [1.0, 2.0, 3.0, 4.0, -1.0, 2.0, -3.0, 4.0, 0.5, 0.25];
        let mut block = vec![0; shape.layer_bytes()];
        let destination = Destination { rows: 0..1, position: 3, slot: 5, block: &mut block };
        rope_and_store(&Pool::new(1).unwrap(), &shape, &rope, Some(norms), &mut qkv, &mut [destination]);
        // The mean square of a head is 30 / 4; the first two features turn by an angle of 3.
        let scale = 1.0 / (7.5f32 + 0.5).sqrt();
        let turn = |a: f32, b: f32| [a * 3f32.cos() - b * 3f32.sin(), a * 3f32.sin() + b * 3f32.cos()];
        let (query, key) = (turn(scale, 4.0 * scale), turn(-0.5 * scale, scale));
        let expected =
            [query[0], query[1], 9.0 * scale, 16.0 * scale, key[0], key[1], -1.5 * scale, 2.0 * scale];
        for (found, expected) in qkv.iter().zip(expected) {
            assert!((found - expected).abs() < 2e-6, "{found}, expected {expected}");
        }
        for d in 0..4 {
            assert_eq!(
                half_at(&block, d * BLOCK_TOKENS + 5),
                f16::from_f32(qkv[4 + d]),
                "normalised keys are stored"
            );
        }
        let values = [5 * 2, 5 * 2 + 1].map(|index| half_at(&block, 4 * BLOCK_TOKENS + index));
        assert_eq!(values, [0.5, 0.25].map(f16::from_f32), "values are stored unchanged");
    }

    #[test]
    fn tables_stop_at_max_positions() {
        let mut rope = Rope::new(RopeStyle::Halves, 8, 10_000.0, None, 1.0, 10);
        rope.prepare(usize::MAX);
        assert_eq!(rope.cosines.len(), 10 * 4);
    }

    #[test]
    #[should_panic(expected = "destinations share rows")]
    fn rows_in_shared_blocks_panic() {
        let shape = AttentionShape::new(1, 1, 2);
        let mut rope = Rope::new(RopeStyle::Halves, 2, 10_000.0, None, 1.0, 10);
        rope.prepare(10);
        let mut blocks = vec![vec![0; shape.layer_bytes()]; 2];
        let mut destinations: Vec<Destination<'_>> =
            blocks.iter_mut().map(|block| Destination { rows: 0..1, position: 0, slot: 0, block }).collect();
        rope_and_store(&Pool::new(2).unwrap(), &shape, &rope, None, &mut [0.0; 12], &mut destinations);
    }
}
