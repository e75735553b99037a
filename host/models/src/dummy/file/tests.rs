//! Writes a small file of each mix and reads it again.

use clap::ValueEnum as _;
use infer_kernels::{WeightType, dequantize_row};

use super::*;
use crate::dummy::sizes::Sizes;

fn sizes() -> Sizes {
    Sizes { vocabulary: 64, embedding: 512, feed_forward: 768, layers: 8, ..*Model::Phi3.sizes() }
}

fn small(mix: Mix, seed: u64) -> Vec<u8> {
    let tensors = tensors(&sizes(), mix);
    let mut file = header::write(&sizes(), &tensors, mix.file_type()).unwrap();
    weights(&tensors, seed, &mut file).unwrap();
    file
}

#[test]
fn weights_have_zero_mean_and_small_deviation() {
    let usual = Mix::value_variants().iter().map(|mix| mix.usual_type());
    for ty in usual.chain([WeightType::Q5_0, WeightType::Q5K, WeightType::Q6K]) {
        let mut values = vec![0.0; 400 * 256];
        let mut blocks = vec![0; values.len() / ty.block_elements() * ty.block_bytes()];
        fill(ty, &mut Random::new(1, 2), &mut blocks);
        dequantize_row(ty, &blocks, &mut values);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let deviation = (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt();
        assert!(mean.abs() < 0.001, "{ty:?}: mean {mean}");
        assert!((0.018..0.022).contains(&deviation), "{ty:?}: deviation {deviation}");
    }
}

#[test]
fn files_are_equal_for_equal_seeds_only() {
    for &mix in Mix::value_variants() {
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
    let more: Vec<_> = (0..32).filter(|layer| of(*layer) == WeightType::Q6K).collect();
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
        for &mix in Mix::value_variants() {
            header::write(model.sizes(), &self::tensors(model.sizes(), mix), mix.file_type()).unwrap();
        }
    }
}

#[test]
fn rows_of_odd_sizes_get_smaller_blocks() {
    let of = |tensor| Mix::Q4KM.type_of(tensor, 0, 32, 1_152);
    assert_eq!((of("attn_q.weight"), of("output.weight")), (WeightType::Q5_0, WeightType::Q8_0));
}
