//! Writes a small file of each mix and reads it again.

use super::*;

const SMALL: Sizes = Sizes { vocabulary: 64, embedding: 512, feed_forward: 768, layers: 8 };
const MIXES: [Mix; 3] = [Mix::Q4KM, Mix::Q4_0, Mix::Q8_0];

fn small(mix: Mix, seed: u64) -> Vec<u8> {
    let tensors = tensors(&SMALL, mix);
    let mut file = crate::dummy::header::write(&tensors, mix.file_type()).unwrap();
    weights(&tensors, seed, &mut file).unwrap();
    file
}

/// Decodes one block by the formulas of ggml's reference.
fn dequantise(ty: BlockType, block: &[u8]) -> Vec<f32> {
    let half = |at: usize| half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
    let pairs = |at: usize| {
        let scales = block[at..at + 12].to_vec();
        move |index: usize| match index {
            0..4 => (scales[index] & 63, scales[index + 4] & 63),
            _ => (
                (scales[index + 4] & 15) | (scales[index - 4] >> 6) << 4,
                (scales[index + 4] >> 4) | (scales[index] >> 6) << 4,
            ),
        }
    };
    let nibble = |at: usize, index: usize| {
        let byte = block[at + index / 64 * 32 + index % 32];
        if index % 64 < 32 { byte & 15 } else { byte >> 4 }
    };
    match ty {
        BlockType::F32 => vec![f32::from_le_bytes(block.try_into().unwrap())],
        BlockType::Q4_0 => (0..32)
            .map(|i| {
                let byte = block[2 + i % 16];
                half(0) * (f32::from(if i < 16 { byte & 15 } else { byte >> 4 }) - 8.0)
            })
            .collect(),
        BlockType::Q8_0 => block[2..].iter().map(|code| half(0) * f32::from(code.cast_signed())).collect(),
        BlockType::Q4K | BlockType::Q5K => (0..256)
            .map(|i| {
                let (scale, minimum) = pairs(4)(i / 32);
                let code = match ty {
                    BlockType::Q4K => nibble(16, i),
                    _ => nibble(48, i) | (block[16 + i % 32] >> (i / 32) & 1) << 4,
                };
                half(0) * f32::from(scale) * f32::from(code) - half(2) * f32::from(minimum)
            })
            .collect(),
        BlockType::Q6K => (0..256)
            .map(|i| {
                let (side, quarter, at) = (i / 128, i % 128 / 32, i % 32);
                let low = block[side * 64 + quarter % 2 * 32 + at] >> (quarter / 2 * 4) & 15;
                let high = block[128 + side * 32 + at] >> (quarter * 2) & 3;
                let scale = block[192 + i / 16].cast_signed();
                half(208) * f32::from(scale) * (f32::from(low | high << 4) - 32.0)
            })
            .collect(),
    }
}

#[test]
fn weights_have_zero_mean_and_small_deviation() {
    let types = [BlockType::Q4_0, BlockType::Q8_0, BlockType::Q4K, BlockType::Q5K, BlockType::Q6K];
    for ty in types {
        let mut blocks = vec![0; 400 * ty.bytes()];
        ty.fill(&mut Random::new(1, 2), &mut blocks);
        let values: Vec<_> = blocks.chunks(ty.bytes()).flat_map(|block| dequantise(ty, block)).collect();
        assert_eq!(values.len(), 400 * ty.elements());
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let deviation = (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt();
        assert!(mean.abs() < 0.001, "{ty:?}: mean {mean}");
        assert!((0.018..0.022).contains(&deviation), "{ty:?}: deviation {deviation}");
    }
}

#[test]
fn files_are_equal_for_equal_seeds_only() {
    for mix in MIXES {
        assert!(small(mix, 1) == small(mix, 1));
        assert!(small(mix, 1) != small(mix, 2));
    }
}

#[test]
fn full_size_equals_the_official_file() {
    let tensors = tensors(&PHI3, Mix::Q4KM);
    let header = crate::dummy::header::write(&tensors, 15).unwrap().len();
    let data: usize = tensors.iter().map(Tensor::bytes).sum();
    // 2,393,231,072 bytes minus a header with much the same metadata.
    assert_eq!(tensors.len(), 195);
    assert_eq!(data, 2_392_493_568);
    assert!((2_393_231_072 - data).abs_diff(header) < 4_096, "{header}");
}

#[test]
fn layers_get_the_bits_of_llama_cpp() {
    let of = |layer| Mix::Q4KM.type_of("ffn_down.weight", layer, 32);
    let more: Vec<_> = (0..32).filter(|layer| of(*layer) == BlockType::Q6K).collect();
    assert_eq!(more, [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
}
