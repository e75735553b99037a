use half::f16;

use super::*;
use crate::dequantize_row;
use crate::testing::{Random, blocks, usual};

/// The product in f64 of dequantised weights with the activations as their int8 form has them; and the sum of magnitudes.
fn reference(ty: WeightType, bytes: &[u8], shape: (usize, usize), input: &[f32]) -> Vec<(f64, f64)> {
    let (rows, columns) = shape;
    let size = ty.row_bytes(columns).unwrap();
    let mut weights = vec![0.0; rows * columns];
    for (row, out) in weights.chunks_exact_mut(columns).enumerate() {
        dequantize_row(ty, &bytes[row * size..][..size], out);
    }
    let mut results = Vec::new();
    for token in input.chunks_exact(columns) {
        let token = as_int8(ty, token);
        for row in weights.chunks_exact(columns) {
            let products = || row.iter().zip(&token).map(|(&w, &x)| f64::from(w) * x);
            results.push((products().sum(), products().map(f64::abs).sum()));
        }
    }
    results
}

fn as_int8(ty: WeightType, token: &[f32]) -> Vec<f64> {
    let group = ty.block_elements();
    if group == 1 {
        return token.iter().map(|&x| f64::from(x)).collect();
    }
    let mut out = Vec::new();
    for values in token.chunks_exact(group) {
        let greatest = values.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let scale = if greatest < 1e-30 { 0.0 } else { greatest / 127.0 };
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        out.extend(values.iter().map(|x| f64::from((x * inverse).round_ties_even()) * f64::from(scale)));
    }
    out
}

fn check(ty: WeightType, bytes: &[u8], shape: (usize, usize), input: &[f32], pool: &Pool) {
    let (rows, columns) = shape;
    let tokens = input.len() / columns;
    let matrix = QuantizedMatrix::pack(pool, ty, bytes, rows, columns).unwrap();
    let expected = reference(ty, bytes, shape, input);
    let stride = rows + 3;
    let mut activations = Activations::new();
    activations.set(pool, input, tokens, columns);
    for set in InstructionSet::available() {
        for mode in [Write::Set, Write::Add, Write::Gate] {
            let mut out = vec![0.5f32; tokens * stride];
            matrix.matmul_on(set, pool, &mut activations, &mut out, stride, mode);
            // What `out` holds before is 0.5.
            let (scale, before) = match mode {
                Write::Set => (1.0, 0.0),
                Write::Add => (1.0, 0.5),
                Write::Gate => (0.5 / (1.0 + (-0.5f64).exp()), 0.0),
            };
            for (token, out) in out.chunks_exact(stride).enumerate() {
                for (row, &value) in out[..rows].iter().enumerate() {
                    let (sum, magnitude) = expected[token * rows + row];
                    let wanted = sum * scale + before;
                    let error = (f64::from(value) - wanted).abs();
                    // Sums of f32 in another order, of terms that a minimum may cancel: a few units of 2^-24 each.
                    let bound = 4e-6 * (magnitude + minima_magnitude(ty, magnitude, columns) + 0.5);
                    assert!(
                        error <= bound,
                        "{} {ty} {rows} × {columns}, {tokens} tokens, {mode:?}: ({token}, {row}) is {value}, expected {wanted}",
                        set.name(),
                    );
                }
                assert!(out[rows..].iter().all(|&gap| gap == 0.5), "{} {ty}: between the rows", set.name());
            }
        }
    }
}

/// Codes and minima of types that have them are far greater than their difference.
fn minima_magnitude(ty: WeightType, magnitude: f64, columns: usize) -> f64 {
    match ty {
        WeightType::Q4_1 | WeightType::Q4K | WeightType::Q5K => magnitude * 8.0 + columns as f64 * 0.02,
        _ => magnitude,
    }
}

#[test]
fn product_is_that_of_dequantized_weights_on_every_instruction_set() {
    let mut random = Random::new(7);
    let pool = Pool::new(2).unwrap();
    for ty in WeightType::ALL {
        for (rows, columns) in [(1, 256), (31, 512), (33, 1280), (70, 2304)] {
            for tokens in [1, 2, 3, 5, 6, 7, 12, 16, 17, 23, 64] {
                if tokens > 7 && rows == 31 {
                    continue;
                }
                let bytes = blocks(ty, rows * columns / ty.block_elements(), &mut random, usual);
                let input = random.values(tokens * columns);
                check(ty, &bytes, (rows, columns), &input, &pool);
            }
        }
    }
}

#[test]
fn blocks_of_32_take_any_number_of_them() {
    let mut random = Random::new(8);
    let pool = Pool::new(2).unwrap();
    for ty in [WeightType::F16, WeightType::Q4_0, WeightType::Q4_1, WeightType::Q5_0, WeightType::Q8_0] {
        for columns in [32, 96, 896, 1056] {
            for tokens in [1, 4, 19, 300] {
                let rows = if tokens == 300 { 5 } else { 40 };
                let bytes = blocks(ty, rows * columns / ty.block_elements(), &mut random, usual);
                let input = random.values(tokens * columns);
                check(ty, &bytes, (rows, columns), &input, &pool);
            }
        }
    }
}

#[test]
fn extreme_blocks_and_inputs_keep_to_the_reference() {
    let mut random = Random::new(9);
    let pool = Pool::new(1).unwrap();
    let scales: [fn(&mut Random) -> f16; 4] = [
        |_| f16::ZERO,
        |_| f16::from_bits(1),
        |_| f16::from_f32(-300.0),
        |random| f16::from_f32(random.value() * 1e-3),
    ];
    let inputs: [fn(&mut Random) -> f32; 5] = [
        |_| 0.0,
        |_| 1.0,
        |random| if random.below(64) == 0 { 1e4 } else { 1e-3 },
        |random| random.value() * 1e-36,
        |_| -1e-40,
    ];
    for ty in WeightType::ALL {
        for scale in scales {
            for input in inputs {
                let bytes = blocks(ty, 3 * 512 / ty.block_elements(), &mut random, scale);
                for tokens in [1, 2, 17] {
                    let input: Vec<f32> = (0..tokens * 512).map(|_| input(&mut random)).collect();
                    check_scaled(ty, &bytes, (3, 512), &input, &pool);
                }
            }
        }
    }
}

/// As `check`, with a bound that follows the magnitudes alone.
fn check_scaled(ty: WeightType, bytes: &[u8], shape: (usize, usize), input: &[f32], pool: &Pool) {
    let (rows, columns) = shape;
    let tokens = input.len() / columns;
    let matrix = QuantizedMatrix::pack(pool, ty, bytes, rows, columns).unwrap();
    let mut activations = Activations::new();
    activations.set(pool, input, tokens, columns);
    let expected = reference(ty, bytes, shape, input);
    for set in InstructionSet::available() {
        let mut out = vec![0.0; tokens * rows];
        matrix.matmul_on(set, pool, &mut activations, &mut out, rows, Write::Set);
        let greatest = expected.iter().fold(0.0f64, |max, (_, magnitude)| max.max(*magnitude));
        for (value, (sum, _)) in out.iter().zip(&expected) {
            let error = (f64::from(*value) - sum).abs();
            assert!(error <= 1e-4 * greatest + 1e-35, "{} {ty}: {value}, expected {sum}", set.name());
        }
    }
}

#[test]
fn int8_activations_cost_less_than_one_percent() {
    let mut random = Random::new(10);
    let pool = Pool::new(2).unwrap();
    for ty in WeightType::ALL {
        let (rows, columns, tokens) = (64, 1024, 8);
        let bytes = blocks(ty, rows * columns / ty.block_elements(), &mut random, usual);
        let input = random.values(tokens * columns);
        let matrix = QuantizedMatrix::pack(&pool, ty, &bytes, rows, columns).unwrap();
        let mut activations = Activations::new();
        activations.set(&pool, &input, tokens, columns);
        let mut out = vec![0.0; tokens * rows];
        matrix.matmul(&pool, &mut activations, &mut out, rows, Write::Set);
        let size = ty.row_bytes(columns).unwrap();
        let (mut error, mut total) = (0.0f64, 0.0f64);
        for row in 0..rows {
            let mut weights = vec![0.0; columns];
            dequantize_row(ty, &bytes[row * size..][..size], &mut weights);
            for (token, input) in input.chunks_exact(columns).enumerate() {
                let exact: f64 = weights.iter().zip(input).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
                error += (exact - f64::from(out[token * rows + row])).powi(2);
                total += exact.powi(2);
            }
        }
        assert!((error / total).sqrt() < 0.01, "{ty}: {}", (error / total).sqrt());
    }
}

#[test]
fn wrong_shapes_are_refused_in_words() {
    let pool = Pool::new(1).unwrap();
    let pack = |ty, len: usize, rows, columns| {
        QuantizedMatrix::pack(&pool, ty, &vec![0; len], rows, columns).err().map(|error| error.to_string())
    };
    let cases = [
        (pack(WeightType::Q4K, 144, 1, 256), None),
        (
            pack(WeightType::Q4K, 0, 0, 256),
            Some("`Q4_K` matrix: expected at least one row and one column, found (0, 256)"),
        ),
        (
            pack(WeightType::Q4K, 144, 1, 96),
            Some(
                "`Q4_K` matrix: expected columns to be a multiple of 256, found 96; take a type with smaller blocks",
            ),
        ),
        (pack(WeightType::Q8_0, 33, 1, 32), Some("`Q8_0` matrix of (1, 32): expected 34 bytes, found 33")),
    ];
    for (found, expected) in cases {
        assert_eq!(found.as_deref(), expected);
    }
    assert!(
        pack(WeightType::F32, 8, usize::MAX, usize::MAX)
            .unwrap()
            .contains("expected 18446744073709551615 bytes, found 8")
    );
}

#[test]
fn matrix_from_packed_bytes_multiplies_as_the_packed_one_does() {
    let mut random = Random::new(21);
    let pool = Pool::new(2).unwrap();
    let (rows, columns, tokens) = (70, 512, 5);
    let input = random.values(tokens * columns);
    for ty in WeightType::ALL {
        let bytes = blocks(ty, rows * columns / ty.block_elements(), &mut random, usual);
        let packed = QuantizedMatrix::pack(&pool, ty, &bytes, rows, columns).unwrap();
        assert_eq!(Some(packed.packed().len()), pack::packed_bytes(ty, rows, columns));
        let (source, start) = held(packed.packed());
        let range = start..start + packed.packed().len();
        let read = QuantizedMatrix::from_packed(ty, source, range, rows, columns).unwrap();
        let product = |matrix: &QuantizedMatrix| {
            let mut activations = Activations::new();
            activations.set(&pool, &input, tokens, columns);
            let mut out = vec![0.0; tokens * rows];
            matrix.matmul(&pool, &mut activations, &mut out, rows, Write::Set);
            out
        };
        assert_eq!(product(&packed), product(&read), "{ty}");
    }
}

/// A holder of `bytes`, and where they begin in it: at a multiple of 64.
fn held(bytes: &[u8]) -> (PackedSource, usize) {
    let mut holder = vec![0; bytes.len() + 64];
    let start = holder.as_ptr().align_offset(64);
    holder[start..start + bytes.len()].copy_from_slice(bytes);
    (Arc::new(holder), start)
}

#[test]
fn packed_bytes_that_are_elsewhere_are_refused_in_words() {
    let (source, start) = held(&[0; 2 * 1088]);
    let read = |from: usize, to: usize, rows, columns| {
        let range = start.wrapping_add(from)..start.wrapping_add(to);
        QuantizedMatrix::from_packed(WeightType::Q8_0, source.clone(), range, rows, columns).err()
    };
    assert_eq!(read(0, 1088, 32, 32), None);
    assert_eq!(read(1088, 2176, 1, 32), None);
    for (from, to, rows, columns) in [
        (0, 1087, 32, 32),
        (0, 1088, 33, 32),
        (32, 1120, 32, 32),
        (1088, 0, 32, 32),
        (2176, 3264, 32, 32),
        (0, 1088, 32, 31),
        (0, 0, 0, 32),
        (0, 0, 32, 0),
        (0, 1088, usize::MAX, 32),
        (usize::MAX, 1088, usize::MAX, usize::MAX / 64 * 32),
    ] {
        let error = read(from, to, rows, columns).unwrap();
        assert!(matches!(error, PackError::Place { .. }), "{error}");
        assert!(error.to_string().contains("; pack it again"), "{error}");
    }
}

/// FNV-1a, 64 bits (Fowler, Noll and Vo).
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Files of packed bytes are kept between versions of the program. Where this fails, raise [`crate::PACKED_LAYOUT`] and put the new
/// hashes here.
#[test]
fn packed_bytes_change_with_the_layout() {
    let hashes = [
        0x35ef_d2a6_1d39_ce38,
        0x367f_c04c_684c_f57e,
        0x5731_efcd_9fc0_e435,
        0x1429_2b4e_43df_1539,
        0x9fa4_1b9b_c50f_e662,
        0x37a1_6851_454b_6e61,
        0x1208_03bc_d5cb_65ed,
        0x109f_a2a8_d9b4_91a0,
        0x2002_3e0b_84cd_71e2,
    ];
    let mut random = Random::new(7);
    let pool = Pool::new(1).unwrap();
    let found = WeightType::ALL.map(|ty| {
        let bytes = blocks(ty, 40 * 512 / ty.block_elements(), &mut random, usual);
        fnv(QuantizedMatrix::pack(&pool, ty, &bytes, 40, 512).unwrap().packed())
    });
    assert_eq!((crate::PACKED_LAYOUT, found), (1, hashes));
}

#[test]
fn gate_is_silu_of_what_was_there() {
    let mut random = Random::new(5);
    let mut gates = random.values(64);
    gates.extend([-1e30, -200.0, -88.0, -0.0, 0.0, 88.0, 200.0, 1e30]);
    let ups = random.values(gates.len());
    let bytes: Vec<u8> = ups.iter().flat_map(|up| up.to_le_bytes()).collect();
    let pool = Pool::new(1).unwrap();
    let matrix = QuantizedMatrix::pack(&pool, WeightType::F32, &bytes, gates.len(), 1).unwrap();
    let mut one = Activations::new();
    one.set(&pool, &[1.0], 1, 1);
    for set in InstructionSet::available() {
        let mut out = gates.clone();
        matrix.matmul_on(set, &pool, &mut one, &mut out, gates.len(), Write::Gate);
        for ((gate, up), value) in gates.iter().zip(&ups).zip(out) {
            let (gate, up) = (f64::from(*gate), f64::from(*up));
            let expected = gate / (1.0 + (-gate).exp()) * up;
            let bound = 1e-6 * expected.abs() + 1e-7 * gate.abs();
            assert!(
                (f64::from(value) - expected).abs() <= bound,
                "{}: {gate} and {up} gave {value}",
                set.name()
            );
        }
    }
}

#[test]
fn halves_are_the_matrices_of_their_rows() {
    let pool = Pool::new(2).unwrap();
    let mut random = Random::new(6);
    let (rows, columns) = (100, 256);
    let bytes = blocks(WeightType::Q4K, rows, &mut random, usual);
    let size = bytes.len() / rows;
    let pack = |rows: Range<usize>| {
        let bytes = &bytes[rows.start * size..rows.end * size];
        QuantizedMatrix::pack(&pool, WeightType::Q4K, bytes, rows.len(), columns).unwrap()
    };
    let (first, second) = pack(0..rows).split(64).unwrap();
    assert_eq!((first.rows(), first.packed()), (64, pack(0..64).packed()));
    assert_eq!((second.rows(), second.packed()), (36, pack(64..rows).packed()));
    for row in [0, 50, 100, 128] {
        assert!(pack(0..rows).split(row).is_none(), "{row}");
    }
}
