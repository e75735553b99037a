//! Text models compared with an independent implementation: Python's `tokenizers` and ONNX Runtime,
//! by tests/text_models/golden.py.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::request::Text;
use super::tokenizer::{EncodeError, SharedFirst, TextTokenizer};
use crate::card::TextSpec;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights").join(name)
}

fn spec(text: &str) -> TextSpec {
    toml::from_str(text).unwrap()
}

fn tokenizer(file: &Value, text: &str) -> Result<TextTokenizer, String> {
    TextTokenizer::new(file.to_string().as_bytes(), &spec(text))
}

fn exports() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/text-models")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The tokenizer of an exported model.
fn exported(name: &str, text: &str) -> TextTokenizer {
    tokenizer(&json(&exports().join(name).join("tokenizer.json")), text).unwrap()
}

/// Ids of all windows.
fn windows(tokenizer: &TextTokenizer, text: &Text) -> Vec<Vec<u32>> {
    let tokens = tokenizer.encode(text, false).unwrap();
    tokens.windows.into_iter().map(|window| window.ids).collect()
}

#[test]
fn ids_equal_the_reference() {
    let golden = json(&exports().join("golden.json"));
    let texts: Vec<_> =
        golden["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let mut compared = 0;
    for (name, model) in golden["models"].as_object().unwrap() {
        let Some(all) = model["ids"].as_array() else { continue };
        let tokenizer = exported(name, "max_tokens = 4000");
        assert_eq!(all.len(), texts.len(), "{name}");
        for (text, expected) in texts.iter().zip(all) {
            let found = windows(&tokenizer, &Text::Single((*text).to_owned()));
            assert_eq!(found, [ids(expected)], "{name}: {text:?}");
            compared += 1;
        }
    }
    assert!(compared > 300, "{compared}");
}

#[test]
fn windows_equal_the_reference() {
    let golden = json(&exports().join("golden.json"));
    let mut compared = 0;
    for (name, model) in golden["models"].as_object().unwrap() {
        let Some(long) = model["windows"]["long"].as_array() else { continue };
        let tokenizer = exported(name, "max_tokens = 32\nstride = 8\nmax_windows = 128");
        for (text, expected) in golden["long"].as_array().unwrap().iter().zip(long) {
            let found = windows(&tokenizer, &Text::Single(text.as_str().unwrap().to_owned()));
            let expected: Vec<_> = expected["ids"].as_array().unwrap().iter().map(ids).collect();
            assert_eq!(found, expected, "{name}");
            compared += expected.len();
        }
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn pairs_equal_the_reference() {
    let golden = json(&exports().join("golden.json"));
    let tokenizer = exported("cross-encoder", "max_tokens = 128");
    let pairs = golden["pairs"].as_array().unwrap();
    let expected = golden["models"]["cross-encoder"]["pairs"].as_array().unwrap();
    for (pair, expected) in pairs.iter().zip(expected) {
        let text = |index: usize| pair[index].as_str().unwrap().to_owned();
        let tokens = tokenizer.encode(&Text::Pair(text(0), text(1)), false).unwrap();
        let [window] = &tokens.windows[..] else { panic!("{pair}") };
        assert_eq!(tokens.is_truncated, expected["truncated"].is_object(), "{pair}");
        let expected = if tokens.is_truncated { &expected["truncated"] } else { expected };
        assert_eq!(window.ids, ids(&expected["ids"]), "{pair}");
        assert_eq!(window.types, ids(&expected["types"]), "{pair}");
    }
}

#[test]
fn shared_first_text_changes_no_pair() {
    let (tokenizer, mut first) = (exported("cross-encoder", "max_tokens = 16"), SharedFirst::default());
    for (query, text) in [("a red book", "one"), ("a red book", "two words"), ("another", "one")] {
        let pair = Text::Pair(query.to_owned(), text.to_owned());
        let shared = tokenizer.encode_next(&pair, false, &mut first).unwrap();
        assert_eq!(shared, tokenizer.encode(&pair, false).unwrap());
    }
}

#[test]
fn offsets_equal_those_of_the_library() {
    let text = "Ada reads the book in the garden, I  am \u{1f600} caf\u{e9}\r\n done.";
    for name in ["roberta", "modernbert", "bert-ner", "xlm-roberta", "deberta-v2"] {
        let library = tokenizers::Tokenizer::from_file(exports().join(name).join("tokenizer.json")).unwrap();
        let expected = library.encode_char_offsets(text, true).unwrap();
        let found = exported(name, "max_tokens = 128").encode(&Text::Single(text.to_owned()), true).unwrap();
        assert_eq!(found.windows[0].offsets, expected.get_offsets(), "{name}");
        assert_eq!(found.windows[0].ids, expected.get_ids(), "{name}");
    }
}

#[test]
fn words_of_the_bilstm_equal_the_reference() {
    let golden = json(&exports().join("bilstm.json"));
    let tokenizer = bilstm("max_tokens = 4000\ndrop_unknown = true");
    let cases = golden.as_array().unwrap();
    assert!(cases.len() >= 90);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        assert_eq!(windows(&tokenizer, &Text::Single(text.to_owned())), [ids(&case["ids"])], "{text:?}");
    }
}

/// Compares each line of the file `TEXTS` with its ids in the file `IDS`, which
/// tests/text_models/tokens.py wrote, by the tokenizer `TOKENIZER`: `make test-tokenizers`.
#[test]
#[ignore = "needs the output of tests/text_models/tokens.py"]
fn real_tokens_equal_the_reference() {
    let path = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is the path of a file"));
    let tokenizer = tokenizer(&json(Path::new(&path("TOKENIZER"))), "max_tokens = 8192").unwrap();
    let separator = std::env::var("SEPARATOR").unwrap_or("\n".to_owned()).replace("\\n", "\n");
    let texts = String::from_utf8_lossy(&std::fs::read(path("TEXTS")).unwrap()).into_owned();
    let expected = std::fs::read_to_string(path("IDS")).unwrap();
    let mut compared = 0;
    for (text, expected) in texts.split(&separator).zip(expected.lines()) {
        let expected = ids(&serde_json::from_str(expected).unwrap());
        assert_eq!(windows(&tokenizer, &Text::Single(text.to_owned())), [expected], "{text:?}");
        compared += 1;
    }
    println!("{}: the same tokens for {compared} texts", path("TOKENIZER"));
}

#[test]
fn damaged_tokenizers_are_rejected_or_used() {
    let file = std::fs::read(exports().join("distilbert/tokenizer.json")).unwrap();
    super::exercise(&file);
    let mut random = fastrand::Rng::with_seed(21);
    for _ in 0..200 {
        let mut damaged = file.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..damaged.len());
            damaged[at] = random.u8(b' '..b'~');
        }
        damaged.truncate(random.usize(damaged.len() / 2..=damaged.len() * 2).min(damaged.len()));
        super::exercise(&damaged);
    }
}

fn bilstm(text: &str) -> TextTokenizer {
    let file = std::fs::read(shipped("toxic-bilstm").join("tokenizer.json")).unwrap();
    TextTokenizer::new(&file, &spec(text)).unwrap()
}

#[test]
fn unknown_words_are_counted_and_dropped() {
    let encode = |spec: &str, text: &str| {
        let tokens = bilstm(spec).encode(&Text::Single(text.to_owned()), false).unwrap();
        (tokens.windows[0].ids.len(), tokens.count, tokens.known)
    };
    let keep = "max_tokens = 100";
    let drop = "max_tokens = 100\ndrop_unknown = true";
    assert_eq!(encode(keep, "you xyzzyplugh idiot"), (3, 3, 2));
    assert_eq!(encode(drop, "you xyzzyplugh idiot"), (2, 2, 2));
    assert_eq!(encode(drop, "xyzzyplugh"), (0, 0, 0));
}

#[test]
fn long_texts_are_cut_or_rejected() {
    let words = |count: usize| Text::Single("you ".repeat(count));
    let windows = |spec: &str, count| {
        let tokens = bilstm(spec).encode(&words(count), false).unwrap();
        let lengths: Vec<_> = tokens.windows.iter().map(|window| window.ids.len()).collect();
        (lengths, tokens.is_truncated)
    };
    let with_stride = "max_tokens = 10\nstride = 5\nmax_windows = 4";
    assert_eq!(windows(with_stride, 10), (vec![10], false));
    assert_eq!(windows(with_stride, 11), (vec![10, 6], false));
    assert_eq!(windows(with_stride, 25), (vec![10, 10, 10, 10], false));
    assert_eq!(windows("max_tokens = 10", 25), (vec![10], true));
    let error = bilstm(with_stride).encode(&words(26), false).unwrap_err();
    let expected = "a text has 5 windows of 10 tokens, expected at most 4; send it in pieces";
    assert_eq!(error, EncodeError::TooLarge(expected.to_owned()));
    let huge = Text::Single("a".repeat((256 << 10) + 1));
    let error = bilstm(with_stride).encode(&huge, false).unwrap_err();
    assert!(matches!(error, EncodeError::TooLarge(message) if message.contains("262145 bytes")));
}

#[test]
fn token_ids_outside_of_the_vocabulary_are_rejected() {
    let tokenizer = bilstm("max_tokens = 10");
    let tokens = tokenizer.encode(&Text::Tokens(vec![6, 19]), false).unwrap();
    assert_eq!(tokens.windows[0].ids, [6, 19]);
    let error = tokenizer.encode(&Text::Tokens(vec![1 << 30]), false).unwrap_err();
    assert!(matches!(error, EncodeError::Invalid(message) if message.contains("not in the vocabulary")));
    let error = tokenizer.encode(&Text::Tokens(vec![6; (64 << 10) + 1]), false).unwrap_err();
    assert!(matches!(error, EncodeError::TooLarge(message) if message.contains("65537 token ids")));
}

#[test]
fn hostile_tokenizers_are_rejected() {
    let file = |pattern: &str| {
        serde_json::json!({
            "version": "1.0",
            "pre_tokenizer": { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Removed", "invert": false },
            "model": { "type": "WordLevel", "vocab": { "a": 0, "[UNK]": 1 }, "unk_token": "[UNK]" },
        })
    };
    assert!(tokenizer(&file(" +"), "max_tokens = 4").is_ok());
    for (pattern, expected) in [
        ("(?=a)(a*)*$", "repeats a repetition"),
        ("(?:a{1,9}){1,9}(?=b)", "repeats a repetition"),
        ("(", "is invalid"),
    ] {
        let error = tokenizer(&file(pattern), "max_tokens = 4").err().unwrap();
        assert!(error.contains(expected), "{error}");
    }
    let steps = file("(?=q)q|(?=r)r|(?=s)s|(?=t)t| ");
    let error = tokenizer(&steps, "max_tokens = 4").err().unwrap();
    assert!(error.contains("it ignores the end of a text of 262144 bytes"), "{error}");
    let mut deep = serde_json::json!({ "type": "NFC" });
    for _ in 0..200 {
        deep = serde_json::json!({ "type": "Sequence", "normalizers": [deep] });
    }
    let mut nested = file(" +");
    nested["normalizer"] = deep;
    let error = tokenizer(&nested, "max_tokens = 4").err().unwrap();
    assert!(error.contains("recursion limit") || error.contains("more than 32 steps"), "{error}");
    for text in ["", "{}", "[]", "{\"model\": 1}", "not json"] {
        assert!(TextTokenizer::new(text.as_bytes(), &spec("max_tokens = 4")).is_err(), "{text}");
    }
    let large = vec![b' '; (40 << 20) + 1];
    let error = TextTokenizer::new(&large, &spec("max_tokens = 4")).err().unwrap();
    assert!(error.contains("41943041 bytes, expected at most 41943040"), "{error}");
    let mut template = file(" +");
    template["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing",
        "single": [{ "SpecialToken": { "id": "[UNK]", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
        "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
        "special_tokens": { "[UNK]": { "id": "[UNK]", "ids": [1], "tokens": ["[UNK]"] } },
    });
    let error = tokenizer(&template, "max_tokens = 2\nstride = 1").err().unwrap();
    assert!(error.contains("leaves none of 2 for the text"), "{error}");
}
