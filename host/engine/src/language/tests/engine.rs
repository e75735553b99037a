//! Invariants of the engine: chunking, batching, caching and branching do not change the numbers.

use std::sync::Arc;

use super::support::{
    FILES, TOLERANCE, decoder, distance, generate, logits, model, score, scores, soon, text, tokens,
};
use crate::language::decoder::Run;
use crate::language::kv::Sequence;
use crate::language::sampler::log_sum_exp;
use crate::language::{Finish, Output, Params, Request, Session};

#[test]
fn chunked_prompt_equals_single_pass() {
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
fn batch_equals_single_requests() {
    for file in FILES {
        let (mut decoder, pool) = decoder(file, 256);
        let prompts: Vec<_> = [5, 40, 1, 17, 33].iter().zip(0..).map(|(&n, seed)| tokens(n, seed)).collect();
        let alone: Vec<_> =
            prompts.iter().map(|prompt| logits(&mut decoder, &pool, prompt, 64).pop().unwrap()).collect();
        let mut sequences: Vec<Sequence> = prompts.iter().map(|_| Sequence::default()).collect();
        let mut runs = Vec::new();
        for (sequence, prompt) in sequences.iter_mut().zip(&prompts) {
            sequence.extend(&pool, prompt).unwrap();
            runs.push(Run { sequence, start: 0, logit_rows: 1 });
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
async fn cached_prefix_changes_no_score() {
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
async fn branches_score_like_single_choices() {
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
async fn session_continues_after_its_last_token() {
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

fn declared(prompt: Vec<u32>) -> Request {
    let params = Params { pin: true, ..Params::default() };
    Request { params, ..score(prompt, &["yes"]) }
}

#[tokio::test]
async fn session_text_is_private() {
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
    // A guess of the text, or of its beginning, reveals nothing: only the policy is found each
    // time.
    for guess in [with(2), with(3), with(2)[..50].to_vec()] {
        assert_eq!(cached(&mut Session::new(&component), score(guess, &["yes"])).await, 40);
    }
    // The session itself finds its own text.
    assert_eq!(cached(&mut one, score(with(2), &["no"])).await, 59);
}

#[tokio::test]
async fn session_holds_whole_prompt_after_choices() {
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
async fn choices_are_tokenized_together_with_last_word() {
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
