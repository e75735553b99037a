//! Log-probabilities of an answer's tokens, as OpenAI's objects.

use std::collections::BTreeMap;

use infer_engine::TokenLogprob;
use serde::Serialize;
use utoipa::ToSchema;

use super::form::Form;

/// Log-probabilities of the tokens.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Logprobs {
    Turn {
        content: Vec<TokenLogprobs>,
        /// Always null.
        refusal: Option<String>,
    },
    Text {
        tokens: Vec<String>,
        token_logprobs: Vec<f32>,
        top_logprobs: Vec<BTreeMap<String, f32>>,
        /// In bytes of the answer.
        text_offset: Vec<usize>,
    },
}

#[derive(Serialize, ToSchema)]
#[schema(as = TokenLogprob)]
pub(super) struct TokenLogprobs {
    #[serde(flatten)]
    token: Token,
    top_logprobs: Vec<Token>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LikelyToken)]
struct Token {
    token: String,
    logprob: f32,
    #[schema(value_type = Vec<u16>)]
    bytes: Vec<u8>,
}

impl Logprobs {
    /// The entries of `logprobs` in `form`; an answer without tokens has none.
    pub(super) fn new(form: Form, logprobs: &[TokenLogprob]) -> Self {
        match form {
            Form::Chat => {
                let token =
                    |bytes: &[u8], logprob| Token { token: escaped(bytes), logprob, bytes: bytes.to_vec() };
                let logprobs_of = |entry: &TokenLogprob| TokenLogprobs {
                    token: token(&entry.bytes, entry.logprob),
                    top_logprobs: entry.top.iter().map(|(bytes, logprob)| token(bytes, *logprob)).collect(),
                };
                Logprobs::Turn { content: logprobs.iter().map(logprobs_of).collect(), refusal: None }
            }
            Form::Completion => {
                // Two tokens may have the same text: the likelier one, which comes first, wins.
                let top = |entry: &TokenLogprob| {
                    let mut top = BTreeMap::new();
                    for (bytes, logprob) in &entry.top {
                        top.entry(completion_token(bytes)).or_insert(*logprob);
                    }
                    top
                };
                Logprobs::Text {
                    tokens: logprobs.iter().map(|entry| completion_token(&entry.bytes)).collect(),
                    token_logprobs: logprobs.iter().map(|entry| entry.logprob).collect(),
                    top_logprobs: logprobs.iter().map(top).collect(),
                    text_offset: logprobs.iter().map(|entry| entry.start).collect(),
                }
            }
        }
    }
}

/// A token in the format of OpenAI's chats: bytes that are not valid UTF-8 are escaped, `\xf0\x9f`.
/// A replacement character would be the same for all of them.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// A token in the format of OpenAI's completions: `bytes:\xf0\x9f` if it is not valid UTF-8.
fn completion_token(bytes: &[u8]) -> String {
    let text = escaped(bytes);
    if std::str::from_utf8(bytes).is_ok() { text } else { format!("bytes:{text}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answer_without_tokens_has_empty_logprobs() {
        let logprobs_of = |form| serde_json::to_value(Logprobs::new(form, &[])).unwrap();
        assert_eq!(logprobs_of(Form::Chat), json!({ "content": [], "refusal": null }));
        let empty = json!({ "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [] });
        assert_eq!(logprobs_of(Form::Completion), empty);
    }

    #[test]
    fn incomplete_utf8_tokens_stay_distinct() {
        let (one, other) = (b"\xf0\x9f".to_vec(), b"\xe2\x80".to_vec());
        let top =
            vec![(one.clone(), -0.5), (other.clone(), -1.0), (b"a".to_vec(), -2.0), (b"a".to_vec(), -9.0)];
        let token = TokenLogprob { start: 3, bytes: one, logprob: -0.5, top };
        let logprobs_of =
            |form| serde_json::to_value(Logprobs::new(form, std::slice::from_ref(&token))).unwrap();
        let completion = logprobs_of(Form::Completion);
        assert_eq!(completion["tokens"], json!(["bytes:\\xf0\\x9f"]));
        let top = json!({ "bytes:\\xf0\\x9f": -0.5, "bytes:\\xe2\\x80": -1.0, "a": -2.0 });
        assert_eq!(completion["top_logprobs"], json!([top]));
        assert_eq!(completion["text_offset"], json!([3]));
        let chat = logprobs_of(Form::Chat);
        assert_eq!(chat["content"][0]["token"], "\\xf0\\x9f");
        assert_eq!(chat["content"][0]["bytes"], json!([0xf0, 0x9f]));
        assert_eq!(chat["content"][0]["top_logprobs"][1]["token"], "\\xe2\\x80");
    }
}
