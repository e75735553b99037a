use super::*;
use crate::norm::Activation;
use crate::testing::{Random, blocks, usual};

#[test]
fn wrong_shapes_are_rejected() {
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
                "`Q4_K` matrix: expected columns to be a multiple of 256, found 96; use a type with smaller blocks",
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
fn reopened_packed_matrix_has_equal_products() {
    let mut random = Random::new(21);
    let pool = Pool::new(2).unwrap();
    let (rows, columns, tokens) = (70, 512, 5);
    let input = random.values(tokens * columns);
    for ty in WeightType::ALL {
        let bytes = blocks(ty, rows * columns / ty.block_elements(), &mut random, usual);
        let packed = QuantizedMatrix::pack(&pool, ty, &bytes, rows, columns).unwrap();
        assert_eq!(Some(packed.packed().len()), pack::packed_bytes(ty, rows, columns));
        let (source, start) = aligned_source(packed.packed());
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

/// Copies `bytes` into a source at a multiple of 64, and returns the source and the offset.
fn aligned_source(bytes: &[u8]) -> (PackedSource, usize) {
    let mut holder = vec![0; bytes.len() + 64];
    let start = holder.as_ptr().align_offset(64);
    holder[start..start + bytes.len()].copy_from_slice(bytes);
    (Arc::new(holder), start)
}

#[test]
fn misplaced_packed_bytes_are_rejected() {
    let (source, start) = aligned_source(&[0; 2 * 1088]);
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
        assert!(matches!(error, PackError::Range { .. }), "{error}");
        assert!(error.to_string().contains("; pack it again"), "{error}");
    }
}

/// FNV-1a, 64 bits (Fowler, Noll and Vo).
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Files of packed bytes outlive a version of the program. If this test fails, increase
/// [`crate::PACKED_LAYOUT`] and store the new hashes here.
#[test]
fn packed_bytes_change_with_the_layout() {
    let expected = [
        (WeightType::F32, 0x35ef_d2a6_1d39_ce38),
        (WeightType::F16, 0x367f_c04c_684c_f57e),
        (WeightType::Q4_0, 0x5731_efcd_9fc0_e435),
        (WeightType::Q4_1, 0x1429_2b4e_43df_1539),
        (WeightType::Q5_0, 0x9fa4_1b9b_c50f_e662),
        (WeightType::Q8_0, 0x37a1_6851_454b_6e61),
        (WeightType::Q4K, 0x1208_03bc_d5cb_65ed),
        (WeightType::Q5K, 0x109f_a2a8_d9b4_91a0),
        (WeightType::Q6K, 0x2002_3e0b_84cd_71e2),
        (WeightType::Q5_1, 0x4d92_3cf8_8e88_d930),
        (WeightType::Q2K, 0x8122_8847_8caf_ac04),
        (WeightType::Q3K, 0xd98c_9bd9_fc2c_45e0),
        (WeightType::Iq4Nl, 0xa9ba_e883_bf60_dafe),
        (WeightType::Iq4Xs, 0x2e02_940d_1742_b89d),
        (WeightType::Bf16, 0xad71_b12d_3f2b_6172),
        (WeightType::Mxfp4, 0x308d_1d52_3aac_cec1),
    ];
    let mut random = Random::new(7);
    let pool = Pool::new(1).unwrap();
    let found = expected.map(|(ty, _)| {
        let bytes = blocks(ty, 40 * 512 / ty.block_elements(), &mut random, usual);
        (ty, fnv(QuantizedMatrix::pack(&pool, ty, &bytes, 40, 512).unwrap().packed()))
    });
    assert_eq!((crate::PACKED_LAYOUT, found), (1, expected));
    assert_eq!(found.len(), WeightType::ALL.len());
}

/// Exact, because the input is 127 · 2⁻⁸ in one column and its code 127.
#[test]
fn mxfp4_scales_are_exact_powers_of_two() {
    let pool = Pool::new(1).unwrap();
    let mut block = [0; 17];
    block[1] = 1;
    let bytes: Vec<u8> = (0..=255).flat_map(|exponent| [&[exponent], &block[1..]].concat()).collect();
    let matrix = QuantizedMatrix::pack(&pool, WeightType::Mxfp4, &bytes, 256, 32).unwrap();
    for tokens in [1, 49] {
        let mut input = vec![0.0; tokens * 32];
        input.chunks_mut(32).for_each(|token| token[0] = 127.0 / 256.0);
        let mut activations = Activations::new();
        activations.set(&pool, &input, tokens, 32);
        for set in InstructionSet::available() {
            let mut out = vec![0.0; tokens * 256];
            matrix.matmul_on(set, &pool, &mut activations, &mut out, 256, Write::Set);
            for (exponent, value) in out.iter().enumerate() {
                let expected = 127.0 * 2f64.powi((exponent % 256) as i32 - 136);
                assert_eq!(f64::from(*value), expected, "{}: exponent {exponent}", set.name());
            }
        }
    }
}

#[test]
fn gate_multiplies_activation_of_output() {
    let mut random = Random::new(5);
    let mut gates = random.values(64);
    gates.extend([-1e30, -200.0, -88.0, -5.0, -0.0, 0.0, 5.0, 88.0, 200.0, 1e30]);
    let ups = random.values(gates.len());
    let bytes: Vec<u8> = ups.iter().flat_map(|up| up.to_le_bytes()).collect();
    let pool = Pool::new(1).unwrap();
    let matrix = QuantizedMatrix::pack(&pool, WeightType::F32, &bytes, gates.len(), 1).unwrap();
    let mut one = Activations::new();
    one.set(&pool, &[1.0], 1, 1);
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let gelu =
        |x: f64| x / 2.0 * (1.0 + (std::f64::consts::FRAC_2_PI.sqrt() * (x + 0.044_715 * x.powi(3))).tanh());
    let cases: [(Activation, &dyn Fn(f64) -> f64); 2] =
        [(Activation::Silu, &silu), (Activation::GeluTanh, &gelu)];
    for (set, (activation, exact)) in
        InstructionSet::available().flat_map(|set| cases.map(|case| (set, case)))
    {
        let mut out = gates.clone();
        matrix.matmul_on(set, &pool, &mut one, &mut out, gates.len(), Write::Gate(activation));
        for ((gate, up), value) in gates.iter().zip(&ups).zip(out) {
            let (gate, up) = (f64::from(*gate), f64::from(*up));
            let expected = exact(gate) * up;
            let bound = 1e-6 * expected.abs() + 1e-7 * gate.abs();
            assert!(
                (f64::from(value) - expected).abs() <= bound,
                "{}, {activation:?}: {gate} and {up} gave {value}",
                set.name()
            );
        }
    }
}

#[test]
fn scaled_products_are_added() {
    let pool = Pool::new(1).unwrap();
    let weights: Vec<u8> = (0..35u8).flat_map(|row| f32::from(row).to_le_bytes()).collect();
    let matrix = QuantizedMatrix::pack(&pool, WeightType::F32, &weights, 35, 1).unwrap();
    let mut two = Activations::new();
    two.set(&pool, &[2.0], 1, 1);
    for set in InstructionSet::available() {
        let mut out = vec![1.0; 35];
        matrix.matmul_on(set, &pool, &mut two, &mut out, 35, Write::Add(0.25));
        let expected: Vec<f32> = (0..35u8).map(|row| 1.0 + 0.5 * f32::from(row)).collect();
        assert_eq!(out, expected, "{}", set.name());
    }
}

#[test]
fn split_equals_packing_the_halves() {
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
