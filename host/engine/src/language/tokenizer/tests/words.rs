//! Words of each pre-tokenizer, compared with those of other regular expression engines.
//! `tests/data/tokenizers/words.py` wrote the cases.

use std::collections::BTreeMap;

use serde::Deserialize;
use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

use super::{data, named};
use crate::language::gguf::Gguf;
use crate::language::tokenizer::Tokenizer;
use crate::language::tokenizer::encode::Encoder;
use crate::weights::bytes::Bytes;

#[derive(Deserialize)]
struct Golden {
    lines: Vec<String>,
    texts: Vec<String>,
    pre: BTreeMap<String, Split>,
}

#[derive(Deserialize)]
struct Split {
    words: Vec<Vec<usize>>,
    ids: Vec<Vec<u32>>,
}

fn golden() -> Golden {
    serde_json::from_slice(&std::fs::read(data("words.json")).unwrap()).unwrap()
}

/// Qwen2's small vocabulary with another pre-tokenizer.
fn with(pre: &str) -> Tokenizer {
    let mut file = std::fs::read(data("qwen2.gguf")).unwrap();
    let key = b"tokenizer.ggml.pre";
    let value = file.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
    assert_eq!(&file[value..value + 13], b"\x05\0\0\0\0\0\0\0qwen2");
    file.splice(value..value + 13, [&(pre.len() as u64).to_le_bytes(), pre.as_bytes()].concat());
    Tokenizer::from_gguf(&Gguf::parse(Bytes::Owned(file)).unwrap()).unwrap()
}

#[test]
fn words_equal_those_of_other_engines() {
    let golden = golden();
    assert!(golden.lines.len() > 2_000 && golden.pre.len() == 6);
    for (name, expected) in &golden.pre {
        let tokenizer = with(name);
        let Encoder::ByteLevel(encoder) = &tokenizer.encoder else { panic!("{name} is byte-level") };
        let pre_tokenizer = encoder.get_pre_tokenizer().unwrap();
        for (line, expected) in golden.lines.iter().zip(&expected.words) {
            let mut split = PreTokenizedString::from(line.as_str());
            pre_tokenizer.pre_tokenize(&mut split).unwrap();
            let words = split.get_splits(OffsetReferential::Original, OffsetType::Char);
            let words: Vec<usize> = words.iter().map(|(_, (start, end), _)| end - start).collect();
            assert_eq!(&words, expected, "{name}: {line:?}");
        }
    }
}

#[test]
fn ids_equal_those_of_other_engines() {
    let golden = golden();
    for (name, expected) in &golden.pre {
        let tokenizer = with(name);
        assert_eq!(golden.texts.len(), 47);
        for (text, ids) in golden.texts.iter().zip(&expected.ids) {
            assert_eq!(&tokenizer.encode(text).unwrap(), ids, "{name}: {text:?}");
        }
    }
}

#[test]
fn pre_tokenizer_decides_about_bos() {
    let first = Some(named("qwen2").control.get("<|endoftext|>").unwrap());
    for (name, expected) in
        [("llama3", first), ("llama-v3", first), ("tekken", first), ("gpt-4o", None), ("dbrx", None)]
    {
        assert_eq!(with(name).bos(), expected, "{name}");
    }
}

#[test]
fn repeated_characters_take_bounded_time() {
    // Each is a run on which some pattern backtracks; the encoder sees all of it.
    for name in golden().pre.keys() {
        let tokenizer = with(name);
        for run in ["A", "中", " ", "\n", "'", "a\u{301}", " \n", "1"] {
            let text = run.repeat((1 << 16) / run.len());
            let tokens = tokenizer.encode(&text).unwrap();
            let mut detokenizer = tokenizer.detokenizer();
            let decoded: String = tokens.iter().filter_map(|token| detokenizer.push(*token)).collect();
            // Qwen2's vocabulary composes `a` and its accent.
            assert!(decoded == text || run.starts_with('a'), "{name}: {run:?}");
        }
    }
}
