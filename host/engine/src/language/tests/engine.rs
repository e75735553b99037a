//! The engine against itself: however a request is cut, batched, cached or branched, its numbers
//! are the same.

use std::sync::Arc;
use std::time::{Duration, Instant};

use infer_kernels::Pool;

use super::support::{decoder, distance, file, logits};
use crate::card::Format;
use crate::language::config::DecoderConfig;
use crate::language::decoder::{Decoder, Packing, Run};
use crate::language::gguf::Gguf;
use crate::language::kv::Sequence;
use crate::language::preparation::{Preparation, Unprepared};
use crate::language::sampler::log_sum_exp;
use crate::language::{Finish, LanguageModel, Output, Params, Prompt, Request, Session};
use crate::model::{Capacity, RunError};
use crate::weights::bytes::Bytes;

/// Sums in another order differ by this much of logits whose spread is about 3.
const TOLERANCE: f32 = 0.01;

const FILES: [&str; 3] = ["phi3-q4_k.gguf", "llama-q5_k.gguf", "qwen2-q5_0.gguf"];

fn tokens(n: u32, seed: u32) -> Vec<u32> {
    (0..n).map(|i| 3 + (i * i * 7 + i * 13 + seed * 101) % 300).collect()
}

fn model(name: &str) -> LanguageModel {
    let capacity =
        Capacity { context_tokens: 256, max_batch: 32, kv_bytes: 8 << 20, ..Capacity::of(Format::Gguf) };
    LanguageModel::load(name, Bytes::map(&file(name)).unwrap(), None, &capacity).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

fn score(prompt: Vec<u32>, choices: &[&str]) -> Request {
    let choices = Some(choices.iter().map(|&choice| choice.to_owned()).collect());
    Request { prompt: Prompt::Tokens(prompt), choices, params: Params::default() }
}

fn generate(prompt: Vec<u32>, max_tokens: usize) -> Request {
    let params = Params { max_tokens, ..Params::default() };
    Request { prompt: Prompt::Tokens(prompt), choices: None, params }
}

fn scores(output: Output) -> Vec<f32> {
    match output {
        Output::Scores(scores) => scores,
        Output::Text { .. } => panic!("text"),
    }
}

#[test]
fn prompt_in_chunks_is_the_prompt_in_one() {
    for file in FILES {
        let (mut decoder, pool) = decoder(file, 256);
        let tokens = tokens(90, 1);
        let whole = logits(&mut decoder, &pool, &tokens, 90);
        for chunk in [1, 7, 16, 64] {
            let parts = logits(&mut decoder, &pool, &tokens, chunk);
            for (position, (one, other)) in whole.iter().zip(&parts).enumerate() {
                let distance = distance(one, other);
                assert!(distance < TOLERANCE, "{file}, chunks of {chunk}, position {position}: {distance}");
            }
        }
    }
}

#[test]
fn batch_is_each_alone() {
    for file in FILES {
        let (mut decoder, pool) = decoder(file, 256);
        let prompts: Vec<_> = [5, 40, 1, 17, 33].iter().zip(0..).map(|(&n, seed)| tokens(n, seed)).collect();
        let alone: Vec<_> =
            prompts.iter().map(|prompt| logits(&mut decoder, &pool, prompt, 64).pop().unwrap()).collect();
        let mut sequences: Vec<Sequence> = prompts.iter().map(|_| Sequence::default()).collect();
        let mut runs = Vec::new();
        for (sequence, prompt) in sequences.iter_mut().zip(&prompts) {
            sequence.extend(&pool, prompt).unwrap();
            runs.push(Run { sequence, start: 0, wanted: 1 });
        }
        decoder.forward(&mut runs);
        let vocabulary = decoder.vocabulary();
        for (row, (together, alone)) in decoder.logits(0, 5).chunks_exact(vocabulary).zip(&alone).enumerate()
        {
            let distance = distance(together, alone);
            assert!(distance < TOLERANCE, "{file}, prompt {row}: {distance}");
        }
    }
}

#[tokio::test]
async fn prefix_that_is_found_changes_no_score() {
    for file in FILES {
        let model = model(file);
        let component = Arc::from("policy");
        let policy = tokens(70, 2);
        let prompt = [&policy[..], &tokens(9, 3)].concat();
        let choices = ["yes", "no", "maybe"];
        let mut session = Session::new(&component);
        let warm_up = [&policy[..], &tokens(20, 4)].concat();
        model.run(&mut session, score(warm_up, &choices), None, soon()).await.unwrap();
        let warm = model.run(&mut session, score(prompt.clone(), &choices), None, soon()).await.unwrap();
        let cold = model.run(&mut Session::default(), score(prompt, &choices), None, soon()).await.unwrap();
        assert_eq!((warm.usage.prompt_tokens, warm.usage.cached_tokens), (79, 70), "{file}");
        assert_eq!(cold.usage.cached_tokens, 0, "{file}: another component's prefix was found");
        let distance = distance(&scores(warm.output), &scores(cold.output));
        assert!(distance < TOLERANCE, "{file}: {distance}");
    }
}

#[tokio::test]
async fn branches_are_scored_as_one_at_a_time() {
    for file in FILES {
        let model = model(file);
        let prompt = tokens(37, 5);
        let choices = ["a", "bcd", "bce", "some longer choice of many letters"];
        let together =
            model.run(&mut Session::default(), score(prompt.clone(), &choices), None, soon()).await.unwrap();
        let together = scores(together.output);
        let (mut decoder, pool) = decoder(file, 256);
        for (choice, together) in choices.iter().zip(together) {
            let mut session = Session::new(&Arc::from(*choice));
            let alone =
                model.run(&mut session, score(prompt.clone(), &[choice]), None, soon()).await.unwrap();
            let alone = scores(alone.output)[0];
            let own = model.shared.tokenizer.encode_continuation(choice).unwrap();
            let all = logits(&mut decoder, &pool, &[&prompt[..], &own].concat(), 64);
            let log_probability = |(row, token): (&Vec<f32>, &u32)| row[*token as usize] - log_sum_exp(row);
            let by_hand: f32 = all[prompt.len() - 1..].iter().zip(&own).map(log_probability).sum();
            let far = (together - alone).abs().max((together - by_hand).abs());
            assert!(far < TOLERANCE * own.len() as f32, "{file} `{choice}`: {together}, {alone}, {by_hand}");
        }
    }
}

#[tokio::test]
async fn session_goes_on_where_it_ended() {
    let model = model(FILES[1]);
    let whole = model.run(&mut Session::default(), generate(tokens(20, 6), 12), None, soon()).await.unwrap();
    let Output::Text { tokens: whole, finish, .. } = whole.output else { panic!("scores") };
    assert_eq!(finish, Finish::Length);
    let mut session = Session::new(&Arc::from("other"));
    let first = model.run(&mut session, generate(tokens(20, 6), 5), None, soon()).await.unwrap();
    let Output::Text { tokens: mut parts, .. } = first.output else { panic!("scores") };
    let more = Request {
        params: Params { max_tokens: 7, continues: true, ..Params::default() },
        ..generate(Vec::new(), 7)
    };
    let second = model.run(&mut session, more, None, soon()).await.unwrap();
    assert_eq!(second.usage.cached_tokens, 24);
    let Output::Text { tokens: rest, .. } = second.output else { panic!("scores") };
    parts.extend(rest);
    assert_eq!(parts, whole);
}

#[tokio::test]
async fn streamed_text_is_the_text() {
    let model = model(FILES[0]);
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let answer =
        model.run(&mut Session::default(), generate(tokens(9, 8), 30), Some(sender), soon()).await.unwrap();
    let Output::Text { text, .. } = answer.output else { panic!("scores") };
    let mut streamed = String::new();
    while let Some(part) = receiver.recv().await {
        streamed.push_str(&part.text);
    }
    assert_eq!(streamed, text);
    // A stop string in the middle of it ends it there, and is never streamed.
    let middle = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
    let stop: String = text[middle..].chars().take(2).collect();
    let mut request = generate(tokens(9, 8), 30);
    request.params.stop = vec![stop.clone()];
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let answer = model.run(&mut Session::default(), request, Some(sender), soon()).await.unwrap();
    let Output::Text { text: stopped, finish, .. } = answer.output else { panic!("scores") };
    assert_eq!(finish, Finish::Stop);
    assert_eq!(stopped, text[..text.find(&stop).unwrap()]);
    let mut streamed = String::new();
    while let Some(part) = receiver.recv().await {
        streamed.push_str(&part.text);
    }
    assert_eq!(streamed, stopped);
}

#[tokio::test]
async fn log_probabilities_are_those_that_choices_score() {
    let model = model(FILES[0]);
    let mut request = generate(tokens(9, 8), 6);
    request.params.logprobs = Some(3);
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let answer = model.run(&mut Session::default(), request, Some(sender), soon()).await.unwrap();
    let Output::Text { text, tokens: said, logprobs, .. } = answer.output else { panic!("scores") };
    assert_eq!(logprobs.len(), said.len());
    let mut streamed = Vec::new();
    while let Some(part) = receiver.recv().await {
        streamed.extend(part.logprobs);
    }
    assert_eq!(streamed, logprobs, "`{text}`");
    let (mut decoder, pool) = decoder(FILES[0], 256);
    let all = logits(&mut decoder, &pool, &[&tokens(9, 8)[..], &said].concat(), 64);
    for (index, (token, told)) in said.iter().zip(&logprobs).enumerate() {
        let row = &all[8 + index];
        let expected = row[*token as usize] - log_sum_exp(row);
        assert!((told.logprob - expected).abs() < TOLERANCE, "{index}: {} and {expected}", told.logprob);
        // Greedy: the chosen one is the likeliest.
        assert_eq!((told.top.len(), told.top[0].1), (3, told.logprob));
        assert!(told.top.is_sorted_by(|a, b| a.1 >= b.1));
        assert_eq!(told.bytes, model.shared.tokenizer.token_bytes(*token));
    }
}

/// An answer that begins a text, behind a control token: SentencePiece puts a space before it that
/// is no part of the answer.
#[tokio::test]
async fn bytes_of_log_probabilities_make_the_text() {
    for file in FILES {
        let model = model(file);
        let control = (0..320).find(|&token| model.shared.tokenizer.is_control(token));
        for begin in control.into_iter().chain(tokens(1, 8)) {
            let mut request = generate(vec![begin], 24);
            request.params.logprobs = Some(2);
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
            let answer = model.run(&mut Session::default(), request, Some(sender), soon()).await.unwrap();
            let Output::Text { text, tokens: said, logprobs, .. } = answer.output else { panic!("scores") };
            assert_eq!(logprobs.len(), said.len());
            let bytes: Vec<u8> = logprobs.iter().flat_map(|token| token.bytes.clone()).collect();
            assert_eq!(String::from_utf8_lossy(&bytes), text, "{file} {begin}");
            assert!(logprobs.is_sorted_by_key(|token| token.start));
            assert!(logprobs.iter().all(|token| text.is_char_boundary(token.start)), "{file} {begin}");
            let mut streamed = Vec::new();
            while let Some(part) = receiver.recv().await {
                streamed.extend(part.logprobs);
            }
            assert_eq!(streamed, logprobs, "every token is streamed: {file} {begin}");
        }
    }
}

#[tokio::test]
async fn unfit_requests_say_why() {
    let model = model(FILES[2]);
    let run = async |request| match model.run(&mut Session::default(), request, None, soon()).await {
        Err(RunError::InvalidInput { message, .. }) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        run(generate(tokens(256, 1), 1)).await,
        "the prompt has 256 tokens, expected fewer than the 256 of the context"
    );
    assert_eq!(run(generate(vec![9_999], 1)).await, "`tokens`: 9999 is not below the vocabulary's 320");
    assert_eq!(run(generate(Vec::new(), 1)).await, "the prompt has no tokens");
    assert_eq!(run(generate(vec![5], 0)).await, "`max_tokens` is 0, expected at least 1");
    assert_eq!(run(score(vec![5], &[])).await, "`choices` has 0 strings, expected 1 to 64");
    let long = Request { prompt: Prompt::Text("long ".repeat(2_000)), ..generate(Vec::new(), 1) };
    assert_eq!(run(long).await, "the prompt has 10000 bytes, far above the 256 tokens of the context");
    let past = model.run(&mut Session::default(), generate(vec![5], 1), None, Instant::now()).await;
    assert!(matches!(past, Err(RunError::Deadline { .. })));
}

fn declared(prompt: Vec<u32>) -> Request {
    let params = Params { pin: true, ..Params::default() };
    Request { params, ..score(prompt, &["yes"]) }
}

#[tokio::test]
async fn one_sessions_text_is_not_found_by_anothers() {
    let model = model(FILES[2]);
    let component = Arc::from("moderate");
    let policy = tokens(40, 1);
    let with = |seed| [&policy[..], &tokens(20, seed)].concat();
    let cached = async |session: &mut Session, request: Request| {
        model.run(session, request, None, soon()).await.unwrap().usage.cached_tokens
    };
    let mut one = Session::new(&component);
    cached(&mut one, declared(policy.clone())).await;
    assert_eq!(cached(&mut one, score(with(2), &["yes"])).await, 40);
    // Neither what was sent nor the beginning of it tells anything: each time the policy alone was
    // there.
    for guess in [with(2), with(3), with(2)[..50].to_vec()] {
        assert_eq!(cached(&mut Session::new(&component), score(guess, &["yes"])).await, 40);
    }
    // The session itself goes on where it was.
    assert_eq!(cached(&mut one, score(with(2), &["no"])).await, 59);
}

fn text(prompt: &str, choices: &[&str]) -> Request {
    Request { prompt: Prompt::Text(prompt.to_owned()), ..score(Vec::new(), choices) }
}

#[tokio::test]
async fn session_holds_the_whole_prompt_after_choices() {
    let model = model(FILES[2]);
    for (prompt, choices) in
        [("one two the t", ["he", "hat"]), ("one two ", ["three", "in"]), ("a  ", [" in", "b"])]
    {
        let mut session = Session::default();
        model.run(&mut session, text(prompt, &choices), None, soon()).await.unwrap();
        assert_eq!(session.tokens, model.shared.tokenizer.encode(prompt).unwrap(), "{prompt:?}");
    }
}

#[tokio::test]
async fn choice_that_swallows_the_prompt_is_named() {
    let model = model(FILES[2]);
    let refused = model.run(&mut Session::default(), text("th", &["x", "e"]), None, soon()).await;
    let Err(RunError::InvalidInput { message, .. }) = refused else { panic!("{refused:?}") };
    assert!(message.starts_with("choice `e` becomes one token with all of the prompt"), "{message}");
}

#[tokio::test]
async fn prompts_beyond_the_context_are_refused_before_they_are_copied() {
    let model = model(FILES[2]);
    let choices: Vec<_> = (0..64).map(|choice| choice.to_string()).collect();
    let choices: Vec<_> = choices.iter().map(String::as_str).collect();
    // With a copy a choice this would take 4 GB.
    let request = score(vec![5; 16 << 20], &choices);
    let refused = model.run(&mut Session::default(), request, None, soon()).await;
    let Err(RunError::InvalidInput { message, .. }) = refused else { panic!("{refused:?}") };
    assert!(message.starts_with("the prompt has 16777216 tokens, expected fewer than the 256"), "{message}");
}

#[tokio::test]
async fn preparation_ends_with_its_caller_and_at_its_deadline() {
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
    assert!(matches!(prepare(Instant::now(), Arc::downgrade(&caller)), Err(Unprepared::Late)));
    let gone = Arc::downgrade(&caller);
    drop(caller);
    assert!(matches!(prepare(soon(), gone), Err(Unprepared::Late)));
}

#[tokio::test]
async fn choices_behind_words_are_encoded_as_with_them() {
    for file in FILES {
        let model = model(file);
        let tokenizer = &model.shared.tokenizer;
        let (prompt, choices) = ("say which it is: a cat or a do", ["g", "ve", " or so", "1"]);
        let answer = model.run(&mut Session::default(), text(prompt, &choices), None, soon()).await.unwrap();
        let (mut decoder, pool) = decoder(file, 256);
        for (choice, found) in choices.iter().zip(scores(answer.output)) {
            let all: Vec<u32> = tokenizer
                .bos()
                .into_iter()
                .chain(tokenizer.encode(&[prompt, choice].concat()).unwrap())
                .collect();
            let rows = logits(&mut decoder, &pool, &all, 64);
            let from = answer.usage.prompt_tokens;
            let expected: f32 =
                (from..all.len()).map(|at| rows[at - 1][all[at] as usize] - log_sum_exp(&rows[at - 1])).sum();
            assert!((found - expected).abs() < TOLERANCE * 5.0, "{file} {choice}: {found}, {expected}");
        }
    }
}

#[test]
fn tensors_that_the_graph_has_no_place_for_are_refused() {
    let file = std::fs::read(file(FILES[2])).unwrap();
    let load = |file: Vec<u8>| {
        let gguf = Gguf::parse(Bytes::Owned(file)).unwrap();
        let config = DecoderConfig::read(&gguf, 64).unwrap();
        let packing = Packing { pool: Pool::new(1).unwrap(), slot: None };
        Decoder::load(gguf, config, 320, packing).map(|_| ()).map_err(|error| error.to_string())
    };
    load(file.clone()).unwrap();
    // One layer less than there are tensors of: behind the key stand its type and its value.
    let key = b"qwen2.block_count";
    let value = file.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
    let mut shorter = file.clone();
    assert!(shorter[value] > 1);
    shorter[value] -= 1;
    let layer = shorter[value];
    let error = load(shorter).unwrap_err();
    assert!(error.starts_with(&format!("tensor `blk.{layer}.")) && error.contains("has no place"), "{error}");
}

#[tokio::test]
async fn model_whose_thread_has_ended_says_so() {
    let model = model(FILES[2]);
    assert!(model.is_serving());
    model.shared.inbox.close();
    assert!(!model.is_serving());
    let refused = model.run(&mut Session::default(), generate(vec![5], 1), None, soon()).await;
    assert!(matches!(refused, Err(RunError::Closed { .. })), "{refused:?}");
}
