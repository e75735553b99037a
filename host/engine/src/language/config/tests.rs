//! Metadata that is read, and metadata that is rejected.

use super::*;
use crate::language::gguf::write::Writer;
use crate::weights::bytes::Bytes;

fn writer() -> Writer {
    family("llama", 1)
}

fn factors(writer: &Writer) -> Result<Option<Vec<f32>>, GgufError> {
    let gguf = Gguf::parse(Bytes::Owned(writer.build()))?;
    DecoderConfig::read(&gguf, 64).map(|config| config.ropes[0].factors.clone())
}

#[test]
fn rope_factors_match_llama_cpp() {
    let (kind, factor, old) =
        ("llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.rope.scale_linear");
    let cases = [
        (writer(), None),
        (writer().f32(factor, 4.0), Some(4.0)),
        (writer().f32(old, 4.0), Some(4.0)),
        (writer().f32(factor, 2.0).f32(old, 4.0), Some(2.0)),
        (writer().text(kind, "linear").f32(factor, 4.0), Some(4.0)),
        (writer().text(kind, "none").f32(factor, 4.0), None),
        (writer().f32(factor, 0.0), None),
    ];
    for (index, (writer, expected)) in cases.into_iter().enumerate() {
        assert_eq!(factors(&writer).unwrap(), expected.map(|factor| vec![factor; 2]), "case {index}");
    }
}

#[test]
fn longrope_without_its_list_is_rejected() {
    let list = |writer: Writer, name: &str| writer.tensor(name, &[2], 0, [1.5_f32.to_le_bytes(); 2].concat());
    let (short, long) = ("rope_factors_short.weight", "rope_factors_long.weight");
    let original = "llama.rope.scaling.original_context_length";
    let scaled = || writer().text("llama.rope.scaling.type", "longrope");
    let cases = [
        (scaled(), short),
        (scaled().u32(original, 32), long),
        (list(writer().u32(original, 32), short), long),
        (list(writer().u32(original, 64), long), short),
    ];
    for (writer, missing) in cases {
        let error = factors(&writer).unwrap_err().to_string();
        let expected = format!("tensor `{missing}` is missing, and a context of 64 tokens needs it");
        assert!(error.starts_with(&expected), "{error}");
    }
    assert_eq!(factors(&list(scaled(), short)).unwrap(), Some(vec![1.5; 2]));
    // The 4,096-token file of Phi-3 gives its training context, and has no lists.
    assert_eq!(factors(&writer().u32(original, 64)).unwrap(), None);
}

/// A file of `architecture` with `layers` layers, a width of 8 and two heads.
fn family(architecture: &str, layers: u32) -> Writer {
    let key = |name: &str| format!("{architecture}.{name}");
    Writer::new(architecture)
        .u32(&key("block_count"), layers)
        .u32(&key("embedding_length"), 8)
        .u32(&key("feed_forward_length"), 8)
        .u32(&key("attention.head_count"), 2)
        .u32(&key("context_length"), 64)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5)
}

fn read(writer: &Writer) -> Result<DecoderConfig, String> {
    let gguf = Gguf::parse(Bytes::Owned(writer.build())).map_err(|error| error.to_string())?;
    DecoderConfig::read(&gguf, 64).map_err(|error| error.to_string())
}

#[test]
fn windows_follow_the_pattern() {
    let window = "gemma3.attention.sliding_window";
    let pattern = "gemma3.attention.sliding_window_pattern";
    let windowed = || family("gemma3", 7).u32(window, 8);
    let cases = [
        (family("gemma3", 7), "......."),
        (windowed(), "lllll.l"),
        (windowed().u32(window, 0), "......."),
        (windowed().u32(pattern, 2), "l.l.l.l"),
        (windowed().u32(pattern, 1), "......."),
        (windowed().u32(pattern, 0), "lllllll"),
        (windowed().bools(pattern, &[true, false, false, true, true, false, true]), "l..ll.l"),
        (family("gemma2", 5), "l.l.l"),
        (family("llama", 2).u32("llama.attention.sliding_window", 8), "ll"),
    ];
    for (index, (writer, expected)) in cases.into_iter().enumerate() {
        let config = read(&writer).unwrap();
        let found = |reach: &Reach| if reach.window.is_some() { 'l' } else { '.' };
        assert_eq!(config.reach.iter().map(found).collect::<String>(), expected, "case {index}");
    }
    assert_eq!(read(&family("gemma2", 1)).unwrap().reach[0].window, Some(4_096));
}

#[test]
fn rotations_differ_by_layer() {
    let gemma = family("gemma3", 6)
        .u32("gemma3.attention.sliding_window", 8)
        .f32("gemma3.rope.freq_base", 1e6)
        .f32("gemma3.rope.scaling.factor", 8.0);
    let rotations = |writer: &Writer| {
        let config = read(writer).unwrap();
        let of = |reach: &Reach| config.ropes[reach.rope].clone();
        config.reach.iter().map(of).collect::<Vec<_>>()
    };
    let found = rotations(&gemma);
    let style = infer_kernels::RopeStyle::Halves;
    let global = RopeConfig { dims: 4, ..RopeConfig::none(style) };
    assert_eq!(found[5], RopeConfig { factors: Some(vec![8.0; 2]), ..global.unscaled(1e6) });
    assert!(found[..5].iter().all(|own| *own == global.unscaled(1e4)));
    let dims = |writer: &Writer| rotations(writer).iter().map(|own| own.dims).collect::<Vec<_>>();
    assert_eq!(dims(&family("smollm3", 9)), [4, 4, 4, 0, 4, 4, 4, 0, 4]);
    let granite = family("granite", 2).f32("granite.logit_scale", 8.0);
    assert_eq!(dims(&granite), [4, 4]);
    assert_eq!(dims(&granite.bool("granite.rope.scaling.finetuned", false)), [0, 0]);
}

#[test]
fn scales_and_caps_come_from_family_or_file() {
    let root = 8.0_f32.sqrt();
    let scales = |writer: &Writer| {
        let found = read(writer).unwrap();
        let DecoderConfig { attention, embedding_scale, residual_scale, logit_scale, logit_cap, .. } = found;
        ([attention.scale, embedding_scale, residual_scale, logit_scale], [attention.soft_cap, logit_cap])
    };
    let granite = family("granite", 1)
        .f32("granite.attention.scale", 0.25)
        .f32("granite.embedding_scale", 12.0)
        .f32("granite.residual_scale", 0.5)
        .f32("granite.logit_scale", 8.0);
    assert_eq!(scales(&granite), ([0.25, 12.0, 0.5, 0.125], [None, None]));
    assert_eq!(scales(&family("llama", 1)), ([0.5, 1.0, 1.0, 1.0], [None, None]));
    assert_eq!(scales(&family("gemma3", 1)), ([0.5, root, 1.0, 1.0], [None, None]));
    assert_eq!(scales(&family("gemma2", 1)), ([0.5, root, 1.0, 1.0], [Some(50.0), Some(30.0)]));
    let capped = family("gemma2", 1).f32("gemma2.attn_logit_softcapping", 20.0);
    assert_eq!(scales(&capped).1, [Some(20.0), Some(30.0)]);
    // Heads of 2 features, but scores divided by the root of 8 / 2 in the largest model.
    let large = family("gemma2", 46).u32("gemma2.attention.key_length", 2);
    assert_eq!(scales(&large).0[0], 0.5);
}

#[test]
fn unusable_metadata_is_rejected_by_key() {
    let pattern = "gemma3.attention.sliding_window_pattern";
    let windowed = || family("gemma3", 7).u32("gemma3.attention.sliding_window", 8);
    let moe = || family("qwen3moe", 1).u32("qwen3moe.expert_count", 8).u32("qwen3moe.expert_used_count", 2);
    let yarn = || family("llama", 1).text("llama.rope.scaling.type", "yarn");
    let cases = [
        (family("mamba", 1), "key `general.architecture` is `mamba`, expected one of `llama`, `phi3`, "),
        (windowed().bools(pattern, &[true; 6]), "key `gemma3.attention.sliding_window_pattern` has 6 values"),
        (
            windowed().u32(pattern, 513),
            "key `gemma3.attention.sliding_window_pattern` is 513, expected 0 to 512",
        ),
        (windowed().text(pattern, "x"), "key `gemma3.attention.sliding_window_pattern` is the string"),
        (
            family("gemma2", 1).f32("gemma2.final_logit_softcapping", -30.0),
            "key `gemma2.final_logit_softcapping` is -30,",
        ),
        (family("granite", 1).f32("granite.logit_scale", 1e9), "key `granite.logit_scale` is 1000000000,"),
        (
            family("llama", 1).u32("llama.attention.value_length", 3),
            "key `llama.attention.value_length` is 3,",
        ),
        (
            family("gemma3", 1).f32("gemma3.rope.freq_base_swa", 0.5),
            "key `gemma3.rope.freq_base_swa` is 0.5,",
        ),
        (
            moe().u32("qwen3moe.expert_used_count", 9),
            "key `qwen3moe.expert_used_count` is 9, expected 1 to 8",
        ),
        (moe().u32("qwen3moe.expert_count", 0), "key `qwen3moe.expert_count` is 0, expected 1 to 1024"),
        (moe().without("qwen3moe.expert_count"), "key `qwen3moe.expert_count` is missing"),
        (yarn().f32("llama.rope.scaling.factor", -4.0), "key `llama.rope` has a factor"),
        (
            yarn().f32("llama.rope.scaling.yarn_beta_fast", -1.0),
            "key `llama.rope.scaling.yarn_beta_fast` is -1,",
        ),
    ];
    for (writer, expected) in cases {
        let error = read(&writer).unwrap_err();
        assert!(error.starts_with(expected), "{error}, expected {expected}");
    }
}
