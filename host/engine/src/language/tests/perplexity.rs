//! Perplexity of a real model on a fixed text, compared with llama.cpp.

use super::support::{cached, decoder_of, file, logits};
use crate::language::gguf::Gguf;
use crate::language::sampler::log_sum_exp;
use crate::language::tokenizer::Tokenizer;
use crate::weights::bytes::Bytes;

/// Tokens of a chunk. The second half of each chunk is scored.
const CHUNK: usize = 512;

/// Perplexity by this engine, as `llama-perplexity -f tests/data/language/kjv.txt -c 512` of
/// llama-cpp-python 0.3.36 computes it: each chunk begins with BOS if the model has one.
/// benches/peers/llamacpp.py builds the program.
fn perplexity(model: &str, name: &str) -> f64 {
    let path = cached(model, name);
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(Bytes::map(&path).unwrap()).unwrap()).unwrap();
    let text = std::fs::read_to_string(file("kjv.txt")).unwrap();
    let mut tokens: Vec<u32> = tokenizer.bos().into_iter().collect();
    tokens.extend(tokenizer.encode(&text).unwrap());
    let (mut decoder, pool) = decoder_of(&path, CHUNK);
    let (mut sum, mut count) = (0.0, 0);
    for chunk in tokens.chunks_exact_mut(CHUNK) {
        chunk[0] = tokenizer.bos().unwrap_or(chunk[0]);
        let rows = logits(&mut decoder, &pool, chunk, 128);
        for at in CHUNK / 2..CHUNK - 1 {
            sum += f64::from(log_sum_exp(&rows[at]) - rows[at][chunk[at + 1] as usize]);
            count += 1;
        }
    }
    let perplexity = (sum / f64::from(count)).exp();
    println!("perplexity {perplexity:.4} over {count} tokens");
    perplexity
}

/// Asserts that `found` is within 0.5 % of `expected`.
fn assert_near(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() <= 0.005, "{found}, expected {expected}");
}

#[test]
#[ignore = "needs 1.1 GB: make test-models"]
fn perplexity_of_qwen2_matches_llama_cpp() {
    // 24 chunks, ± 0.229 over the text.
    assert_near(perplexity("qwen2.5-1.5b", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"), 7.7203);
}

#[test]
#[ignore = "needs 253 MB: make test-models"]
fn perplexity_of_gemma3_matches_llama_cpp() {
    // ± 0.502 over the text. tests/scripts/reference.py, in f64, computes 14.7568.
    assert_near(perplexity("gemma-3-270m", "gemma-3-270m-q4_k_m.gguf"), 14.8081);
}
