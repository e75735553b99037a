//! Perplexity of a real model on a fixed text, compared with llama.cpp.

use super::support::{cached, decoder_of, file, logits};
use crate::language::gguf::Gguf;
use crate::language::sampler::log_sum_exp;
use crate::language::tokenizer::Tokenizer;
use crate::weights::bytes::Bytes;

/// Result of `llama-perplexity -f tests/data/language/kjv.txt -c 512` of llama-cpp-python 0.3.36
/// for this file (24 chunks, ± 0.229 over the text). benches/peers/llamacpp.py builds it.
const FILE: &str = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf";
const LLAMA_CPP: f64 = 7.7203;

/// Tokens of a chunk. The second half of each chunk is scored.
const CHUNK: usize = 512;

#[test]
#[ignore = "needs 1.1 GB: make test-models"]
fn perplexity_matches_llama_cpp() {
    let path = cached("qwen2.5-1.5b", FILE);
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(Bytes::map(&path).unwrap()).unwrap()).unwrap();
    let text = std::fs::read_to_string(file("kjv.txt")).unwrap();
    let tokens = tokenizer.encode(&text).unwrap();
    let (mut decoder, pool) = decoder_of(&path, CHUNK);
    let (mut sum, mut count) = (0.0, 0);
    for chunk in tokens.chunks_exact(CHUNK) {
        let rows = logits(&mut decoder, &pool, chunk, 128);
        for at in CHUNK / 2..CHUNK - 1 {
            sum += f64::from(log_sum_exp(&rows[at]) - rows[at][chunk[at + 1] as usize]);
            count += 1;
        }
    }
    let perplexity = (sum / f64::from(count)).exp();
    println!("perplexity {perplexity:.4}, llama.cpp {LLAMA_CPP}, over {count} tokens");
    assert!((perplexity / LLAMA_CPP - 1.0).abs() <= 0.005, "{perplexity}");
}
