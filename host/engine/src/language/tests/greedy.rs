//! Real weights: what the engine would say next at every step of llama.cpp's greedy answers, which tests/scripts/greedy.py
//! recorded.

use serde::Deserialize;

use super::support::{cached, decoder_of, file, logits};
use crate::language::sampler::argmax;

#[derive(Deserialize)]
struct Recorded {
    file: String,
    /// How far llama.cpp's own int8 arithmetic moves a logit.
    int8_error: Error,
    prompts: Vec<Answer>,
}

#[derive(Deserialize)]
struct Error {
    largest: f32,
}

#[derive(Deserialize)]
struct Answer {
    prompt: Vec<u32>,
    generated: Vec<u32>,
    /// The best tokens of each step, with their logits.
    best: Vec<Vec<(u32, f32)>>,
}

/// The answers that the engine gives to the last token; where one is left, it is at a near-tie.
fn answers_that_are_equal(model: &str) -> usize {
    let text = std::fs::read_to_string(file(&format!("greedy-{model}.json"))).unwrap();
    let Recorded { file, int8_error, prompts } = serde_json::from_str(&text).unwrap();
    let (mut decoder, pool) = decoder_of(&cached(model, &file), 512);
    let mut equal = 0;
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
            assert!(lead <= int8_error.largest, "prompt {number}, step {step}: {lead} is no near-tie");
        }
        // Where the two texts part, it is a near-tie to llama.cpp as well.
        if let Some(step) = differing.clone().next() {
            let logit = |token: u32| best[step].iter().find(|(id, _)| *id == token).map(|(_, logit)| *logit);
            let lead = logit(generated[step]).unwrap() - logit(found[step]).unwrap_or(f32::NEG_INFINITY);
            assert!(lead <= int8_error.largest, "prompt {number}, step {step}: {lead} to llama.cpp");
        }
        equal += usize::from(differing.count() == 0);
    }
    println!("{equal} of {} answers are equal to the last token", prompts.len());
    equal
}

#[test]
fn smollm2_answers_as_llama_cpp_does() {
    assert!(answers_that_are_equal("smollm2") >= 3);
}

#[test]
#[ignore = "needs 491 MB: make test-models"]
fn qwen2_answers_as_llama_cpp_does() {
    assert!(answers_that_are_equal("qwen2.5-0.5b") >= 3);
}

/// The next tokens of a full-size file: tests/scripts/phi3_top1.py writes what llama.cpp says, with its lead.
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
fn full_size_model_says_what_llama_cpp_says_next() {
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
