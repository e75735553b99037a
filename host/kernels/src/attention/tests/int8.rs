//! Keys and values in int8: distance from exact attention, and equal results of instruction sets.

use super::*;

/// Maximum distance from attention with exact keys and values. A number of a group with the largest
/// magnitude `m` is at most half a step, `m / 254`, away, and so a score at most `Σ|q| m / 254`
/// times its scale. Softmax turns an error of `e` in a score into at most `exp(2 e) - 1`, relative
/// to the largest value, and values add half a step of their own.
fn allowed_int8(shape: &AttentionShape, rows: &[f32], position: usize) -> f64 {
    let (dim, columns) = (shape.key_dim, shape.qkv_columns());
    let heads =
        |row: usize, from: usize, count: usize| rows[row * columns + from..][..count].chunks_exact(dim);
    let magnitude = |values: &[f32]| values.iter().fold(0.0f64, |max, value| max.max(f64::from(value.abs())));
    let sum = |values: &[f32]| values.iter().map(|value| f64::from(value.abs())).sum::<f64>();
    let query = heads(position, 0, shape.query_heads * dim).map(sum).fold(0.0, f64::max);
    let largest = |from: usize| {
        let of = |row| heads(row, from, shape.kv_heads * dim).map(magnitude).fold(0.0, f64::max);
        (0..=position).map(of).fold(0.0, f64::max)
    };
    let (key, value) =
        (largest(shape.query_columns()), largest(shape.query_columns() + shape.kv_heads * dim));
    // A little more than half a step, because the step is rounded.
    let half = 1.0001 / 254.0;
    let score = query * key * half * f64::from(shape.scale);
    value * ((2.0 * score).exp_m1() + half) + allowed(shape, rows, position)
}

#[test]
fn int8_stays_within_bound_of_exact_attention() {
    let mut random = Random::new(26);
    let pool = Pool::new(2).unwrap();
    for (query_heads, kv_heads, head_dim) in [(4, 4, 96), (6, 2, 64), (3, 1, 10), (8, 1, 128)] {
        let shape =
            AttentionShape { kv_type: KvType::Int8, ..AttentionShape::new(query_heads, kv_heads, head_dim) };
        let mut rope = Rope::new(RopeStyle::Halves, head_dim, 10_000.0, None, 1.0, 128);
        rope.prepare(128);
        let columns = shape.out_columns();
        let (mut worst, mut squares, mut results) = (0.0f64, [0.0; 2], 0);
        for positions in [1, 20, 100] {
            let sequence = sequence(&pool, &shape, &rope, &mut random, positions, true);
            let spans = sequence.spans();
            let chunks = [Chunk { rows: 0..positions, position: 0, spans: &spans }];
            for set in InstructionSet::available() {
                let mut out = vec![0.0; positions * columns];
                attention_on(set, &pool, &shape, &sequence.rows, &chunks, &mut out);
                for (position, out) in out.chunks_exact(columns).enumerate() {
                    let expected = exact(&shape, &sequence.rows, position);
                    let allowed = allowed_int8(&shape, &sequence.rows, position);
                    for (&value, expected) in out.iter().zip(&expected) {
                        let error = (f64::from(value) - expected).abs();
                        assert!(error <= allowed, "{} {shape:?}: {error}, allowed {allowed}", set.name());
                        worst = worst.max(error / allowed);
                        squares[0] += error * error;
                        squares[1] += expected * expected;
                        results += 1;
                    }
                }
            }
        }
        let relative = (squares[0] / squares[1]).sqrt();
        println!(
            "{head_dim}: {relative:.5} of the root mean square, {worst:.2} of the bound, {results} results"
        );
    }
}

#[test]
fn sets_that_round_once_are_bit_equal() {
    let mut random = Random::new(27);
    let pool = Pool::new(2).unwrap();
    let windowed = AttentionShape { window: Some(37), ..AttentionShape::new(6, 2, 64) };
    let shapes = [
        AttentionShape::new(4, 4, 96),
        windowed,
        AttentionShape { value_dim: 32, soft_cap: Some(1.5), ..AttentionShape::new(8, 1, 80) },
        AttentionShape::new(3, 1, 10),
    ];
    for shape in shapes.into_iter().flat_map(of_both_types) {
        let mut rope = Rope::new(RopeStyle::Halves, shape.key_dim, 10_000.0, None, 1.0, 256);
        rope.prepare(256);
        for full in [true, false] {
            let sequence = sequence(&pool, &shape, &rope, &mut random, 150, full);
            let spans = sequence.spans();
            let chunks = [Chunk { rows: 0..150, position: 0, spans: &spans }];
            let results =
                InstructionSet::available().filter(|set| *set != InstructionSet::Portable).map(|set| {
                    let mut out = vec![0.0f32; 150 * shape.out_columns()];
                    attention_on(set, &pool, &shape, &sequence.rows, &chunks, &mut out);
                    (set.name(), out.into_iter().map(f32::to_bits).collect::<Vec<_>>())
                });
            let results: Vec<_> = results.collect();
            for (name, bits) in results.iter().skip(1) {
                assert!(*bits == results[0].1, "{name} and {}, {shape:?}", results[0].0);
            }
        }
    }
}

#[test]
fn blocks_are_nearly_half_as_large() {
    for (head_dim, expected) in [(64, 0.547), (96, 0.542), (128, 0.539)] {
        let [half, byte] =
            of_both_types(AttentionShape::new(8, 2, head_dim)).map(|shape| shape.layer_bytes());
        let found = byte as f64 / half as f64;
        assert!((found - expected).abs() < 0.001, "{head_dim}: {found}");
    }
}
