//! Memory of a language model, predicted from the header of its file.

use infer_kernels::{BLOCK_TOKENS, packed_bytes};

use super::config::DecoderConfig;
use super::decoder::matrices;
use super::gguf::{Gguf, GgufError};
use super::kv::KvPool;
use super::packed;
use super::scheduler::LOGIT_ROWS;
use crate::footprint::{Footprint, Need};
use crate::model::Capacity;

/// Bytes that loading leaves on the heap: a constant, and a part for each token and each merge of
/// the vocabulary. Measured with Phi-3, Qwen2.5 0.5B and SmolLM2, as the difference between a
/// server with and without the model, minus everything else that is listed here.
const LOADING_BYTES: u64 = 10 << 20;
const TOKEN_BYTES: u64 = 225;
const MERGE_BYTES: u64 = 175;

/// Page size of a mapped file in bytes.
const PAGE: u64 = 4 << 10;

/// Bytes that a page fault maps around the accessed address, on Linux, if they are in the page
/// cache.
const FAULT_AROUND: u64 = 64 << 10;

/// Number of different tokens that a busy server has seen.
const USUAL_TOKENS: u64 = 2_000;

/// Memory of the language model in `gguf`. With `mapped`, its matrices are mapped from the cache
/// folder; otherwise they are packed in memory.
///
/// # Errors
///
/// If the header is not of a supported model.
pub(crate) fn of(gguf: &Gguf, capacity: &Capacity, mapped: bool) -> Result<Footprint, GgufError> {
    let mut config = DecoderConfig::read(gguf, capacity.context_tokens)?;
    config.attention.kv_type = capacity.kv_type;
    let tokens = gguf.strings("tokenizer.ggml.tokens")?.map_or(0, |tokens| tokens.len());
    let merges = gguf.strings("tokenizer.ggml.merges")?.map_or(0, |merges| merges.len());
    let mut packed = if mapped { packed::HEADER_BYTES } else { 0 } as u64;
    for spec in matrices(gguf, &config, tokens)? {
        let bytes = packed_bytes(spec.ty, spec.rows, spec.columns).unwrap_or(0) as u64;
        packed = packed.saturating_add(bytes.next_multiple_of(packed::SECTION_ALIGNMENT as u64));
    }
    let weights = if mapped {
        Need::mapped("packed weights, mapped", packed)
    } else {
        Need::own("packed weights, in memory", packed)
    };
    let pool = KvPool::new(config.layers, config.attention.layer_bytes(), capacity.kv_bytes);
    let kv = (pool.capacity() * pool.block_bytes()) as u64;
    let text = LOADING_BYTES + tokens as u64 * TOKEN_BYTES + merges as u64 * MERGE_BYTES;
    Ok(Footprint {
        needs: vec![
            weights,
            Need::own("keys and values", kv),
            Need::own("buffers of a pass", pass(&config, capacity, tokens)),
            Need::own("tokenizer", text),
            file(gguf, &config, pool.capacity() * BLOCK_TOKENS),
        ],
    })
}

/// Size of the buffers of a pass of `max_batch` rows, and of the position tables.
fn pass(config: &DecoderConfig, capacity: &Capacity, vocabulary: usize) -> u64 {
    let DecoderConfig { family, hidden, feed_forward, experts, attention, context, ropes, .. } = config;
    let width = (*hidden).max(attention.out_columns());
    // Inputs of products are kept as f32, and in up to two int8 forms with a scale for each 32
    // values.
    let input = |columns: usize| columns * 4 + 2 * (columns + columns / 8);
    let branch = if family.post_norms { 4 * hidden } else { 0 };
    // Scores, the chosen rows, their products and sums.
    let experts = experts.map_or(0, |experts| 4 * experts.count + input(*hidden) + 8 * hidden);
    let row =
        8 * hidden + branch + experts + 4 * attention.qkv_columns() + input(width) + input(*feed_forward);
    let logits = 4 * LOGIT_ROWS * vocabulary;
    let positions = 4 * context * ropes.iter().map(|rope| rope.dims).sum::<usize>();
    (capacity.max_batch * row + logits + positions) as u64
}

/// The part of the model's own file that is mapped after its matrices are packed: the header, the
/// norms, and the embeddings of the tokens that were seen, each with the pages around it.
fn file(gguf: &Gguf, config: &DecoderConfig, seen: usize) -> Need {
    let table = gguf.tensor("token_embd.weight").map_or(0, |table| table.data.len() as u64);
    let header = gguf.header_bytes() as u64;
    let family = config.family;
    let norms = [true, family.post_norms, family.head_norms].into_iter().filter(|norms| *norms).count();
    let norms = 2 * (norms * config.layers) as u64;
    let seen = (seen as u64).min(USUAL_TOKENS);
    Need {
        max_bytes: header + table + norms * FAULT_AROUND,
        ..Need::mapped("file: header, embeddings", header + table.min(seen * PAGE) + norms * PAGE)
    }
}
