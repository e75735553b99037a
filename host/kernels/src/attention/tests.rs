use std::ops::Range;

use half::f16;

use super::*;
use crate::rope::{Destination, Rope, RopeStyle, rope_and_store};
use crate::testing::Random;

/// A sequence in blocks that are filled according to `fills`, and its keys and values in f32.
struct Sequence {
    blocks: Vec<Vec<u8>>,
    fills: Vec<usize>,
    /// Rows of all positions after `rope_and_store`.
    rows: Vec<f32>,
}

impl Sequence {
    fn spans(&self) -> Vec<Span<'_>> {
        self.blocks.iter().zip(&self.fills).map(|(block, &tokens)| Span { tokens, block }).collect()
    }
}

/// Stores random rows at `positions` positions. Blocks are filled completely or to random lengths.
fn sequence(
    pool: &Pool,
    shape: &AttentionShape,
    rope: &Rope,
    random: &mut Random,
    positions: usize,
    full: bool,
) -> Sequence {
    let mut rows = random.values(positions * shape.qkv_columns());
    let (mut blocks, mut fills) = (Vec::new(), Vec::new());
    while fills.iter().sum::<usize>() < positions {
        let left = positions - fills.iter().sum::<usize>();
        fills.push(left.min(if full { BLOCK_TOKENS } else { 1 + random.below(BLOCK_TOKENS) }));
        // Unfilled slots are NaN in f16, and have scales of NaN in int8: reading one makes the test
        // fail.
        blocks.push(vec![0xff; shape.layer_bytes()]);
    }
    let mut position = 0;
    let mut destinations: Vec<Destination<'_>> = Vec::new();
    for (block, &fill) in blocks.iter_mut().zip(&fills) {
        destinations.push(Destination { rows: position..position + fill, position, slot: 0, block });
        position += fill;
    }
    rope_and_store(pool, shape, rope, None, &mut rows, &mut destinations);
    Sequence { blocks, fills, rows }
}

/// The rows with keys and values as blocks hold them: rounded to f16, or to 127 steps of the
/// largest magnitude of a head or of 32 features of a key.
fn stored(shape: &AttentionShape, rows: &[f32]) -> Vec<f32> {
    let mut rows = rows.to_vec();
    for row in rows.chunks_exact_mut(shape.qkv_columns()) {
        let (keys, values) = row[shape.query_columns()..].split_at_mut(shape.kv_heads * shape.key_dim);
        if shape.kv_type == KvType::F16 {
            keys.iter_mut().chain(values).for_each(|value| *value = f16::from_f32(*value).to_f32());
            continue;
        }
        let keys = keys.chunks_exact_mut(shape.key_dim).flat_map(|head| head.chunks_mut(32));
        for group in keys.chain(values.chunks_exact_mut(shape.value_dim)) {
            let largest = group.iter().fold(0.0f32, |max, value| max.max(value.abs()));
            let (scale, inverse) = (largest / 127.0, 127.0 / largest.max(1e-30));
            group.iter_mut().for_each(|value| *value = (*value * inverse).round_ties_even() * scale);
        }
    }
    rows
}

/// Computes attention in f64 from the rows.
fn exact(shape: &AttentionShape, rows: &[f32], position: usize) -> Vec<f64> {
    let (dim, columns) = (shape.key_dim, shape.qkv_columns());
    let group = shape.query_heads / shape.kv_heads;
    let from = (position + 1).saturating_sub(shape.window.unwrap_or(usize::MAX));
    let mut out = Vec::new();
    for head in 0..shape.query_heads {
        let query = &rows[position * columns + head * dim..][..dim];
        let key = |at: usize| &rows[at * columns + (shape.query_heads + head / group) * dim..][..dim];
        let first = (shape.query_heads + shape.kv_heads) * dim + head / group * shape.value_dim;
        let value = |at: usize| &rows[at * columns + first..][..shape.value_dim];
        let scores: Vec<f64> = (from..=position)
            .map(|at| {
                let product: f64 =
                    query.iter().zip(key(at)).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                let score = product * f64::from(shape.scale);
                let cap = shape.soft_cap.map(f64::from);
                cap.map_or(score, |cap| cap * (score / cap).tanh())
            })
            .collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        for d in 0..shape.value_dim {
            let sum: f64 =
                weights.iter().enumerate().map(|(i, weight)| weight * f64::from(value(from + i)[d])).sum();
            out.push(sum / total);
        }
    }
    out
}

/// The shape with blocks of each type.
fn of_both_types(shape: AttentionShape) -> [AttentionShape; 2] {
    KvType::ALL.map(|kv_type| AttentionShape { kv_type, ..shape })
}

#[test]
fn attention_matches_reference_on_every_set() {
    let mut random = Random::new(3);
    let pool = Pool::new(2).unwrap();
    let windowed = |window, shape| AttentionShape { window: Some(window), ..shape };
    let shapes = [
        AttentionShape::new(4, 4, 96),
        AttentionShape::new(6, 2, 64),
        windowed(20, AttentionShape::new(8, 1, 128)),
        windowed(1, AttentionShape::new(3, 3, 80)),
        AttentionShape::new(7, 1, 64),
        AttentionShape::new(2, 1, 6),
        windowed(33, AttentionShape::new(2, 2, 256)),
        AttentionShape { value_dim: 32, scale: 0.3, ..AttentionShape::new(4, 2, 80) },
        AttentionShape { value_dim: 128, soft_cap: Some(1.5), ..AttentionShape::new(6, 2, 64) },
        windowed(20, AttentionShape { soft_cap: Some(0.5), scale: 1.0, ..AttentionShape::new(1, 1, 10) }),
    ];
    for shape in shapes.into_iter().flat_map(of_both_types) {
        let columns = shape.out_columns();
        let mut rope = Rope::new(RopeStyle::Halves, shape.key_dim, 10_000.0, None, 1.0, 4096);
        rope.prepare(300);
        for (positions, full) in [(1, true), (17, false), (64, true), (65, true), (150, false)] {
            let sequence = sequence(&pool, &shape, &rope, &mut random, positions, full);
            let spans = sequence.spans();
            let stored = stored(&shape, &sequence.rows);
            // All positions in two runs, and the last position alone, as in a decode step.
            let middle = positions / 2;
            let last = positions - 1;
            for runs in [vec![0..middle, middle..positions], vec![last..positions; 1]] {
                let chunks: Vec<Chunk<'_>> = runs
                    .iter()
                    .map(|rows| Chunk { rows: rows.clone(), position: rows.start, spans: &spans })
                    .collect();
                for set in InstructionSet::available() {
                    let mut out = vec![7.0f32; positions * columns];
                    attention_on(set, &pool, &shape, &sequence.rows, &chunks, &mut out);
                    for position in runs.iter().flat_map(Clone::clone) {
                        let expected = exact(&shape, &stored, position);
                        let out = &out[position * columns..][..columns];
                        for (i, (&value, expected)) in out.iter().zip(&expected).enumerate() {
                            let error = (f64::from(value) - expected).abs();
                            assert!(
                                error < 5e-6,
                                "{} {shape:?} position {position} of {positions}, {i}: {value}, expected {expected}",
                                set.name()
                            );
                        }
                    }
                    assert!(out[..runs[0].start * columns].iter().all(|&value| value == 7.0), "other rows");
                }
            }
        }
    }
}

#[test]
fn branches_share_the_blocks_of_their_prefix() {
    of_both_types(AttentionShape::new(4, 2, 64)).into_iter().for_each(branches_share_blocks);
}

fn branches_share_blocks(shape: AttentionShape) {
    let mut random = Random::new(4);
    let pool = Pool::new(2).unwrap();
    let mut rope = Rope::new(RopeStyle::Pairs, 64, 10_000.0, None, 1.0, 4096);
    rope.prepare(64);
    let prefix = sequence(&pool, &shape, &rope, &mut random, 21, true);
    let columns = shape.qkv_columns();
    let mut branches = random.values(2 * 3 * columns);
    let mut blocks = [vec![0; shape.layer_bytes()], vec![0; shape.layer_bytes()]];
    {
        let mut destinations: Vec<Destination<'_>> = blocks
            .iter_mut()
            .enumerate()
            .map(|(i, block)| Destination { rows: i * 3..i * 3 + 3, position: 21, slot: 0, block })
            .collect();
        rope_and_store(&pool, &shape, &rope, None, &mut branches, &mut destinations);
    }
    let spans = |own: usize| {
        let mut spans = prefix.spans();
        spans.push(Span { tokens: 3, block: &blocks[own] });
        spans
    };
    let (first, second) = (spans(0), spans(1));
    let chunks = [
        Chunk { rows: 0..3, position: 21, spans: &first },
        Chunk { rows: 3..6, position: 21, spans: &second },
    ];
    let mut out = vec![0.0; 6 * 4 * 64];
    attention(&pool, &shape, &branches, &chunks, &mut out);
    for branch in 0..2 {
        let mut rows = prefix.rows.clone();
        rows.extend_from_slice(&branches[branch * 3 * columns..][..3 * columns]);
        for row in 0..3 {
            let expected = exact(&shape, &stored(&shape, &rows), 21 + row);
            let out = &out[(branch * 3 + row) * 256..][..256];
            assert!(
                out.iter()
                    .zip(&expected)
                    .all(|(&value, expected)| (f64::from(value) - expected).abs() < 5e-6)
            );
        }
    }
}

mod int8;

/// Returns the value of a feature, given its part (0 to 2: query, key, value), its position and its
/// index in the head. The rows are chosen to stress softmax in f32 and storage in f16.
type Feature = fn(&mut Random, usize, usize, usize) -> f32;

const HARD: [(&str, Feature); 9] = [
    ("scores of 1e4 of either sign", |random, part, position, _| match part {
        0 => 100.0,
        1 => {
            1e4 / 800.0 * if position.is_multiple_of(3) { 1.0 } else { -1.0 } * (1.0 + 0.01 * random.value())
        }
        _ => random.value(),
    }),
    ("scores that grow by far", |random, part, position, _| match part {
        0 => 10.0,
        1 => position as f32 * 3.0 - 100.0,
        _ => random.value(),
    }),
    ("equal scores", |random, part, _, _| if part == 2 { random.value() } else { 0.5 }),
    ("zeros", |_, _, _, _| 0.0),
    ("negative zeros", |_, part, _, _| if part == 2 { 1.0 } else { -0.0 }),
    ("one key above all", |random, part, position, _| match part {
        0 => 4.0,
        1 => {
            if position == 3 {
                60.0
            } else {
                random.value()
            }
        }
        _ => random.value(),
    }),
    ("largest f16 values", |random, part, _, _| match part {
        2 => 65504.0 * if random.below(2) == 0 { 1.0 } else { -1.0 },
        _ => random.value(),
    }),
    (
        "subnormal f16 keys and values",
        |random, part, _, _| if part == 0 { 1e3 } else { random.value() * 5e-5 },
    ),
    ("alternating signs", |_, part, position, feature| {
        let sign = if (position + feature).is_multiple_of(2) { 1.0 } else { -1.0 };
        sign * [3.0, 5.0, 1.0][part]
    }),
];

/// Stores rows of `feature` in partly filled blocks.
fn hard_sequence(
    pool: &Pool,
    shape: &AttentionShape,
    random: &mut Random,
    positions: usize,
    feature: Feature,
) -> Sequence {
    let mut rope = Rope::new(RopeStyle::Halves, 0, 10_000.0, None, 1.0, 64);
    rope.prepare(positions);
    let mut sequence = sequence(pool, shape, &rope, random, positions, false);
    let (queries, keys) = (shape.query_heads, shape.query_heads + shape.kv_heads);
    for (i, value) in sequence.rows.iter_mut().enumerate() {
        let (position, column) = (i / shape.qkv_columns(), i % shape.qkv_columns());
        let head = column / shape.key_dim;
        let part = usize::from(head >= queries) + usize::from(head >= keys);
        *value = feature(random, part, position, column % shape.key_dim);
    }
    let mut position = 0;
    let mut destinations: Vec<Destination<'_>> = Vec::new();
    for (block, &fill) in sequence.blocks.iter_mut().zip(&sequence.fills) {
        destinations.push(Destination { rows: position..position + fill, position, slot: 0, block });
        position += fill;
    }
    rope_and_store(pool, shape, &rope, None, &mut sequence.rows, &mut destinations);
    sequence
}

/// Maximum distance of an f32 result from attention in f64. A score is a sum of `head_dim` terms,
/// each of them rounded. Softmax turns an error of `e` in a score into at most `exp(2 e) - 1`.
/// Softmax and the weighted sum add a few roundings per position.
fn allowed(shape: &AttentionShape, rows: &[f32], position: usize) -> f64 {
    let (dim, columns) = (shape.key_dim, shape.qkv_columns());
    let largest = |range: Range<usize>, from: usize, heads: usize| {
        let rows = rows[range.start * columns..range.end * columns].chunks_exact(columns);
        let values = rows.flat_map(|row| &row[from * dim..(from + heads) * dim]);
        values.fold(0.0f64, |max, value| max.max(f64::from(value.abs())))
    };
    let query = largest(position..position + 1, 0, shape.query_heads);
    let key = largest(0..position + 1, shape.query_heads, shape.kv_heads);
    let value = largest(0..position + 1, shape.query_heads + shape.kv_heads, shape.kv_heads);
    let rounding = 1.0 / f64::from(1 << 24);
    // Scores more than 87 apart have no weight, which limits the differences that matter.
    let score = (dim as f64 + 4.0) * (dim as f64).sqrt() * query * key * rounding + 90.0 * rounding;
    value * ((2.0 * score).exp_m1() + (3.0 * position as f64 + 40.0) * rounding)
}

#[test]
fn extreme_scores_stay_within_f32_bound() {
    let mut random = Random::new(6);
    let pools = [1, 2, 3].map(|threads| Pool::new(threads).unwrap());
    let shapes =
        [(4, 4, 96, None), (6, 2, 64, None), (8, 1, 128, Some(20)), (3, 1, 10, Some(1)), (9, 3, 72, None)];
    let shapes = shapes.map(|(query_heads, kv_heads, head_dim, window)| AttentionShape {
        window,
        ..AttentionShape::new(query_heads, kv_heads, head_dim)
    });
    for shape in shapes.into_iter().flat_map(of_both_types) {
        for (case, (name, feature)) in HARD.into_iter().enumerate() {
            let pool = &pools[case % 3];
            for positions in [1, 2, 33, 63] {
                let sequence = hard_sequence(pool, &shape, &mut random, positions, feature);
                let (spans, stored) = (sequence.spans(), stored(&shape, &sequence.rows));
                let chunks = [Chunk { rows: 0..positions, position: 0, spans: &spans }];
                for set in InstructionSet::available() {
                    let mut out = vec![0.0; positions * shape.out_columns()];
                    attention_on(set, pool, &shape, &sequence.rows, &chunks, &mut out);
                    for (position, out) in out.chunks_exact(shape.out_columns()).enumerate() {
                        let expected = exact(&shape, &stored, position);
                        let allowed = allowed(&shape, &sequence.rows, position);
                        for (i, (&value, expected)) in out.iter().zip(&expected).enumerate() {
                            assert!(
                                (f64::from(value) - expected).abs() <= allowed,
                                "{} {shape:?}, {name}, position {position} of {positions}, {i}: {value}, expected {expected} to {allowed}",
                                set.name()
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn non_finite_values_stay_in_visible_rows() {
    of_both_types(AttentionShape::new(4, 2, 64)).into_iter().for_each(non_finite_values_stay);
}

fn non_finite_values_stay(shape: AttentionShape) {
    let mut random = Random::new(16);
    let pool = Pool::new(2).unwrap();
    let row = shape.out_columns();
    let usual: Feature = |random, _, _, _| random.value();
    // A NaN query does not affect other queries.
    let bad: [(Feature, bool); 3] = [
        (
            |random, part, position, _| {
                if part == 1 && position == 20 { f32::INFINITY } else { random.value() }
            },
            true,
        ),
        (
            |random, part, position, _| {
                if part == 2 && position == 20 { f32::NEG_INFINITY } else { random.value() }
            },
            true,
        ),
        (
            |random, part, position, _| if part == 0 && position == 20 { f32::NAN } else { random.value() },
            false,
        ),
    ];
    for (feature, later_rows_see_it) in bad {
        let hard = hard_sequence(&pool, &shape, &mut random, 40, feature);
        let other = hard_sequence(&pool, &shape, &mut random, 9, usual);
        let (spans, others) = (hard.spans(), other.spans());
        let rows = [&hard.rows[..], &other.rows[..]].concat();
        let chunks = [
            Chunk { rows: 0..40, position: 0, spans: &spans },
            Chunk { rows: 40..49, position: 0, spans: &others },
        ];
        for set in InstructionSet::available() {
            let mut out = vec![0.0; 49 * row];
            attention_on(set, &pool, &shape, &rows, &chunks, &mut out);
            let finite = |at: usize| out[at * row..][..row].iter().all(|value| value.is_finite());
            assert!(!finite(20), "{}: its own row", set.name());
            for at in (0..49).filter(|&at| !(20..40).contains(&at) || !later_rows_see_it && at > 20) {
                assert!(finite(at), "{}: row {at}", set.name());
            }
            for position in 0..9 {
                let expected = exact(&shape, &stored(&shape, &other.rows), position);
                let out = &out[(40 + position) * row..][..row];
                let near = out.iter().zip(&expected).all(|(&a, b)| (f64::from(a) - b).abs() < 5e-6);
                assert!(near, "{}: the other sequence", set.name());
            }
        }
    }
}
