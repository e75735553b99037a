//! Damaged files: any bytes are either rejected, or they work.

use infer_kernels::Pool;

use super::config::DecoderConfig;
use super::decoder::{Decoder, Packing, Run};
use super::gguf::Gguf;
use super::kv::{KvPool, Sequence};
use super::request::Message;
use super::tokenizer::Tokenizer;
use crate::weights::bytes::Bytes;

/// Parses `bytes` as a file, and uses everything in it. Returns true if the file has a tokenizer.
///
/// Asserts the invariants of every file: data has the length of its shape, ids are tokens of the
/// vocabulary, and a user's text adds no control tokens.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let Some(gguf) = parse(bytes) else { return false };
    for name in gguf.tensor_names() {
        let tensor = gguf.tensor(name).expect("a name that is listed has a tensor");
        let (columns, rows) = tensor.shape.split_last().expect("a tensor has a dimension");
        let row = tensor.ty.row_bytes(*columns).expect("a tensor has whole blocks");
        assert_eq!(tensor.data.len(), row * rows.iter().product::<usize>());
    }
    decode(bytes);
    let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) else { return false };
    const TEXT: &str = "ab </s><|im_end|>\n é😀";
    let within = |tokens: &[u32]| tokens.iter().all(|token| (*token as usize) < tokenizer.vocabulary_size());
    if let Ok(tokens) = tokenizer.encode(TEXT) {
        assert!(within(&tokens));
        let mut detokenizer = tokenizer.detokenizer();
        tokens.iter().for_each(|token| drop(detokenizer.push(*token)));
        detokenizer.finish();
        tokens.iter().for_each(|token| drop(tokenizer.token_text(*token)));
    }
    for continue_last in [false, true] {
        let turn = |role: &str| Message { role: role.to_owned(), content: TEXT.to_owned() };
        if let Ok(tokens) = tokenizer.encode_chat(&[turn("user"), turn("assistant")], continue_last) {
            assert!(within(&tokens));
        }
    }
    true
}

/// Parses `bytes` as files that follow each other, the parts of a model, or else as one file.
fn parse(bytes: &[u8]) -> Option<Gguf> {
    const MAGIC: &[u8] = b"GGUF";
    let mut starts: Vec<_> =
        bytes.windows(MAGIC.len()).enumerate().filter(|(_, four)| *four == MAGIC).map(|(at, _)| at).collect();
    starts.push(bytes.len());
    let files = starts.windows(2).map(|ends| Bytes::Owned(bytes[ends[0]..ends[1]].to_vec())).collect();
    let parts = if bytes.starts_with(MAGIC) { Gguf::parse_parts(files).ok() } else { None };
    parts.or_else(|| Gguf::parse(Bytes::Owned(bytes.to_vec())).ok())
}

/// Loads a decoder if the file describes a small one, and computes a pass. Returns true if a pass
/// was computed.
fn decode(bytes: &[u8]) -> bool {
    const CONTEXT: usize = 16;
    let Some(gguf) = parse(bytes) else { return false };
    let Ok(config) = DecoderConfig::read(&gguf, CONTEXT) else { return false };
    // A few bytes may describe a gigabyte of intermediate results. An operator may choose that;
    // this test skips it.
    let wide = [config.hidden, config.feed_forward, config.attention.qkv_columns()];
    let Some(table) = gguf.tensor("token_embd.weight") else { return false };
    let vocabulary = table.shape[0];
    if config.layers > 8 || vocabulary > 1 << 16 || wide.iter().any(|columns| *columns > 1 << 14) {
        return false;
    }
    let pool = Pool::new(1).expect("one thread is this one");
    let packing = Packing { pool, slot: None };
    let Ok(mut decoder) = Decoder::load(gguf, config, vocabulary, packing) else { return false };
    let config = decoder.config();
    let blocks = KvPool::new(config.layers, config.attention.layer_bytes(), 64 << 20);
    let mut sequence = Sequence::default();
    let tokens: Vec<u32> = (0..config.context.min(4)).map(|token| (token % vocabulary) as u32).collect();
    if sequence.extend(&blocks, &tokens).is_err() {
        return false;
    }
    decoder.forward(&mut [Run { sequence: &mut sequence, start: 0, logit_rows: 1 }]);
    assert_eq!(decoder.logits(0, 1).len(), vocabulary);
    true
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::language::tests::support;
    use crate::language::tokenizer::tests::{small, small_bytes};

    /// A copy of `file` with a few changes within its first `end` bytes.
    fn changed(file: &[u8], end: usize, random: &mut Rng) -> Vec<u8> {
        let special = [0, 1, 2, 3, 7, 8, 9, 12, 0x7f, 0x80, 0xff];
        let mut changed = file.to_vec();
        for _ in 0..=random.usize(..4) {
            let at = random.usize(..end.min(changed.len()));
            match random.usize(..5) {
                0 => changed[at] = random.u8(..),
                1 => changed[at] = special[random.usize(..special.len())],
                2 => changed[at] ^= 1 << random.usize(..8),
                3 => {
                    let end = (at + 1 + random.usize(..8)).min(changed.len());
                    changed.drain(at..end);
                }
                _ => changed.insert(at, special[random.usize(..special.len())]),
            }
        }
        changed
    }

    #[test]
    fn corrupted_models_are_rejected_or_compute() {
        let mut random = Rng::with_seed(7);
        let mut worked = 0;
        let parts = [1, 2, 3].map(|number| format!("split-0000{number}-of-00003.gguf"));
        let alone = [
            "phi3-q8_0-long.gguf",
            "llama-q4_1.gguf",
            "qwen2-few-bits.gguf",
            "gemma3-q4_0.gguf",
            "qwen3moe-q4_0.gguf",
        ];
        let read = |name: &String| std::fs::read(support::file(name)).unwrap();
        let files = alone.map(|name| vec![name.to_owned()]).into_iter().chain([parts.to_vec()]);
        for names in files {
            let file: Vec<u8> = names.iter().flat_map(read).collect();
            assert!(decode(&file), "{names:?}");
            // The sources of a decoder: the architecture's keys, and the names, shapes and offsets
            // of the tensors.
            let find = |text: &[u8]| file.windows(text.len()).position(|window| window == text).unwrap();
            let keys = find(b".block_count");
            let tensors = find(b"token_embd.weight");
            for round in 0..300 {
                let from = if round % 2 == 0 { keys - 24 } else { tensors.saturating_sub(400) };
                let tail = changed(&file[from..], 1_600, &mut random);
                worked += usize::from(decode(&[&file[..from], &tail].concat()));
            }
        }
        assert!((50..1_750).contains(&worked), "{worked}");
    }

    #[test]
    fn corrupted_files_are_rejected_or_work() {
        let template = "{% for m in messages %}<s>{{ m.role }}{{ m.content | trim }}</s>{% endfor %}";
        let with_tensors = |writer: crate::language::gguf::write::Writer| {
            writer
                .tensor("a.weight", &[2, 32], 2, vec![0; 36])
                .tensor("b.weight", &[4], 0, vec![0; 16])
                .build()
        };
        let files = [
            with_tensors(small().text("tokenizer.chat_template", template)),
            with_tensors(small_bytes().text("tokenizer.chat_template", template)),
        ];
        let mut random = Rng::with_seed(7);
        let mut worked = 0;
        for file in &files {
            assert!(exercise(file));
            for _ in 0..3_000 {
                let changed = changed(file, file.len(), &mut random);
                worked += usize::from(exercise(&changed));
            }
            for part in 0..64 {
                assert!(!exercise(&file[..file.len() * part / 64]));
            }
        }
        // The test would prove nothing if no change, or every change, left a working tokenizer.
        assert!((100..5_900).contains(&worked), "{worked}");
    }
}
