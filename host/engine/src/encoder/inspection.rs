//! Inspection of a tokenizer's file before it is used.
//!
//! A tokenizer is a small program: patterns, replacements and templates. A hostile or broken one
//! could take hours for a text, or gigabytes. Its parts are bounded here, and the result is tried
//! on texts that are hard to split.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fancy_regex::Regex;
use serde_json::Value;

use super::patterns::check_pattern;
use crate::limits::{
    MAX_ADDED_BYTES, MAX_ADDED_TOKENS, MAX_CHARSMAP_BYTES, MAX_CHARSMAP_ENTRY_BYTES, MAX_TEMPLATE_TOKENS,
    MAX_TEXT_GROWTH, MAX_TOKEN_BYTES, MAX_TOKENIZER_OBJECTS, MAX_TOKENIZER_STEPS, MAX_TOKENIZER_VALUES,
    MAX_VOCABULARY_TOKENS, MAX_WORDPIECE_CHARACTERS,
};
use crate::text::{QUOTE_BYTES, excerpt};

/// Models of the `tokenizers` library.
const MODELS: [&str; 4] = ["BPE", "Unigram", "WordLevel", "WordPiece"];

/// Parts of a file whose steps are counted.
const PIPELINE: [&str; 4] = ["normalizer", "pre_tokenizer", "post_processor", "decoder"];

/// Checks the content of a tokenizer's file.
///
/// # Errors
///
/// A message about the first part that is out of bounds.
pub(crate) fn inspect(file: &Value) -> Result<(), String> {
    let model = &file["model"];
    match model["type"].as_str() {
        Some(kind) if MODELS.contains(&kind) => {}
        found => {
            let found =
                found.map_or("missing".to_owned(), |found| format!("`{}`", excerpt(found, QUOTE_BYTES)));
            return Err(format!("`model.type` is {found}, expected one of `{}`", MODELS.join("`, `")));
        }
    }
    vocabulary(model)?;
    let mut growth = 1;
    for part in PIPELINE {
        let mut steps = Steps { count: 0, growth: 1 };
        steps.walk(&file[part]).map_err(|message| format!("`{part}`: {message}"))?;
        growth = growth.max(steps.growth);
    }
    let added = file["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    MAX_ADDED_TOKENS.check("`added_tokens`", added.len())?;
    let mut bytes = 0;
    for token in added {
        let token = token["content"].as_str().unwrap_or_default();
        token_size(token)?;
        bytes += token.len() * growth;
    }
    if bytes > MAX_ADDED_BYTES {
        return Err(format!("`added_tokens` have up to {bytes} bytes, expected at most {MAX_ADDED_BYTES}"));
    }
    Ok(())
}

/// Checks the number of objects and of values in the JSON of a tokenizer, before it is parsed:
/// small ones take a hundred times their size in memory.
///
/// # Errors
///
/// A message with the limit.
pub(super) fn inspect_size(json: &[u8]) -> Result<(), String> {
    let (mut objects, mut values, mut is_string, mut is_escaped) = (0, 0, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_string => is_escaped = true,
            b'"' => is_string = !is_string,
            b'{' if !is_string => objects += 1,
            b'[' | b',' if !is_string => values += 1,
            _ => {}
        }
    }
    if objects > MAX_TOKENIZER_OBJECTS || values > MAX_TOKENIZER_VALUES {
        return Err(format!(
            "it has {objects} objects and {values} values, expected at most {MAX_TOKENIZER_OBJECTS} and {MAX_TOKENIZER_VALUES}"
        ));
    }
    Ok(())
}

fn vocabulary(model: &Value) -> Result<(), String> {
    let vocabulary = &model["vocab"];
    let tokens = match (vocabulary.as_object(), vocabulary.as_array()) {
        (Some(ids), _) => {
            ids.keys().try_for_each(|token| token_size(token))?;
            ids.len()
        }
        (_, Some(scores)) => {
            scores.iter().try_for_each(|entry| token_size(entry[0].as_str().unwrap_or_default()))?;
            scores.len()
        }
        _ => return Err("`model.vocab` is missing, expected the tokens".to_owned()),
    };
    if tokens == 0 || tokens > MAX_VOCABULARY_TOKENS {
        return Err(format!("`model.vocab` has {tokens} tokens, expected 1 to {MAX_VOCABULARY_TOKENS}"));
    }
    if let Some(characters) = model["max_input_chars_per_word"].as_u64()
        && characters > MAX_WORDPIECE_CHARACTERS
    {
        return Err(format!(
            "`model.max_input_chars_per_word` is {characters}, expected at most {MAX_WORDPIECE_CHARACTERS}"
        ));
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        token_size(model[key].as_str().unwrap_or_default())?;
    }
    if !model["dropout"].is_null() && model["dropout"].as_f64() != Some(0.0) {
        return Err("`model.dropout` is set, which makes tokens random; set it to null".to_owned());
    }
    Ok(())
}

fn token_size(token: &str) -> Result<(), String> {
    if token.len() <= MAX_TOKEN_BYTES {
        return Ok(());
    }
    let (found, token) = (token.len(), excerpt(token, QUOTE_BYTES));
    Err(format!("token `{token}` has {found} bytes, expected at most {MAX_TOKEN_BYTES}"))
}

/// Steps of a part of the pipeline.
struct Steps {
    count: usize,
    /// Factor by which the replacements so far may lengthen a text.
    growth: usize,
}

impl Steps {
    fn walk(&mut self, value: &Value) -> Result<(), String> {
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.walk(item)),
            Value::Object(members) => {
                if let Some(kind) = members.get("type").and_then(Value::as_str) {
                    self.step(kind, value)?;
                }
                members.values().try_for_each(|member| self.walk(member))
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self, kind: &str, step: &Value) -> Result<(), String> {
        self.count += 1;
        if self.count > MAX_TOKENIZER_STEPS {
            return Err(format!("more than {MAX_TOKENIZER_STEPS} steps"));
        }
        let content = step["content"].as_str().or_else(|| step["prepend"].as_str()).unwrap_or_default();
        if kind == "Prepend" && content.len() > MAX_TOKEN_BYTES {
            return Err(format!("`prepend` has {} bytes, expected at most {MAX_TOKEN_BYTES}", content.len()));
        }
        if let Some(pattern) = step["pattern"]["Regex"].as_str() {
            check_pattern(pattern)?;
        }
        let factor = match kind {
            "Replace" => replacement_growth(&step["pattern"], content),
            // Each byte becomes a character of up to two.
            "ByteLevel" => 2,
            _ => 1,
        };
        self.growth = self.growth.saturating_mul(factor);
        if self.growth > MAX_TEXT_GROWTH {
            return Err(format!(
                "its steps lengthen a text up to {} times, expected at most {MAX_TEXT_GROWTH}",
                self.growth
            ));
        }
        if let Some(charsmap) = step["precompiled_charsmap"].as_str() {
            check_charsmap(charsmap)?;
        }
        for template in ["single", "pair"] {
            let tokens = step[template].as_array().map_or(0, Vec::len);
            if tokens > MAX_TEMPLATE_TOKENS {
                return Err(format!(
                    "`{template}` has {tokens} pieces, expected at most {MAX_TEMPLATE_TOKENS}"
                ));
            }
        }
        let special = step["special_tokens"].as_object().into_iter().flat_map(|tokens| tokens.values());
        if special.into_iter().any(|token| token["ids"].as_array().map_or(0, Vec::len) > MAX_TEMPLATE_TOKENS)
        {
            return Err(format!("a special token has more than {MAX_TEMPLATE_TOKENS} ids"));
        }
        Ok(())
    }
}

/// Maximum factor by which a `Replace` lengthens a text. One that matches the empty text inserts
/// its content at each character.
fn replacement_growth(pattern: &Value, content: &str) -> usize {
    let shortest = match pattern["String"].as_str() {
        Some(text) => text.len(),
        None => {
            let pattern = pattern["Regex"].as_str().unwrap_or_default();
            let matches_empty = Regex::new(pattern).is_ok_and(|regex| regex.is_match("").unwrap_or(true));
            usize::from(!matches_empty)
        }
    };
    if shortest == 0 { content.len() + 1 } else { content.len().div_ceil(shortest).max(1) }
}

/// Checks a table of replaced characters: the size of a search tree, the tree, and the
/// replacements, each ending with a zero byte.
fn check_charsmap(base64: &str) -> Result<(), String> {
    if base64.len() > MAX_CHARSMAP_BYTES {
        let found = base64.len();
        return Err(format!(
            "`precompiled_charsmap` has {found} bytes, expected at most {MAX_CHARSMAP_BYTES}"
        ));
    }
    let table = STANDARD.decode(base64).map_err(|error| format!("`precompiled_charsmap`: {error}"))?;
    let replacements = table
        .split_first_chunk::<4>()
        .and_then(|(size, rest)| rest.get(usize::try_from(u32::from_le_bytes(*size)).ok()?..));
    let replacements = replacements.ok_or("`precompiled_charsmap` is shorter than its own size")?;
    let longest = replacements.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(0);
    if longest > MAX_CHARSMAP_ENTRY_BYTES {
        return Err(format!(
            "`precompiled_charsmap` replaces a character by {longest} bytes, expected at most {MAX_CHARSMAP_ENTRY_BYTES}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(part: &str, value: Value) -> Value {
        let mut file = json!({ "model": { "type": "WordLevel", "vocab": { "a": 0 }, "unk_token": "a" } });
        file[part] = value;
        file
    }

    #[test]
    fn parts_out_of_bounds_are_named() {
        let regex = |pattern: &str| json!({ "type": "Split", "pattern": { "Regex": pattern } });
        let replace =
            |content: &str| json!({ "type": "Replace", "pattern": { "String": "a" }, "content": content });
        let sequence = |step: &Value, count: usize| json!({ "type": "Sequence", "normalizers": vec![step.clone(); count] });
        let cases = [
            (with("model", json!({ "type": "Neural" })), "`model.type` is `Neural`, expected one of `BPE`"),
            (with("model", json!({ "vocab": {} })), "`model.type` is missing"),
            (with("model", json!({ "type": "BPE", "vocab": {} })), "`model.vocab` has 0 tokens"),
            (with("model", json!({ "type": "BPE", "vocab": { "a".repeat(2_000): 1 } })), "token `aaa"),
            (
                with("model", json!({ "type": "BPE", "vocab": { "a": 1 }, "dropout": 0.1 })),
                "`model.dropout` is set",
            ),
            (
                with(
                    "model",
                    json!({ "type": "WordPiece", "vocab": { "a": 1 }, "max_input_chars_per_word": 1_000_000 }),
                ),
                "`model.max_input_chars_per_word` is 1000000, expected at most 200",
            ),
            (
                with("pre_tokenizer", regex("(?=a)(a+)+b")),
                "`pre_tokenizer`: the pattern `(?=a)(a+)+b` repeats",
            ),
            (with("pre_tokenizer", regex("(((")), "`pre_tokenizer`: the pattern `(((` is invalid"),
            (with("pre_tokenizer", regex(&"a".repeat(20_000))), "has 20000 bytes, expected at most"),
            (
                with(
                    "normalizer",
                    json!({ "type": "Precompiled", "precompiled_charsmap": STANDARD.encode([&[0; 4][..], &[b'a'; 65]].concat()) }),
                ),
                "replaces a character by 65 bytes",
            ),
            (with("normalizer", replace(&"b".repeat(65))), "lengthen a text up to 65 times"),
            (with("normalizer", sequence(&replace("bb"), 7)), "lengthen a text up to 128 times"),
            (
                with("normalizer", sequence(&json!({ "type": "ByteLevel" }), 7)),
                "lengthen a text up to 128 times",
            ),
            (
                with(
                    "normalizer",
                    sequence(&json!({ "type": "Replace", "pattern": { "String": "" }, "content": "x" }), 7),
                ),
                "lengthen a text up to 128 times",
            ),
            (
                with(
                    "normalizer",
                    sequence(
                        &json!({ "type": "Replace", "pattern": { "Regex": "(?:)" }, "content": "x" }),
                        7,
                    ),
                ),
                "lengthen a text up to 128 times",
            ),
            (
                with("added_tokens", json!(vec![json!({ "content": "a".repeat(1_000) }); 1_990])),
                "`added_tokens` have up to 1990000 bytes",
            ),
            (with("normalizer", sequence(&json!({ "type": "NFC" }), 40)), "`normalizer`: more than 32 steps"),
            (
                with("post_processor", json!({ "type": "TemplateProcessing", "single": vec![0; 100] })),
                "`single` has 100 pieces",
            ),
            (
                with("added_tokens", json!(vec![json!({ "content": "a" }); 5_000])),
                "`added_tokens` has 5000 tokens",
            ),
        ];
        for (file, expected) in cases {
            let message = inspect(&file).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn many_small_values_are_rejected() {
        assert!(inspect_size(br#"{"a": "{{{[[[,,,\\\"{", "b": [1, 2]}"#).is_ok());
        let objects = format!("[{}]", r#"{"":0},"#.repeat(20_001));
        assert!(inspect_size(objects.as_bytes()).unwrap_err().contains("20001 objects"));
        let values = format!("[{}]", "0,".repeat(6_000_000));
        assert!(inspect_size(values.as_bytes()).unwrap_err().contains("6000001 values"));
    }
}
