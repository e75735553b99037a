//! Tokenizers of real models compared with reference vectors, and small tokenizers for error cases.

mod chats;
mod reference;
mod vocabularies;
mod words;

use std::path::{Path, PathBuf};

use super::{Tokenizer, TokenizerError, vocabulary};
use crate::language::gguf::Gguf;
use crate::language::gguf::write::Writer;
use crate::language::request::Message;
use crate::weights::bytes::Bytes;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers").join(name)
}

fn load(path: &Path) -> Tokenizer {
    let gguf = Gguf::parse(Bytes::map(path).unwrap()).unwrap();
    Tokenizer::from_gguf(&gguf).unwrap()
}

fn phi3() -> Tokenizer {
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/phi3/vocab.gguf"))
}

fn named(name: &str) -> Tokenizer {
    if name == "phi-3" { phi3() } else { load(&data(&format!("{name}.gguf"))) }
}

fn messages(turns: &[(&str, &str)]) -> Vec<Message> {
    let message =
        |(role, content): &(&str, &str)| Message { role: (*role).into(), content: (*content).into() };
    turns.iter().map(message).collect()
}

/// A small `llama` vocabulary, which tests modify.
pub(crate) fn small() -> Writer {
    let mut tokens = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    tokens.extend((0..=255).map(vocabulary::byte_token_text));
    tokens.extend(["▁", "a", "b", "ab", "▁ab"].map(str::to_owned));
    let types: Vec<i32> = (0..tokens.len() as i32)
        .map(|id| match id {
            0 => 2,
            1 | 2 => 3,
            3..259 => 6,
            _ => 1,
        })
        .collect();
    let scores: Vec<f32> = (0..tokens.len()).map(|id| -(id as f32)).collect();
    Writer::new("llama")
        .text("tokenizer.ggml.model", "llama")
        .texts("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &types)
        .f32s("tokenizer.ggml.scores", &scores)
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .u32("tokenizer.ggml.unknown_token_id", 0)
        .text(
            "tokenizer.chat_template",
            "{{ bos_token }}{% for m in messages %}{{ m.content }}</s>{% endfor %}",
        )
}

/// A `gpt2` vocabulary of the single bytes and one merge.
pub(crate) fn small_bytes() -> Writer {
    let mut tokens: Vec<String> =
        vocabulary::byte_characters().map(|(_, character)| character.to_string()).collect();
    tokens.extend(["ab".to_owned(), "<|im_end|>".to_owned()]);
    let types: Vec<i32> = (0..258).map(|id| if id == 257 { 3 } else { 1 }).collect();
    Writer::new("qwen2")
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "qwen2")
        .texts("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &types)
        .texts("tokenizer.ggml.merges", &["a b"])
        .u32("tokenizer.ggml.eos_token_id", 257)
}

fn build(writer: &Writer) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_gguf(&Gguf::parse(Bytes::Owned(writer.build())).unwrap())
}

#[test]
fn incomplete_characters_wait_invalid_bytes_are_replaced() {
    let tokenizer = phi3();
    let byte = |byte: u8| 3 + u32::from(byte);
    let mut detokenizer = tokenizer.detokenizer();
    let pushed: Vec<_> = "é😀".bytes().map(|b| detokenizer.push(byte(b))).collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(pushed, [None, text("é"), None, None, None, text("😀")]);
    assert_eq!(detokenizer.push(byte(0xf0)), None);
    assert_eq!(detokenizer.push(byte(b'a')), text("\u{fffd}a"));
    assert_eq!(detokenizer.push(byte(0xff)), text("\u{fffd}"));
    assert_eq!(detokenizer.push(32007), None);
    assert_eq!(detokenizer.push(u32::MAX), None);
    assert_eq!(detokenizer.push(byte(0xe2)), None);
    assert_eq!(detokenizer.finish(), "\u{fffd}");

    let hello = tokenizer.encode("Hello").unwrap()[0];
    assert_eq!(tokenizer.detokenizer().push(hello), text("Hello"));
    assert_eq!(tokenizer.detokenizer().after(32001).push(hello), text("Hello"));
    assert_eq!(tokenizer.detokenizer().after(hello).push(hello), text(" Hello"));
    assert_eq!(tokenizer.encode_continuation(" Hello").unwrap(), [hello]);
}
