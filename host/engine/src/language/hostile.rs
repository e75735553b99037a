//! Damaged files: whatever bytes come, they are refused or they work.

use super::gguf::Gguf;
use super::tokenizer::{Message, Tokenizer};
use crate::weights::bytes::Bytes;

/// Take `bytes` as a file, and use all that it gives. Whether it was a tokenizer.
///
/// What holds for any file is asserted: data has the length of its shape, ids are tokens, and a user's text adds none
/// that control.
pub(crate) fn exercise(bytes: &[u8]) -> bool {
    let Ok(gguf) = Gguf::parse(Bytes::Owned(bytes.to_vec())) else { return false };
    for name in gguf.tensor_names() {
        let tensor = gguf.tensor(name).ok().flatten();
        let tensor = tensor.expect("a name that is listed has a tensor");
        let (columns, rows) = tensor.shape.split_last().expect("a tensor has a dimension");
        let row = tensor.ty.row_bytes(*columns).expect("a tensor has whole blocks");
        assert_eq!(tensor.data.len(), row * rows.iter().product::<usize>());
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::tokenizer::tests::{small, small_bytes};

    /// Numbers that look random, the same in each run (Marsaglia's xorshift64).
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound as u64) as usize
        }
    }

    #[test]
    fn files_with_changed_bytes_are_refused_or_work() {
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
        let special = [0, 1, 2, 3, 7, 8, 9, 12, 0x7f, 0x80, 0xff];
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut worked = 0;
        for file in &files {
            assert!(exercise(file));
            for _ in 0..3_000 {
                let mut changed = file.clone();
                for _ in 0..=random.below(4) {
                    let at = random.below(changed.len());
                    match random.below(5) {
                        0 => changed[at] = random.below(256) as u8,
                        1 => changed[at] = special[random.below(special.len())],
                        2 => changed[at] ^= 1 << random.below(8),
                        3 => {
                            let end = (at + 1 + random.below(8)).min(changed.len());
                            changed.drain(at..end);
                        }
                        _ => changed.insert(at, special[random.below(special.len())]),
                    }
                }
                worked += usize::from(exercise(&changed));
            }
            for part in 0..64 {
                assert!(!exercise(&file[..file.len() * part / 64]));
            }
        }
        // The test would say nothing if no change left a tokenizer, or every change did.
        assert!((100..5_900).contains(&worked), "{worked}");
    }
}
