//! Reference vectors of llama.cpp and Hugging Face.

use std::time::Instant;

use serde::Deserialize;

use super::{data, named, phi3};
use crate::language::gguf::Gguf;
use crate::language::request::Message;
use crate::language::tokenizer::Tokenizer;
use crate::weights::bytes::Bytes;

#[derive(Deserialize)]
struct Golden {
    texts: Vec<Text>,
    chats: Vec<Chat>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Chat {
    messages: Vec<(String, String)>,
    text: String,
    ids: Vec<u32>,
}

fn golden() -> std::collections::BTreeMap<String, Golden> {
    let mut all: std::collections::BTreeMap<_, _> =
        serde_json::from_slice(&std::fs::read(data("golden.json")).unwrap()).unwrap();
    let gemma = serde_json::from_slice(&std::fs::read(data("gemma.json")).unwrap()).unwrap();
    all.insert("gemma".to_owned(), gemma);
    all
}

fn vectors(name: &str, tokenizer: &Tokenizer) {
    let texts = std::fs::read_to_string(data("phi-3.inp")).unwrap();
    let ids = std::fs::read_to_string(name).unwrap();
    let mut compared = 0;
    for (text, ids) in texts.split("\n__ggml_vocab_test__\n").zip(ids.split('\n')) {
        let expected: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(text).unwrap(), expected, "{text:?}");
        compared += 1;
    }
    assert_eq!(compared, 47);
}

#[test]
fn all_reference_vectors_of_phi3_match() {
    vectors(data("phi-3.out").to_str().unwrap(), &phi3());
}

#[test]
#[ignore = "scripts/test-tokenizers.sh passes the paths of a vocabulary, of texts and of their ids"]
fn real_vocabulary_equals_the_reference() {
    let path = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is the path of a file"));
    let gguf = Gguf::parse(Bytes::map(path("TOKENIZER").as_ref()).unwrap()).unwrap();
    let start = Instant::now();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    let loaded = start.elapsed();
    let separator = std::env::var("SEPARATOR").unwrap_or("\n".to_owned()).replace("\\n", "\n");
    let texts = String::from_utf8_lossy(&std::fs::read(path("TEXTS")).unwrap()).into_owned();
    let expected = std::fs::read_to_string(path("IDS")).unwrap();
    let mut compared = 0;
    for (text, expected) in texts.split(&separator).zip(expected.split('\n')) {
        let ids = expected.split(|c: char| !c.is_ascii_digit()).filter(|id| !id.is_empty());
        let ids: Vec<u32> = ids.map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
        compared += 1;
    }
    println!("{}: the same tokens for {compared} texts; loaded in {loaded:.0?}", path("TOKENIZER"));
}

#[test]
fn texts_match_the_reference() {
    for (name, golden) in golden() {
        let tokenizer = named(&name);
        assert_eq!(golden.texts.len(), 52);
        for Text { text, ids } in golden.texts {
            let tokens = tokenizer.encode(&text).unwrap();
            assert_eq!(tokens, ids, "{name}: {text:?}");
            assert!(!tokens.iter().any(|token| tokenizer.is_control(*token)), "{name}: {text:?}");
        }
    }
}

#[test]
fn chats_match_the_reference() {
    for (name, golden) in golden() {
        let tokenizer = named(&name);
        assert_eq!(golden.chats.len(), 5);
        for Chat { messages, text, ids } in golden.chats {
            let continued = messages.last().unwrap().0 == "assistant";
            // The reference omits roles that Phi-3's template does not support.
            let known = |role: &str| name != "phi-3" || role != "system";
            let messages = messages.into_iter().filter(|(role, _)| known(role));
            let messages: Vec<_> = messages.map(|(role, content)| Message { role, content }).collect();
            let tokens = tokenizer.encode_chat(&messages, continued).unwrap();
            assert_eq!(tokens, ids, "{name}: {text:?}");
        }
    }
}

#[test]
fn open_text_and_continuation_equal_whole_text() {
    for (name, golden) in golden() {
        let tokenizer = named(&name);
        let texts = golden.texts.iter().map(|text| text.text.as_str());
        let texts: Vec<_> =
            texts.chain(["the cat sat on the ma", "a b c d", " two  words here e\u{301}"]).collect();
        let mut decided = 0;
        for text in &texts {
            for more in ["", "t", " mat", "\u{301}", "'s", "  x", "\n", "1"].iter().chain(&texts) {
                let open = tokenizer.open(Vec::new(), text, false).unwrap();
                decided += open.tokens.len();
                let parts = [&open.tokens[..], &tokenizer.close(&open, more).unwrap()].concat();
                assert_eq!(
                    parts,
                    tokenizer.encode(&[text, *more].concat()).unwrap(),
                    "{name}: {text:?} {more:?}"
                );
            }
        }
        assert!(decided > 1_000, "{name}: {decided}");
    }
}

#[test]
fn tokens_decode_to_their_text() {
    for (name, golden) in golden() {
        let tokenizer = named(&name);
        for Text { text, ids } in golden.texts {
            let mut detokenizer = tokenizer.detokenizer();
            let mut found = String::new();
            for id in ids {
                let part = detokenizer.push(id).unwrap_or_default();
                assert!(
                    text.contains(char::REPLACEMENT_CHARACTER) || !part.contains(char::REPLACEMENT_CHARACTER)
                );
                found.push_str(&part);
            }
            assert_eq!(found + &detokenizer.finish(), text, "{name}");
        }
    }
}
