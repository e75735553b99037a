use super::*;
use crate::rope::{Destination, Rope, RopeStyle, rope_and_store};
use crate::testing::Random;

/// A sequence in blocks, each filled as far as `fills` says, and the plain f32 keys and values.
struct Sequence {
    blocks: Vec<Vec<f16>>,
    fills: Vec<usize>,
    /// The rows of all positions after `rope_and_store`.
    rows: Vec<f32>,
}

/// Stores random rows at `positions` positions, filling at most `fill()` slots of each block.
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
        // Unfilled slots are not numbers: nothing may read them.
        blocks.push(vec![f16::NAN; shape.layer_elements()]);
    }
    let mut position = 0;
    let mut destinations: Vec<Destination<'_>> = Vec::new();
    for (block, &fill) in blocks.iter_mut().zip(&fills) {
        destinations.push(Destination { rows: position..position + fill, position, slot: 0, block });
        position += fill;
    }
    rope_and_store(pool, shape, rope, &mut rows, &mut destinations);
    Sequence { blocks, fills, rows }
}

/// In f64 from the rows, each key and value rounded to f16.
fn reference(shape: &AttentionShape, rows: &[f32], position: usize) -> Vec<f64> {
    let (dim, columns) = (shape.head_dim, shape.qkv_columns());
    let group = shape.query_heads / shape.kv_heads;
    let half = |value: f32| f64::from(f16::from_f32(value).to_f32());
    let from = (position + 1).saturating_sub(shape.window.unwrap_or(usize::MAX));
    let mut out = Vec::new();
    for head in 0..shape.query_heads {
        let query = &rows[position * columns + head * dim..][..dim];
        let key = |at: usize| &rows[at * columns + (shape.query_heads + head / group) * dim..][..dim];
        let value = |at: usize| {
            &rows[at * columns + (shape.query_heads + shape.kv_heads + head / group) * dim..][..dim]
        };
        let scores: Vec<f64> = (from..=position)
            .map(|at| {
                query.iter().zip(key(at)).map(|(&q, &k)| f64::from(q) * half(k)).sum::<f64>()
                    / (dim as f64).sqrt()
            })
            .collect();
        let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - greatest).exp()).collect();
        let total: f64 = weights.iter().sum();
        for d in 0..dim {
            let sum: f64 =
                weights.iter().enumerate().map(|(i, weight)| weight * half(value(from + i)[d])).sum();
            out.push(sum / total);
        }
    }
    out
}

#[test]
fn attention_is_that_of_the_reference_on_every_instruction_set() {
    let mut random = Random::new(3);
    let pool = Pool::new(2).unwrap();
    let shapes = [
        (4, 4, 96, None),
        (6, 2, 64, None),
        (8, 1, 128, Some(20)),
        (3, 3, 80, Some(1)),
        (7, 1, 64, None),
        (2, 1, 6, None),
        (2, 2, 256, Some(33)),
    ];
    for (query_heads, kv_heads, head_dim, window) in shapes {
        let shape = AttentionShape { query_heads, kv_heads, head_dim, window };
        let mut rope = Rope::new(RopeStyle::Halves, head_dim, 10_000.0, None, 1.0, 4096);
        rope.prepare(300);
        for (positions, full) in [(1, true), (17, false), (64, true), (65, true), (150, false)] {
            let sequence = sequence(&pool, &shape, &rope, &mut random, positions, full);
            let spans: Vec<Span<'_>> = sequence
                .blocks
                .iter()
                .zip(&sequence.fills)
                .map(|(block, &tokens)| Span { tokens, block })
                .collect();
            // All positions in two runs, and the last alone, as in a decode step.
            let middle = positions / 2;
            let last = positions - 1;
            for runs in [vec![0..middle, middle..positions], vec![last..positions; 1]] {
                let chunks: Vec<Chunk<'_>> = runs
                    .iter()
                    .map(|rows| Chunk { rows: rows.clone(), position: rows.start, spans: &spans })
                    .collect();
                for set in InstructionSet::available() {
                    let mut out = vec![7.0f32; positions * query_heads * head_dim];
                    attention_on(set, &pool, &shape, &sequence.rows, &chunks, &mut out);
                    for position in runs.iter().flat_map(Clone::clone) {
                        let expected = reference(&shape, &sequence.rows, position);
                        let out = &out[position * query_heads * head_dim..][..query_heads * head_dim];
                        for (i, (&value, expected)) in out.iter().zip(&expected).enumerate() {
                            let error = (f64::from(value) - expected).abs();
                            assert!(
                                error < 5e-6,
                                "{} {shape:?} position {position} of {positions}, {i}: {value}, expected {expected}",
                                set.name()
                            );
                        }
                    }
                    assert!(
                        out[..runs[0].start * query_heads * head_dim].iter().all(|&value| value == 7.0),
                        "other rows"
                    );
                }
            }
        }
    }
}

#[test]
fn branches_share_the_blocks_of_their_prefix() {
    let mut random = Random::new(4);
    let pool = Pool::new(2).unwrap();
    let shape = AttentionShape { query_heads: 4, kv_heads: 2, head_dim: 64, window: None };
    let mut rope = Rope::new(RopeStyle::Pairs, 64, 10_000.0, None, 1.0, 4096);
    rope.prepare(64);
    let prefix = sequence(&pool, &shape, &rope, &mut random, 21, true);
    let columns = shape.qkv_columns();
    let mut branches = random.values(2 * 3 * columns);
    let mut blocks = [vec![f16::ZERO; shape.layer_elements()], vec![f16::ZERO; shape.layer_elements()]];
    {
        let mut destinations: Vec<Destination<'_>> = blocks
            .iter_mut()
            .enumerate()
            .map(|(i, block)| Destination { rows: i * 3..i * 3 + 3, position: 21, slot: 0, block })
            .collect();
        rope_and_store(&pool, &shape, &rope, &mut branches, &mut destinations);
    }
    let spans = |own: usize| {
        let mut spans: Vec<Span<'_>> =
            prefix.blocks.iter().zip(&prefix.fills).map(|(block, &tokens)| Span { tokens, block }).collect();
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
            let expected = reference(&shape, &rows, 21 + row);
            let out = &out[(branch * 3 + row) * 256..][..256];
            assert!(
                out.iter()
                    .zip(&expected)
                    .all(|(&value, expected)| (f64::from(value) - expected).abs() < 5e-6)
            );
        }
    }
}

#[test]
fn far_apart_scores_stay_finite() {
    let pool = Pool::new(1).unwrap();
    let shape = AttentionShape { query_heads: 1, kv_heads: 1, head_dim: 64, window: None };
    let mut rope = Rope::new(RopeStyle::Halves, 0, 10_000.0, None, 1.0, 64);
    rope.prepare(32);
    let mut rows: Vec<f32> =
        (0..32 * 192).map(|i| if i % 192 < 128 { (i / 192) as f32 * 20.0 - 300.0 } else { 1.5 }).collect();
    let mut blocks = vec![vec![f16::ZERO; shape.layer_elements()]; 2];
    let mut destinations: Vec<Destination<'_>> = blocks
        .iter_mut()
        .enumerate()
        .map(|(i, block)| Destination { rows: i * 16..i * 16 + 16, position: i * 16, slot: 0, block })
        .collect();
    rope_and_store(&pool, &shape, &rope, &mut rows, &mut destinations);
    let spans: Vec<Span<'_>> = blocks.iter().map(|block| Span { tokens: 16, block }).collect();
    let mut out = vec![0.0; 32 * 64];
    for set in InstructionSet::available() {
        attention_on(
            set,
            &pool,
            &shape,
            &rows,
            &[Chunk { rows: 0..32, position: 0, spans: &spans }],
            &mut out,
        );
        assert!(out.iter().all(|value| (value - 1.5).abs() < 1e-5), "{}", set.name());
    }
}
