//! Valid and invalid vocabularies.

use super::{build, messages, named, phi3, small, small_bytes};
use crate::language::tokenizer::{Tokenizer, TokenizerError};

#[test]
fn small_vocabularies_work() {
    let tokenizer = build(&small()).unwrap();
    assert_eq!(tokenizer.encode("ab b").unwrap(), [263, 259, 261]);
    assert_eq!(tokenizer.encode("é").unwrap(), [259, 3 + 0xc3, 3 + 0xa9]);
    let chat = tokenizer.encode_chat(&messages(&[("user", "ab</s>")]), false).unwrap();
    assert_eq!(chat[..2], [1, 263]);
    assert_eq!(chat.iter().filter(|token| **token == 2).count(), 1);
    let tokenizer = build(&small_bytes()).unwrap();
    assert_eq!(tokenizer.encode("ab").unwrap(), [256]);
    assert!(matches!(
        tokenizer.encode_chat(&messages(&[("user", "a")]), false),
        Err(TokenizerError::NoTemplate)
    ));
}

#[test]
fn symbols_are_matched_in_any_text() {
    let gemma = named("gemma");
    let symbol = |text: &str| (0..1200).find(|token| gemma.token_bytes(*token) == text.as_bytes()).unwrap();
    let expected = [symbol("<h1>"), symbol("\n\n"), symbol("  "), symbol("</h1>")];
    assert_eq!(gemma.encode("<h1>\n\n  </h1>").unwrap(), expected);
    assert!(expected.iter().all(|token| !gemma.is_control(*token)));
    // Words that structure a chat are no symbols: those that the template writes or a key names.
    let tokens = ["<unk>", "<s>", "</s>", "<b>", "<i>", "<turn_end>", "a", "▁"];
    let types = [2, 3, 4, 4, 4, 4, 1, 1];
    let writer = small()
        .texts("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &types)
        .f32s("tokenizer.ggml.scores", &[0.0; 8])
        .text("tokenizer.chat_template", "<i>{{ messages[0].content }}");
    let tokenizer = build(&writer).unwrap();
    let control: Vec<u32> = (0..8).filter(|token| tokenizer.is_control(*token)).collect();
    assert_eq!(control, [0, 1, 2, 4, 5]);
    assert_eq!(tokenizer.encode_continuation("a<b>a").unwrap(), [6, 3, 6]);
}

#[test]
fn hostile_vocabularies_are_rejected() {
    const GGML: &str = "tokenizer.ggml.";
    let key = |name: &str| format!("{GGML}{name}");
    let cases = [
        (small().without(&key("model")), "key `tokenizer.ggml.model` is missing; expected"),
        (
            small().text(&key("model"), "bert"),
            "key `tokenizer.ggml.model` is `bert`; expected a supported tokenizer: `llama`, `gpt2`",
        ),
        (small().u32(&key("model"), 1), "key `tokenizer.ggml.model` is the integer 1; expected a string"),
        (
            small_bytes().without(&key("pre")),
            "key `tokenizer.ggml.pre` is missing; expected a supported pre-tokenizer: `qwen2`",
        ),
        (small_bytes().text(&key("pre"), "falcon"), "key `tokenizer.ggml.pre` is `falcon`; expected"),
        (small().without(&key("tokens")), "key `tokenizer.ggml.tokens` is missing"),
        (
            small().f32s(&key("tokens"), &[1.0]),
            "key `tokenizer.ggml.tokens` is an array of 1, the first the float 1; expected an array of strings",
        ),
        (
            small().texts::<&str>(&key("tokens"), &[]),
            "key `tokenizer.ggml.tokens` is an array of 0; expected 1 to",
        ),
        (
            small().texts(&key("tokens"), &["x".repeat(2000)]),
            "key `tokenizer.ggml.tokens` holds token 0 of 2000 bytes",
        ),
        (small().without(&key("token_type")), "key `tokenizer.ggml.token_type` is missing"),
        (
            small().i32s(&key("token_type"), &[1]),
            "key `tokenizer.ggml.token_type` has 1 types; expected one for each of 264 tokens",
        ),
        (
            small().i32s(&key("token_type"), &[9; 264]),
            "key `tokenizer.ggml.token_type` holds type 9 for token 0; expected 1 to 6",
        ),
        (
            small().i32s(&key("token_type"), &[6; 264]),
            "key `tokenizer.ggml.tokens` holds byte token 0, `<unk>`; expected `<0xNN>`",
        ),
        (small().texts(&key("tokens"), &["a"; 264]), "key `tokenizer.ggml.tokens` holds `a` twice"),
        (
            small().f32s(&key("scores"), &[0.0; 263]),
            "key `tokenizer.ggml.scores` has 263 scores; expected one for each of 264 tokens",
        ),
        (
            small().f32s(&key("scores"), &[f32::NAN; 264]),
            "key `tokenizer.ggml.scores` is an array of 264, the first the float NaN",
        ),
        (small().without(&key("scores")), "key `tokenizer.ggml.scores` is missing"),
        (
            small().u32(&key("bos_token_id"), 264),
            "key `tokenizer.ggml.bos_token_id` is 264; expected a token id below 264",
        ),
        (
            small().u32(&key("eos_token_id"), u32::MAX),
            "key `tokenizer.ggml.eos_token_id` is 4294967295; expected a token id below 264",
        ),
        (
            small().u32(&key("unknown_token_id"), 999),
            "key `tokenizer.ggml.unknown_token_id` is 999; expected a token id below 264",
        ),
        (
            small().text(&key("add_bos_token"), "yes"),
            "key `tokenizer.ggml.add_bos_token` is the string `yes`; expected a bool",
        ),
        (
            small().text("tokenizer.chat_template", "{% if %}"),
            "key `tokenizer.chat_template` is not a valid template, line 1: ",
        ),
        (
            small().u32("tokenizer.chat_template", 1),
            "key `tokenizer.chat_template` is the integer 1; expected a string",
        ),
        (
            small_bytes().texts(&key("merges"), &["a c"]),
            "key `tokenizer.ggml.merges` holds merge 0, `a c`; expected two tokens",
        ),
        (
            small_bytes().texts(&key("merges"), &["a zz"]),
            "key `tokenizer.ggml.merges` holds merge 0, `a zz`; expected",
        ),
        (
            small_bytes().texts(&key("merges"), &["a b", "ab"]),
            "key `tokenizer.ggml.merges` holds merge 1, `ab`; expected",
        ),
        (
            small_bytes().texts(&key("merges"), &["ab <|im_end|>"]),
            "key `tokenizer.ggml.merges` holds merge 0, ",
        ),
        (small_bytes().without(&key("merges")), "key `tokenizer.ggml.merges` is missing"),
        (
            small_bytes().texts(&key("tokens"), &vec![""; 258]),
            "key `tokenizer.ggml.tokens` has no token `Ġ` for byte 0x20",
        ),
    ];
    for (writer, expected) in cases {
        let message = build(&writer).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}\nexpected {expected}");
    }
}

#[test]
fn best_score_then_leftmost_pair_merges() {
    let encode = |tokens: &[&str], scores: &[f32], text: &str| {
        let types: Vec<i32> = tokens.iter().map(|token| if *token == "<unk>" { 2 } else { 1 }).collect();
        let writer = small()
            .texts("tokenizer.ggml.tokens", tokens)
            .i32s("tokenizer.ggml.token_type", &types)
            .f32s("tokenizer.ggml.scores", scores);
        let writer = ["bos_token_id", "eos_token_id"]
            .iter()
            .fold(writer, |writer, key| writer.without(&format!("tokenizer.ggml.{key}")));
        build(&writer).unwrap().encode_continuation(text).unwrap()
    };
    let tokens = ["<unk>", "a", "b", "ab", "ba", "bab"];
    let even = [0.0; 6];
    assert_eq!(encode(&tokens, &even, "abab"), [3, 3]);
    assert_eq!(encode(&tokens, &[0.0, 0.0, 0.0, 1.0, 2.0, 3.0], "abab"), [1, 5]);
    assert_eq!(encode(&tokens, &[0.0, 0.0, 0.0, 2.0, 1.0, 3.0], "abab"), [3, 3]);
    assert_eq!(encode(&tokens, &[0.0, 0.0, 0.0, 2.0, 1.0, 3.0], "babb"), [5, 2]);
    // A run of characters without a piece is one unknown token.
    assert_eq!(encode(&tokens, &even, "xéaz"), [0, 1, 0]);
}

#[test]
fn bos_and_end_tokens_come_from_the_file() {
    let phi3 = phi3();
    assert_eq!((phi3.bos(), phi3.vocabulary_size()), (Some(1), 32064));
    let ends = |tokenizer: &Tokenizer| -> Vec<String> {
        (0..tokenizer.vocabulary_size() as u32)
            .filter(|token| tokenizer.is_end(*token))
            .map(|token| tokenizer.token_text(token).unwrap().into_owned())
            .collect()
    };
    assert_eq!(ends(&phi3), ["<|endoftext|>", "<|end|>"]);
    let gemma = named("gemma");
    assert_eq!((gemma.bos(), gemma.vocabulary_size()), (Some(2), 1200));
    assert_eq!(ends(&gemma), ["<eos>", "<end_of_turn>"]);
    for name in ["qwen2", "smollm"] {
        let tokenizer = named(name);
        assert_eq!(tokenizer.bos(), None, "{name}");
        let mut ends = ends(&tokenizer);
        ends.sort();
        assert_eq!(ends, ["<|endoftext|>", "<|im_end|>"], "{name}");
    }
    assert_eq!(phi3.token_text(15043).unwrap(), " Hello");
    assert_eq!(phi3.token_text(u32::MAX), None);
}
