//! Small models that tests/scripts/small_models.py wrote, and helpers to run them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use infer_kernels::{KvType, Pool};

use crate::card::Format;
use crate::language::config::DecoderConfig;
use crate::language::decoder::{Decoder, Packing, Run};
use crate::language::gguf::Gguf;
use crate::language::kv::{KvPool, Sequence};
use crate::language::tokenizer::Tokenizer;
use crate::language::{LanguageModel, Output, Params, Prompt, Request};
use crate::model::{Capacity, map_parts};
use crate::weights::{Bytes, PackedSlot};

/// Maximum difference caused by another order of summation, for logits with a spread of about 3.
pub(super) const TOLERANCE: f32 = 0.01;

/// A file of each family.
pub(super) const FILES: [&str; 10] = [
    "phi3-q4_k.gguf",
    "llama-q5_k.gguf",
    "qwen2-q5_0.gguf",
    "qwen3-q8_0.gguf",
    "smollm3-q4_0.gguf",
    "granite-q8_0.gguf",
    "gemma3-q8_0.gguf",
    "gemma2-q8_0.gguf",
    "phi3-q8_0-phi4.gguf",
    "qwen3moe-f16.gguf",
];

pub(crate) fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/language").join(name)
}

/// Path of a real model in the cache folder.
pub(super) fn cached(model: &str, file: &str) -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("INFER_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("infer")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/infer")));
    let path = cache.expect("a cache folder").join("models").join(model).join(file);
    assert!(path.is_file(), "`{}` is missing: run `infer pull {model}`", path.display());
    path
}

/// A decoder of a small model, and a pool for its blocks.
pub(crate) fn decoder(name: &str, context: usize) -> (Decoder, KvPool) {
    decoder_of(&file(name), context)
}

/// A decoder, and a pool for its blocks.
pub(super) fn decoder_of(path: &Path, context: usize) -> (Decoder, KvPool) {
    decoder_with(path, context, KvType::F16)
}

/// A decoder with keys and values of this type, and a pool for its blocks.
pub(super) fn decoder_with(path: &Path, context: usize, kv_type: KvType) -> (Decoder, KvPool) {
    let decoder = load(path, context, None, kv_type);
    let config = decoder.config();
    let pool = KvPool::new(config.layers, config.attention.layer_bytes(), 512 << 20);
    (decoder, pool)
}

/// A decoder whose packed weights are cached in `slot`.
pub(crate) fn packed_decoder(path: &Path, context: usize, slot: Option<PackedSlot>) -> Decoder {
    load(path, context, slot, KvType::F16)
}

fn load(path: &Path, context: usize, slot: Option<PackedSlot>, kv_type: KvType) -> Decoder {
    let gguf = Gguf::parse_parts(map_parts(path).unwrap()).unwrap();
    let vocabulary = gguf.tensor("token_embd.weight").unwrap().shape[0];
    let mut config = DecoderConfig::read(&gguf, context).unwrap();
    config.attention.kv_type = kv_type;
    Decoder::load(gguf, config, vocabulary, Packing { pool: Pool::new(2).unwrap(), slot }).unwrap()
}

/// The tokenizer of a small model.
pub(crate) fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_gguf(&Gguf::parse(Bytes::map(&file(name)).unwrap()).unwrap()).unwrap()
}

/// The logits after each of `tokens`, computed in passes of at most `chunk` tokens.
pub(crate) fn logits(decoder: &mut Decoder, pool: &KvPool, tokens: &[u32], chunk: usize) -> Vec<Vec<f32>> {
    let mut sequence = Sequence::default();
    let mut logits = Vec::new();
    for part in tokens.chunks(chunk) {
        let start = sequence.len();
        sequence.extend(pool, part).unwrap();
        decoder.forward(&mut [Run { sequence: &mut sequence, start, logit_rows: part.len() }]);
        let vocabulary = decoder.vocabulary();
        logits.extend(decoder.logits(0, part.len()).chunks_exact(vocabulary).map(<[f32]>::to_vec));
    }
    logits
}

/// The largest absolute difference.
pub(super) fn distance(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

pub(crate) fn tokens(n: u32, seed: u32) -> Vec<u32> {
    (0..n).map(|i| 3 + (i * i * 7 + i * 13 + seed * 101) % 300).collect()
}

pub(super) fn model(name: &str) -> LanguageModel {
    let capacity =
        Capacity { context_tokens: 256, max_batch: 32, kv_bytes: 8 << 20, ..Capacity::of(Format::Gguf) };
    LanguageModel::load(name, vec![Bytes::map(&file(name)).unwrap()], None, &capacity).unwrap()
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

pub(crate) fn score(prompt: Vec<u32>, choices: &[&str]) -> Request {
    let choices = Some(choices.iter().map(|&choice| choice.to_owned()).collect());
    Request { prompt: Prompt::Tokens(prompt), choices, params: Params::default() }
}

pub(super) fn generate(prompt: Vec<u32>, max_tokens: usize) -> Request {
    let params = Params { max_tokens, ..Params::default() };
    Request { prompt: Prompt::Tokens(prompt), choices: None, params }
}

pub(crate) fn scores(output: Output) -> Vec<f32> {
    match output {
        Output::Scores(scores) => scores,
        Output::Text { .. } => panic!("text"),
    }
}

pub(super) fn text(prompt: &str, choices: &[&str]) -> Request {
    Request { prompt: Prompt::Text(prompt.to_owned()), ..score(Vec::new(), choices) }
}
