//! A made-up vocabulary of a given size: bytes, a space before each letter, three control tokens,
//! and unused tokens.

use infer_engine::byte_characters;

/// Kinds of tokens in GGUF files.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;

/// Letter of a space in the byte-level vocabulary of GPT-2.
const SPACE: char = '\u{120}';

pub(super) const TEMPLATE: &str = "{% for message in messages %}\
    {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\
    {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Tokens of a byte-level vocabulary.
pub(super) struct Vocabulary {
    pub(super) tokens: Vec<String>,
    pub(super) kinds: Vec<i32>,
    pub(super) merges: Vec<String>,
    /// Id of the token that ends a turn.
    pub(super) end: u32,
}

/// Returns a vocabulary of `size` tokens, or of the smallest size if that is larger.
pub(super) fn vocabulary(size: usize) -> Vocabulary {
    let mut tokens: Vec<String> = byte_characters().map(|(_, character)| character.into()).collect();
    tokens.extend(('a'..='z').map(|letter| format!("{SPACE}{letter}")));
    let mut kinds = vec![NORMAL; tokens.len()];
    let merges = ('a'..='z').map(|letter| format!("{SPACE} {letter}")).collect();
    tokens.extend(["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from));
    kinds.resize(tokens.len(), CONTROL);
    let end = tokens.len() as u32 - 1;
    tokens.extend((tokens.len()..size).map(|id| format!("<unused{id}>")));
    kinds.resize(tokens.len(), UNUSED);
    Vocabulary { tokens, kinds, merges, end }
}
