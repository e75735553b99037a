//! Requests and answers as named tensors: the encoding of text in `wasi:nn`, documented for guests
//! in wit/README.md.

use serde::Serialize;

use super::request::{Answer, List, Message, Output, Params, Prompt, Request, TokenUsage};
use crate::dtype::DType;
use crate::limits::{MAX_CHOICES, MAX_MESSAGES};
use crate::tensor::Tensor;
use crate::text::{QUOTE_BYTES, excerpt};

/// Reads a request from its tensors.
///
/// # Errors
///
/// For a tensor that is missing, unknown, repeated or malformed. The message gives the expected and
/// the found value.
pub(super) fn request(inputs: Vec<(String, Tensor)>) -> Result<Request, String> {
    let mut prompt = None;
    let mut choices = None;
    let mut params = None;
    for (name, tensor) in inputs {
        let again = match name.as_str() {
            "prompt" => prompt.replace(Prompt::Text(tensor.into_text(&name)?)).is_some(),
            "messages" => {
                let List(messages) = tensor.into_json::<List<Message, MAX_MESSAGES>>(&name)?;
                prompt.replace(Prompt::Messages(messages)).is_some()
            }
            "tokens" => prompt.replace(Prompt::Tokens(tokens(&tensor)?)).is_some(),
            "choices" => {
                let List(listed) = tensor.into_json::<List<String, MAX_CHOICES>>(&name)?;
                choices.replace(listed).is_some()
            }
            "params" => params.replace(tensor.into_json::<Params>(&name)?).is_some(),
            other => {
                let other = excerpt(other, QUOTE_BYTES);
                return Err(format!(
                    "unknown input `{other}`; expected one of `prompt`, `messages` and `tokens`, and \
                     optionally `choices` and `params`"
                ));
            }
        };
        if again {
            return Err(format!(
                "duplicate input `{name}`; expected one of `prompt`, `messages` and `tokens`, and at most \
                 one each of `choices` and `params`"
            ));
        }
    }
    let prompt = prompt.ok_or("no prompt: expected one of the inputs `prompt`, `messages` and `tokens`")?;
    Ok(Request { prompt, choices, params: params.unwrap_or_default() })
}

/// The tensors of an answer. `dummy` declares that the weights are random.
///
/// # Errors
///
/// Not for a valid answer; reports a tensor that cannot be created.
pub(super) fn answer(answer: &Answer, dummy: bool) -> Result<Vec<(String, Tensor)>, String> {
    #[derive(Serialize)]
    struct Metadata {
        #[serde(flatten)]
        usage: TokenUsage,
        queue_ms: f64,
        compute_ms: f64,
        dummy: bool,
    }
    let metadata = Metadata {
        usage: answer.usage,
        queue_ms: answer.queue.as_secs_f64() * 1e3,
        compute_ms: answer.compute.as_secs_f64() * 1e3,
        dummy,
    };
    let metadata = serde_json::to_vec(&metadata).map_err(|error| error.to_string())?;
    let mut outputs = match &answer.output {
        Output::Scores(logprobs) => {
            vec![("logprobs", Tensor::from_slice(&[logprobs.len()], logprobs))]
        }
        Output::Text { text, tokens, finish, .. } => {
            let tokens: Vec<i32> = tokens.iter().map(|&token| token.cast_signed()).collect();
            vec![
                ("text", Ok(Tensor::from_bytes(text.as_bytes().to_vec()))),
                ("tokens", Tensor::from_slice(&[tokens.len()], &tokens)),
                ("finish", Ok(Tensor::from_bytes(finish.name().as_bytes().to_vec()))),
            ]
        }
    };
    outputs.push(("metadata", Ok(Tensor::from_bytes(metadata))));
    let named = |(name, tensor): (&str, Result<Tensor, _>)| match tensor {
        Ok(tensor) => Ok((name.to_owned(), tensor)),
        Err(error) => Err(format!("output `{name}`: {error}")),
    };
    outputs.into_iter().map(named).collect()
}

fn tokens(tensor: &Tensor) -> Result<Vec<u32>, String> {
    let ids: Vec<i64> = match tensor.dtype() {
        DType::I32 => tensor.to_vec::<i32>().map(|ids| ids.into_iter().map(i64::from).collect()),
        DType::I64 => tensor.to_vec::<i64>(),
        other => return Err(format!("`tokens` is {other}, expected i32 or i64")),
    }
    .map_err(|error| error.to_string())?;
    let id = |id: i64| u32::try_from(id).map_err(|_| format!("`tokens`: {id} is not a token id"));
    ids.into_iter().map(id).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::request::Finish;
    use super::*;

    fn input(name: &str, text: &str) -> (String, Tensor) {
        (name.to_owned(), Tensor::from_bytes(text.as_bytes().to_vec()))
    }

    #[test]
    fn requests_are_read() {
        let request = request(vec![
            input("messages", r#"[{"role": "user", "content": "héllo"}]"#),
            input("choices", r#"["yes", "no"]"#),
            input("params", r#"{"pin": true, "prefix_messages": 1}"#),
        ]);
        let messages = vec![Message { role: "user".to_owned(), content: "héllo".to_owned() }];
        let params = Params { pin: true, prefix_messages: Some(1), ..Params::default() };
        let choices = Some(vec!["yes".to_owned(), "no".to_owned()]);
        assert_eq!(request, Ok(Request { prompt: Prompt::Messages(messages), choices, params }));
    }

    #[test]
    fn malformed_requests_name_the_input() {
        let negative = Tensor::from_slice(&[1], &[-1i32]).unwrap();
        let float = Tensor::from_slice(&[1], &[0.5f32]).unwrap();
        let cases = [
            (vec![], "no prompt: expected one of the inputs `prompt`, `messages` and `tokens`"),
            (vec![input("prompt", "a"), input("messages", "[]")], "duplicate input `messages`;"),
            (vec![input("prompt", "a"), input("params", "{\"heat\": 1}")], "`params`: unknown field `heat`"),
            (vec![input("prompt", "a"), input("choices", "yes")], "`choices`: expected value"),
            (vec![input("image", "a")], "unknown input `image`"),
            (vec![("tokens".to_owned(), negative)], "`tokens`: -1 is not a token id"),
            (vec![("tokens".to_owned(), float.clone())], "`tokens` is f32, expected i32 or i64"),
            (vec![("prompt".to_owned(), float)], "`prompt` is f32, expected u8"),
        ];
        for (inputs, expected) in cases {
            let error = request(inputs).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let many = |name: &str, item: &str, max: usize| {
            // The items of a list take more memory than their JSON. Reading must stop at the first
            // excess item.
            let json = format!("[{}{item}, and no JSON", format!("{item},").repeat(max));
            request(vec![input("prompt", "a"), input(name, &json)]).unwrap_err()
        };
        let expected =
            |name: &str, max| format!("`{name}`: invalid length {}, expected at most {max} items", max + 1);
        assert!(many("choices", "\"\"", 64).starts_with(&expected("choices", 64)));
        let turn = r#"{"role":"user","content":""}"#;
        assert!(many("messages", turn, 1024).starts_with(&expected("messages", 1024)));
        let stops = format!("{{\"stop\": [{}\"\", and no JSON", "\"\",".repeat(16));
        let error = request(vec![input("prompt", "a"), input("params", &stops)]).unwrap_err();
        assert!(error.starts_with(&expected("params", 16)), "{error}");
        let not_text = Tensor::new(DType::U8, vec![2], vec![b'a', 0xff]).unwrap();
        let error = request(vec![("prompt".to_owned(), not_text)]).unwrap_err();
        assert_eq!(error, "`prompt` is not UTF-8: invalid byte at 1");
    }

    #[test]
    fn answers_are_written() {
        let usage = TokenUsage { prompt_tokens: 3, cached_tokens: 2, generated_tokens: 1 };
        let (text, logprobs) = ("ok".to_owned(), Vec::new());
        let output = Output::Text { text, tokens: vec![7], finish: Finish::End, logprobs };
        let (queue, compute) = (Duration::from_millis(1), Duration::from_millis(2));
        let outputs = answer(&Answer { output, usage, queue, compute, batch: 1 }, true).unwrap();
        let names: Vec<_> = outputs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["text", "tokens", "finish", "metadata"]);
        assert_eq!(outputs[1].1.to_vec::<i32>().unwrap(), [7]);
        let metadata: serde_json::Value = serde_json::from_slice(outputs[3].1.data()).unwrap();
        let expected = serde_json::json!({
            "prompt_tokens": 3, "cached_tokens": 2, "generated_tokens": 1,
            "queue_ms": 1.0, "compute_ms": 2.0, "dummy": true,
        });
        assert_eq!(metadata, expected);
    }
}
