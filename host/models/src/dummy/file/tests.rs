//! Writes a small file of each mix and reads it again.

use super::*;
use crate::dummy::blocks::BlockType;
use crate::dummy::sizes::Sizes;

fn sizes() -> Sizes {
    Sizes { vocabulary: 64, embedding: 512, feed_forward: 768, layers: 8, ..*Model::Phi3.sizes() }
}

const MIXES: [Mix; 3] = [Mix::Q4KM, Mix::Q4_0, Mix::Q8_0];

fn small(mix: Mix, seed: u64) -> Vec<u8> {
    let tensors = tensors(&sizes(), mix);
    let mut file = header::write(&sizes(), &tensors, mix.file_type()).unwrap();
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
        BlockType::Q5_0 => (0..32)
            .map(|i| {
                let low = if i < 16 { block[6 + i] & 15 } else { block[6 + i - 16] >> 4 };
                let high = block[2 + i / 8] >> (i % 8) & 1;
                half(0) * (f32::from(low | high << 4) - 16.0)
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
    use BlockType::{Q4_0, Q4K, Q5_0, Q5K, Q6K, Q8_0};
    let types = [Q4_0, Q5_0, Q8_0, Q4K, Q5K, Q6K];
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
    let sizes = Model::Phi3.sizes();
    let tensors = tensors(sizes, Mix::Q4KM);
    let header = header::write(sizes, &tensors, 15).unwrap().len();
    let data: usize = tensors.iter().map(Tensor::bytes).sum();
    // 2,393,231,072 bytes minus a header with much the same metadata.
    assert_eq!(tensors.len(), 195);
    assert_eq!(data, 2_392_493_568);
    assert!((2_393_231_072 - data).abs_diff(header) < 4_096, "{header}");
}

#[test]
fn layers_get_the_bits_of_llama_cpp() {
    let of = |layer| Mix::Q4KM.type_of("ffn_down.weight", layer, 32, 8_192);
    let more: Vec<_> = (0..32).filter(|layer| of(*layer) == BlockType::Q6K).collect();
    assert_eq!(more, [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
}

#[test]
fn parameters_add_up_to_the_published_counts() {
    let cases = [
        (Model::Phi3, 3_821_079_552),
        (Model::Phi4Mini, 3_836_021_760),
        (Model::Qwen3, 596_049_920),
        (Model::Llama32, 1_235_814_400),
        (Model::Gemma3, 999_885_952),
    ];
    for (model, published) in cases {
        let tensors = tensors(model.sizes(), Mix::Q4KM);
        let weights = tensors.iter().filter(|tensor| !tensor.name.starts_with("rope"));
        assert_eq!(weights.map(|tensor| tensor.rows * tensor.columns).sum::<usize>(), published, "{model:?}");
        for mix in MIXES {
            header::write(model.sizes(), &self::tensors(model.sizes(), mix), mix.file_type()).unwrap();
        }
    }
}

#[test]
fn rows_of_odd_sizes_get_smaller_blocks() {
    let of = |tensor| Mix::Q4KM.type_of(tensor, 0, 32, 1_152);
    assert_eq!((of("attn_q.weight"), of("output.weight")), (BlockType::Q5_0, BlockType::Q8_0));
}
