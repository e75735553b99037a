//! The small models that tests/scripts/small_models.py wrote, and passes over them.

use std::path::PathBuf;

use infer_kernels::Pool;

use crate::language::config::DecoderConfig;
use crate::language::decoder::{Decoder, Run};
use crate::language::gguf::Gguf;
use crate::language::kv::{KvPool, Sequence};
use crate::language::tokenizer::Tokenizer;
use crate::weights::bytes::Bytes;

pub(crate) fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/language").join(name)
}

/// A decoder, and a pool for its blocks.
pub(crate) fn decoder(name: &str, context: usize) -> (Decoder, KvPool) {
    let gguf = Gguf::parse(Bytes::map(&file(name)).unwrap()).unwrap();
    let vocabulary = gguf.tensor("token_embd.weight").unwrap().unwrap().shape[0];
    let config = DecoderConfig::read(&gguf, context).unwrap();
    let decoder = Decoder::load(gguf, config, vocabulary, Pool::new(2).unwrap()).unwrap();
    let config = decoder.config();
    let pool = KvPool::new(config.layers, config.attention.layer_elements(), 64 << 20);
    (decoder, pool)
}

/// The tokenizer of the same file.
pub(crate) fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_gguf(&Gguf::parse(Bytes::map(&file(name)).unwrap()).unwrap()).unwrap()
}

/// The logits after each of `tokens`, computed in passes of at most `chunk` tokens.
pub(super) fn logits(decoder: &mut Decoder, pool: &KvPool, tokens: &[u32], chunk: usize) -> Vec<Vec<f32>> {
    let mut sequence = Sequence::default();
    let mut logits = Vec::new();
    for part in tokens.chunks(chunk) {
        let start = sequence.len();
        sequence.extend(pool, part).unwrap();
        decoder.forward(&mut [Run { sequence: &mut sequence, start, wanted: part.len() }]);
        let vocabulary = decoder.vocabulary();
        logits.extend(decoder.logits(0, part.len()).chunks_exact(vocabulary).map(<[f32]>::to_vec));
    }
    logits
}

/// The largest difference.
pub(super) fn distance(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
