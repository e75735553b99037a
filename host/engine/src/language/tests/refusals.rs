//! Requests and files that are rejected, and stopped models.

use std::sync::Arc;
use std::time::Instant;

use infer_kernels::Pool;

use super::support::{FILES, file, generate, model, score, soon, text, tokens};
use crate::language::config::DecoderConfig;
use crate::language::decoder::{Decoder, Packing};
use crate::language::gguf::Gguf;
use crate::language::preparation::{Preparation, PrepareError};
use crate::language::{Prompt, Request, Session};
use crate::model::RunError;
use crate::weights::bytes::Bytes;

#[tokio::test]
async fn invalid_requests_name_the_problem() {
    let model = model(FILES[2]);
    let run = async |request| match model.run(&mut Session::default(), request, None, soon()).await {
        Err(RunError::InvalidInput { message, .. }) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        run(generate(tokens(256, 1), 1)).await,
        "the prompt has 256 tokens, expected fewer than the 256 of the context"
    );
    assert_eq!(run(generate(vec![9_999], 1)).await, "`tokens`: 9999 is not below the vocabulary size, 320");
    assert_eq!(run(generate(Vec::new(), 1)).await, "the prompt has no tokens");
    assert_eq!(run(generate(vec![5], 0)).await, "`max_tokens` is 0, expected at least 1");
    assert_eq!(run(score(vec![5], &[])).await, "`choices` has 0 strings, expected 1 to 64");
    let long = Request { prompt: Prompt::Text("long ".repeat(2_000)), ..generate(Vec::new(), 1) };
    assert_eq!(run(long).await, "the prompt has 10000 bytes, far more than fit in a context of 256 tokens");
    let past = model.run(&mut Session::default(), generate(vec![5], 1), None, Instant::now()).await;
    assert!(matches!(past, Err(RunError::Deadline { .. })));
}

#[tokio::test]
async fn choice_that_merges_with_prompt_is_named() {
    let model = model(FILES[2]);
    let result = model.run(&mut Session::default(), text("th", &["x", "e"]), None, soon()).await;
    let Err(RunError::InvalidInput { message, .. }) = result else { panic!("{result:?}") };
    assert!(message.starts_with("choice `e` merges with the whole prompt into one token"), "{message}");
}

#[tokio::test]
async fn oversized_prompt_is_rejected_before_copies() {
    let model = model(FILES[2]);
    let choices: Vec<_> = (0..64).map(|choice| choice.to_string()).collect();
    let choices: Vec<_> = choices.iter().map(String::as_str).collect();
    // With a copy for each choice, this would take 4 GB.
    let request = score(vec![5; 16 << 20], &choices);
    let result = model.run(&mut Session::default(), request, None, soon()).await;
    let Err(RunError::InvalidInput { message, .. }) = result else { panic!("{result:?}") };
    assert!(message.starts_with("the prompt has 16777216 tokens, expected fewer than the 256"), "{message}");
}

#[tokio::test]
async fn preparation_stops_without_caller_and_at_deadline() {
    let model = model(FILES[2]);
    let prepare = |deadline, caller| {
        let preparation = Preparation {
            shared: model.shared.clone(),
            before: Vec::new(),
            context: model.context,
            vocabulary: model.vocabulary,
            deadline,
            caller,
        };
        preparation.run(&text("one two three", &["four", "five"]))
    };
    let caller = Arc::new(());
    assert!(prepare(soon(), Arc::downgrade(&caller)).is_ok());
    assert!(matches!(prepare(Instant::now(), Arc::downgrade(&caller)), Err(PrepareError::Expired)));
    let gone = Arc::downgrade(&caller);
    drop(caller);
    assert!(matches!(prepare(soon(), gone), Err(PrepareError::Expired)));
}

#[test]
fn unused_tensors_are_rejected() {
    let file = std::fs::read(file(FILES[2])).unwrap();
    let load = |file: Vec<u8>| {
        let gguf = Gguf::parse(Bytes::Owned(file)).unwrap();
        let config = DecoderConfig::read(&gguf, 64).unwrap();
        let packing = Packing { pool: Pool::new(1).unwrap(), slot: None };
        Decoder::load(gguf, config, 320, packing).map(|_| ()).map_err(|error| error.to_string())
    };
    load(file.clone()).unwrap();
    // Declares one layer less than there are tensors for. The type and the value follow the key.
    let key = b"qwen2.block_count";
    let value = file.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
    let mut shorter = file.clone();
    assert!(shorter[value] > 1);
    shorter[value] -= 1;
    let layer = shorter[value];
    let error = load(shorter).unwrap_err();
    assert!(error.starts_with(&format!("tensor `blk.{layer}.")) && error.contains("is not used"), "{error}");
}

#[tokio::test]
async fn stopped_model_rejects_requests() {
    let model = model(FILES[2]);
    assert!(model.is_serving());
    model.shared.inbox.close();
    assert!(!model.is_serving());
    let result = model.run(&mut Session::default(), generate(vec![5], 1), None, soon()).await;
    assert!(matches!(result, Err(RunError::Closed { .. })), "{result:?}");
}
