//! Real weights: the engine's next token at every step of llama.cpp's greedy answers, which
//! tests/scripts/greedy.py recorded.

use serde::Deserialize;

use super::support::{cached, decoder_of, file, logits};
use crate::language::sampler::argmax;

#[derive(Deserialize)]
struct Recorded {
    file: String,
    /// Error of a logit caused by llama.cpp's own int8 arithmetic.
    int8_error: Error,
    prompts: Vec<Answer>,
}

#[derive(Deserialize)]
struct Error {
    rms: f32,
}

/// Maximum lead of a differing token, as a multiple of the root mean square error of int8
/// arithmetic. The largest lead seen is 1.4 times.
const ERRORS: f32 = 2.0;

/// Number of answers that are equal up to the last token, and number of steps at which the others
/// differ.
#[derive(Debug)]
struct Agreement {
    equal: usize,
    differing: usize,
}

#[derive(Deserialize)]
struct Answer {
    prompt: Vec<u32>,
    generated: Vec<u32>,
    /// The best tokens of each step, with their logits.
    best: Vec<Vec<(u32, f32)>>,
}

/// Compares the engine with llama.cpp's answers. Asserts that it differs only at near-ties.
fn agreement(model: &str) -> Agreement {
    let text = std::fs::read_to_string(file(&format!("greedy-{model}.json"))).unwrap();
    let Recorded { file, int8_error, prompts } = serde_json::from_str(&text).unwrap();
    let (mut decoder, pool) = decoder_of(&cached(model, &file), 1024);
    let (mut equal, mut steps) = (0, 0);
    for (number, Answer { prompt, generated, best }) in prompts.iter().enumerate() {
        let fed = [&prompt[..], &generated[..generated.len() - 1]].concat();
        let rows = logits(&mut decoder, &pool, &fed, 128);
        let found: Vec<u32> = rows[prompt.len() - 1..].iter().map(|row| argmax(row)).collect();
        let differing = (0..generated.len()).filter(|&step| found[step] != generated[step]);
        for step in differing.clone() {
            let row = &rows[prompt.len() - 1 + step];
            let (ours, theirs) = (found[step], generated[step]);
            let lead = row[ours as usize] - row[theirs as usize];
            println!("prompt {number}, step {step}: {ours} instead of {theirs}, by {lead}");
            assert!(lead <= ERRORS * int8_error.rms, "prompt {number}, step {step}: {lead} is no near-tie");
        }
        // The first difference is a near-tie in llama.cpp as well.
        if let Some(step) = differing.clone().next() {
            let logit = |token: u32| best[step].iter().find(|(id, _)| *id == token).map(|(_, logit)| *logit);
            let lead = logit(generated[step]).unwrap() - logit(found[step]).unwrap_or(f32::NEG_INFINITY);
            assert!(lead <= ERRORS * int8_error.rms, "prompt {number}, step {step}: {lead} to llama.cpp");
        }
        let differing = differing.count();
        equal += usize::from(differing == 0);
        steps += differing;
    }
    println!("{equal} of {} answers are equal to the last token, {steps} steps differ", prompts.len());
    Agreement { equal, differing: steps }
}

#[test]
fn smollm2_matches_llama_cpp_greedy_answers() {
    let found = agreement("smollm2");
    assert!(found.equal >= 5 && found.differing <= 12, "{found:?}");
}

#[test]
#[ignore = "needs 491 MB: make test-models"]
fn qwen2_answers_as_llama_cpp_does() {
    let found = agreement("qwen2.5-0.5b");
    assert!(found.equal >= 6 && found.differing <= 5, "{found:?}");
}

#[test]
#[ignore = "needs 253 MB: make test-models"]
fn gemma3_answers_as_llama_cpp_does() {
    let found = agreement("gemma-3-270m");
    assert!(found.equal >= 2 && found.differing <= 15, "{found:?}");
}

/// Next tokens of a full-size file. tests/scripts/phi3_top1.py writes llama.cpp's tokens, with
/// their leads.
#[derive(Deserialize)]
struct Top1 {
    prompts: Vec<Next>,
}

#[derive(Deserialize)]
struct Next {
    tokens: Vec<u32>,
    best: Vec<(u32, f32)>,
}

#[test]
#[ignore = "needs a full-size file: INFER_TOP1=FILE.json INFER_TOP1_MODEL=FILE.gguf"]
fn full_size_model_matches_llama_cpp_top_1() {
    let variable = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let text = std::fs::read_to_string(variable("INFER_TOP1")).unwrap();
    let Top1 { prompts } = serde_json::from_str(&text).unwrap();
    let (mut decoder, pool) = decoder_of(variable("INFER_TOP1_MODEL").as_ref(), 512);
    let mut equal = 0;
    for Next { tokens, best } in &prompts {
        let found = argmax(logits(&mut decoder, &pool, tokens, 128).last().unwrap());
        equal += usize::from(found == best[0].0);
    }
    println!("{equal} of {} next tokens are equal", prompts.len());
    assert_eq!(equal, prompts.len());
}
