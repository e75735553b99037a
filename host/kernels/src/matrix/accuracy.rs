//! Accuracy of products, compared with f64, for every type, for Phi-3's shapes, and for inputs that
//! stress int8.
//!
//! Each result must pass two checks. First, it equals the exact product of the same int8 input up
//! to the roundings of its f32 sums: each is at most 2⁻²⁴ of the sum of magnitudes, and their
//! number is known. Second, it equals the product of the f32 input up to the error of int8: a code
//! is off by at most half a step, so a group of scale `s` adds at most `s / 2 · Σ|w|` for any
//! input. Errors that are uniform over ±1/2 have a variance of 1/12, so the root mean square of
//! many results is at most that of `s² / 12 · Σw²`.

mod reference;

use std::fmt::Write as _;

use half::f16;

use super::*;
use crate::testing::{Lines, Random, blocks, centred, usual};
use reference::{Expected, Reference};

/// Computes the product on `set`, written or added to 0.5. The output ends with the last result.
fn product(
    set: InstructionSet,
    pool: &Pool,
    matrix: &QuantizedMatrix,
    input: &[f32],
    gap: usize,
    mode: Write,
) -> Vec<f32> {
    let tokens = input.len() / matrix.columns();
    let stride = matrix.rows() + gap;
    let mut activations = Activations::new();
    activations.set(pool, input, tokens, matrix.columns());
    let mut out = vec![0.5; tokens * stride - gap];
    matrix.matmul_on(set, pool, &mut activations, &mut out, stride, mode);
    for token in out.chunks_mut(stride) {
        assert!(token[matrix.rows()..].iter().all(|&gap| gap == 0.5), "{}: between the rows", set.name());
    }
    let mut values = Vec::with_capacity(tokens * matrix.rows());
    out.chunks(stride).for_each(|token| values.extend_from_slice(&token[..matrix.rows()]));
    values
}

/// Maximum of each figure for one type.
#[derive(Default)]
struct Maxima {
    /// Relative RMSE with 64 or more tokens, and its bound.
    relative: f64,
    relative_bound: f64,
    /// Distance from the exact result, relative to the bound of one result.
    of_bound: f64,
}

impl Maxima {
    fn join(&mut self, other: &Self) {
        self.relative = self.relative.max(other.relative);
        self.relative_bound = self.relative_bound.max(other.relative_bound);
        self.of_bound = self.of_bound.max(other.of_bound);
    }
}

/// Compares the product on every instruction set with `reference` and with each other. If
/// `errors_are_independent`, the root mean square is compared with its bound as well.
fn check(
    name: &str,
    reference: &Reference,
    matrix: &QuantizedMatrix,
    pool: &Pool,
    input: &[f32],
    errors_are_independent: bool,
) -> Maxima {
    let mut maxima = Maxima::default();
    let tokens = input.len() / reference.columns;
    let about =
        format!("{} ({}, {}), {tokens} tokens, {name}", reference.ty, reference.rows, reference.columns);
    let expected: Vec<Expected> =
        input.chunks_exact(reference.columns).flat_map(|token| reference.expect(token)).collect();
    let mut first: Option<(InstructionSet, Vec<f32>)> = None;
    for set in InstructionSet::available() {
        let out = product(set, pool, matrix, input, 0, Write::Set);
        let (mut errors, mut squares, mut variance) = (0.0, 0.0, 0.0);
        for (i, (&value, expected)) in out.iter().zip(&expected).enumerate() {
            let value = f64::from(value);
            let from_int8 = (value - expected.int8).abs();
            let from_exact = (value - expected.exact).abs();
            let bound = expected.quantisation + expected.rounding;
            assert!(
                from_int8 <= expected.rounding && from_exact <= bound,
                "{about}: result {i} on {} is {value}, expected {} to {} and {} to {bound}",
                set.name(),
                expected.int8,
                expected.rounding,
                expected.exact,
            );
            maxima.of_bound = maxima.of_bound.max(from_exact / bound);
            errors += from_exact.powi(2);
            squares += expected.exact.powi(2);
            variance += expected.variance;
        }
        if errors_are_independent {
            // Five standard deviations of the root mean square of this many results.
            let allowed = variance.sqrt() * (1.0 + 5.0 / (2.0 * out.len() as f64).sqrt());
            let (error, magnitude) = (errors.sqrt(), squares.sqrt());
            assert!(
                error <= allowed,
                "{about}: relative RMSE {} on {}, expected {}",
                error / magnitude,
                set.name(),
                allowed / magnitude,
            );
            if tokens >= 64 {
                let (relative, relative_bound) = (error / magnitude, allowed / magnitude);
                maxima.join(&Maxima { relative, relative_bound, of_bound: 0.0 });
            }
        }
        // Instruction sets whose `mul_add` rounds once compute the same sums in the same order.
        if set == InstructionSet::Portable {
            continue;
        }
        let (first_set, first) = first.get_or_insert_with(|| (set, out.clone()));
        let differs = first.iter().zip(&out).position(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(differs, None, "{about}: {} and {} differ", first_set.name(), set.name());
    }
    maxima
}

/// Random values close to a normal distribution: sums of twelve uniform values, with a variance of
/// 1.
fn normal(random: &mut Random, len: usize) -> Vec<f32> {
    (0..len).map(|_| (0..12).map(|_| random.value() / 2.0).sum()).collect()
}

type Scale = fn(&mut Random) -> f16;

/// Scales that stress the sums. All codes are random.
const SCALES: [(&str, Scale); 7] = [
    ("usual scales", usual),
    ("zero scales", |_| f16::ZERO),
    ("largest f16 as scale", |_| f16::MAX),
    ("most negative f16 as scale", |_| f16::MIN),
    ("smallest normal f16 as scale", |_| f16::MIN_POSITIVE),
    ("smallest subnormal f16 as scale", |_| f16::from_bits(1)),
    ("scales far apart", |random| match random.below(4) {
        0 => f16::MAX,
        1 => f16::MIN_POSITIVE_SUBNORMAL,
        2 => f16::NEG_ZERO,
        _ => usual(random),
    }),
];

/// Returns a value of a token, given a random generator and the column.
type Input = fn(&mut Random, usize) -> f32;

const INPUTS: [(&str, Input); 12] = [
    ("zeros", |_, _| 0.0),
    ("negative zeros", |_, _| -0.0),
    ("ones", |_, _| 1.0),
    ("equal values", |_, _| -0.3),
    ("alternating signs", |_, column| if column % 2 == 0 { 0.7 } else { -0.7 }),
    ("alternating values", |_, column| if column % 2 == 0 { 1.0 } else { -0.995 }),
    ("one huge value", |random, column| if column == 17 { 3e4 } else { random.value() }),
    ("a huge value here and there", |random, _| if random.below(300) == 0 { -1e4 } else { 1e-3 }),
    ("half a step off", |_, column| if column % 32 == 0 { 127.0 } else { 0.5 }),
    ("smallest values that are not zeroed", |random, _| 1e-29 * random.value()),
    ("values that become zero", |random, _| 1e-31 * random.value()),
    ("subnormal values", |_, _| -1e-40),
];

#[test]
fn random_products_stay_within_bound() {
    let mut random = Random::new(7);
    let pool = Pool::new(2).unwrap();
    let mut table = String::new();
    for ty in WeightType::ALL {
        let (mut evenly, mut normally) = (Maxima::default(), Maxima::default());
        for columns in COLUMNS {
            let rows = 96;
            let bytes = centred(ty, rows * columns / ty.block_elements(), &mut random);
            let reference = Reference::new(ty, &bytes, rows, columns);
            let matrix = QuantizedMatrix::pack(&pool, ty, &bytes, rows, columns).unwrap();
            for tokens in [1, 2, 7, 8, 17, 64, 128] {
                let input = random.values(tokens * columns);
                evenly.join(&check("uniform", &reference, &matrix, &pool, &input, true));
                let input = normal(&mut random, tokens * columns);
                normally.join(&check("normal", &reference, &matrix, &pool, &input, true));
            }
        }
        for maxima in [evenly, normally] {
            write!(table, "| {ty} | {:.2e} | {:.2e} ", maxima.relative_bound, maxima.relative).unwrap();
        }
        table.push_str("|\n");
    }
    println!("| type | uniform inputs: bound | worst | type | normal inputs: bound | worst |\n{table}");
}

#[test]
fn adversarial_products_stay_within_bound() {
    let mut random = Random::new(9);
    let pool = Pool::new(2).unwrap();
    for ty in WeightType::ALL {
        let mut maxima = Maxima::default();
        let mut with = |weights: &str, bytes: &[u8], rows: usize, columns: usize| {
            let reference = Reference::new(ty, bytes, rows, columns);
            let matrix = QuantizedMatrix::pack(&pool, ty, bytes, rows, columns).unwrap();
            for (name, value) in INPUTS {
                for tokens in [1, 2, 49] {
                    let input: Vec<f32> =
                        (0..tokens * columns).map(|i| value(&mut random, i % columns)).collect();
                    let name = format!("{weights}, {name}");
                    maxima.join(&check(&name, &reference, &matrix, &pool, &input, false));
                }
            }
        };
        let mut random = Random::new(10);
        for columns in COLUMNS {
            let (rows, blocks_of_row) = (9, columns / ty.block_elements());
            for (name, scale) in SCALES {
                with(name, &blocks(ty, rows * blocks_of_row, &mut random, scale), rows, columns);
            }
            for code in [0x00, 0x88, 0xff] {
                let bytes = equal_codes(ty, code, rows * blocks_of_row);
                with(&format!("codes of {code:#x}"), &bytes, rows, columns);
            }
        }
        println!("| {ty} | worst of the bound of one result: {:.3} |", maxima.of_bound);
    }
}

/// Blocks whose bytes are all `code`, except for a usual scale and minimum.
fn equal_codes(ty: WeightType, code: u8, count: usize) -> Vec<u8> {
    let scaled = blocks(ty, count, &mut Random::new(1), |_| f16::from_f32(0.01));
    let other = blocks(ty, count, &mut Random::new(2), |_| f16::from_f32(0.01));
    if ty.block_elements() == 1 {
        return scaled;
    }
    // Bytes that do not depend on the seed are scales. A few codes that are equal by chance stay as
    // they are.
    scaled.iter().zip(&other).map(|(&a, &b)| if a == b { a } else { code }).collect()
}

/// Columns of Phi-3 Mini's matrices: qkv, output, gate and up, vocabulary; down.
const COLUMNS: [usize; 2] = [3072, 8192];

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "an emulated processor takes too long over whole matrices")]
fn phi3_matrices_equal_their_panels() {
    let mut random = Random::new(11);
    let pool = Pool::new(2).unwrap();
    for ty in WeightType::ALL {
        for (columns, shapes) in [(3072, &[9216, 3072, 16384, 32064][..]), (8192, &[3072])] {
            let bytes = centred(ty, 96 * columns / ty.block_elements(), &mut random);
            let few = QuantizedMatrix::pack(&pool, ty, &bytes, 96, columns).unwrap();
            let many = shapes.iter().copied().max().unwrap();
            let size = |rows: usize| pack::packed_bytes(ty, rows, columns).unwrap();
            let source: PackedSource = Arc::new(Lines::repeat(few.packed(), size(many)));
            for &rows in shapes {
                let range = size(many) - size(rows)..size(many);
                let first = (many - rows) % 96;
                let whole = QuantizedMatrix::from_packed(ty, source.clone(), range, rows, columns).unwrap();
                for set in InstructionSet::available() {
                    for tokens in [1, 7, 49] {
                        if set == InstructionSet::Portable && tokens == 49 {
                            continue;
                        }
                        let input = random.values(tokens * columns);
                        let expected = product(set, &pool, &few, &input, 0, Write::Set);
                        let found = product(set, &pool, &whole, &input, 0, Write::Set);
                        for (i, value) in found.iter().enumerate() {
                            let (token, row) = (i / rows, i % rows);
                            let same = expected[token * 96 + (first + row) % 96].to_bits() == value.to_bits();
                            assert!(same, "{} {ty} ({rows}, {columns}): ({token}, {row})", set.name());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn odd_sizes_are_exact_for_any_thread_count() {
    let mut random = Random::new(12);
    let pools = [1, 2, 3].map(|threads| Pool::new(threads).unwrap());
    for ty in WeightType::ALL {
        let group = ty.block_elements();
        for case in 0..40 {
            // First the edges of panels and tiles, then random sizes.
            let rows = [1, 31, 32, 33, 64, 65].get(case).copied().unwrap_or_else(|| 1 + random.below(100));
            let blocks_of_row = [1, 2, 3, 2048 / group + 1]
                .get(case)
                .copied()
                .unwrap_or_else(|| 1 + random.below(2400 / group));
            let tokens = [1, 2, 31, 32, 33, 193, 47, 48, 49, 4, 5, 6, 7, 12, 13]
                .get(case)
                .copied()
                .unwrap_or_else(|| 1 + random.below(60));
            let columns = blocks_of_row * group;
            let bytes = blocks(ty, rows * blocks_of_row, &mut random, usual);
            let input = random.values(tokens * columns);
            let pool = &pools[case % 3];
            let matrix = QuantizedMatrix::pack(pool, ty, &bytes, rows, columns).unwrap();
            check("any size", &Reference::new(ty, &bytes, rows, columns), &matrix, pool, &input, false);
            let token = random.below(tokens);
            let alone = &input[token * columns..][..columns];
            for set in InstructionSet::available() {
                let out = product(set, pool, &matrix, &input, 0, Write::Set);
                let about = format!("{} {ty} ({rows}, {columns}), {tokens} tokens", set.name());
                for other in &pools {
                    assert_eq!(out, product(set, other, &matrix, &input, 3, Write::Set), "{about}: threads");
                }
                let single = product(set, pool, &matrix, alone, 0, Write::Set);
                assert_eq!(out[token * rows..][..rows], single, "{about}: token {token} alone");
                let added: Vec<f32> = out.iter().map(|value| 0.5 + value).collect();
                assert_eq!(product(set, pool, &matrix, &input, 1, Write::Add(1.0)), added, "{about}: added");
            }
        }
    }
}

#[test]
fn non_finite_token_affects_only_its_results() {
    let mut random = Random::new(13);
    let pool = Pool::new(2).unwrap();
    let (rows, columns) = (40, 512);
    for ty in WeightType::ALL {
        let bytes = blocks(ty, rows * columns / ty.block_elements(), &mut random, usual);
        let matrix = QuantizedMatrix::pack(&pool, ty, &bytes, rows, columns).unwrap();
        for (value, tokens) in [
            (f32::NAN, 5),
            (f32::NAN, 17),
            (f32::INFINITY, 5),
            (f32::INFINITY, 20),
            (f32::NEG_INFINITY, 2),
            (f32::NEG_INFINITY, 18),
        ] {
            let input = random.values(tokens * columns);
            let (token, column) = (random.below(tokens), random.below(columns));
            let mut other = input.clone();
            other[token * columns + column] = value;
            for set in InstructionSet::available() {
                let (before, after) = (
                    product(set, &pool, &matrix, &input, 0, Write::Set),
                    product(set, &pool, &matrix, &other, 0, Write::Set),
                );
                for (i, (before, after)) in before.iter().zip(&after).enumerate() {
                    let right = if i / rows == token { !after.is_finite() } else { before == after };
                    assert!(
                        right,
                        "{} {ty}: {value} in token {token} of {tokens} makes result {i} {after}",
                        set.name()
                    );
                }
            }
        }
    }
}

#[test]
fn non_finite_weight_rows_affect_only_themselves() {
    let mut random = Random::new(14);
    let pool = Pool::new(2).unwrap();
    let (rows, columns) = (40, 512);
    for ty in WeightType::ALL {
        let bytes = blocks(ty, rows * columns / ty.block_elements(), &mut random, usual);
        let row_bytes = ty.row_bytes(columns).unwrap();
        for filling in [0xff, 0x7c, 0xfc, 0x7f] {
            let row = random.below(rows);
            let mut other = bytes.clone();
            other[row * row_bytes..][..row_bytes].fill(filling);
            let [matrix, other] =
                [&bytes, &other].map(|bytes| QuantizedMatrix::pack(&pool, ty, bytes, rows, columns).unwrap());
            for tokens in [1, 3, 49] {
                let input = random.values(tokens * columns);
                for set in InstructionSet::available() {
                    let (before, after) = (
                        product(set, &pool, &matrix, &input, 0, Write::Set),
                        product(set, &pool, &other, &input, 0, Write::Set),
                    );
                    let same = |i: usize| i % rows == row || before[i] == after[i];
                    assert!((0..before.len()).all(same), "{} {ty}: row {row} of {filling:#x}", set.name());
                }
            }
        }
    }
}

#[test]
fn inputs_near_f32_max_do_not_panic() {
    let pool = Pool::new(1).unwrap();
    for ty in WeightType::ALL {
        let bytes = blocks(ty, 512 / ty.block_elements(), &mut Random::new(15), usual);
        let matrix = QuantizedMatrix::pack(&pool, ty, &bytes, 1, 512).unwrap();
        for set in InstructionSet::available() {
            for input in [vec![f32::MAX; 512], vec![f32::NAN; 512], vec![f32::NEG_INFINITY; 17 * 512]] {
                product(set, &pool, &matrix, &input, 0, Write::Set);
            }
        }
    }
}
