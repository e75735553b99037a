//! Streams and log-probabilities of generated text.

use super::support::{FILES, TOLERANCE, decoder, generate, logits, model, soon, tokens};
use crate::language::sampler::log_sum_exp;
use crate::language::{Finish, Output, Session};

#[tokio::test]
async fn stream_equals_final_text() {
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
    // A stop string in the middle of the text ends it there, and is never streamed.
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
async fn token_logprobs_equal_scores_of_choices() {
    let model = model(FILES[0]);
    let mut request = generate(tokens(9, 8), 6);
    request.params.logprobs = Some(3);
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let answer = model.run(&mut Session::default(), request, Some(sender), soon()).await.unwrap();
    let Output::Text { text, tokens: generated, logprobs, .. } = answer.output else { panic!("scores") };
    assert_eq!(logprobs.len(), generated.len());
    let mut streamed = Vec::new();
    while let Some(part) = receiver.recv().await {
        streamed.extend(part.logprobs);
    }
    assert_eq!(streamed, logprobs, "`{text}`");
    let (mut decoder, pool) = decoder(FILES[0], 256);
    let all = logits(&mut decoder, &pool, &[&tokens(9, 8)[..], &generated].concat(), 64);
    for (index, (token, entry)) in generated.iter().zip(&logprobs).enumerate() {
        let row = &all[8 + index];
        let expected = row[*token as usize] - log_sum_exp(row);
        assert!((entry.logprob - expected).abs() < TOLERANCE, "{index}: {} and {expected}", entry.logprob);
        // Greedy: the chosen token is the most likely one.
        assert_eq!((entry.top.len(), entry.top[0].1), (3, entry.logprob));
        assert!(entry.top.is_sorted_by(|a, b| a.1 >= b.1));
        assert_eq!(entry.bytes, model.shared.tokenizer.token_bytes(*token));
    }
}

/// An answer at the beginning of a text, after a control token. SentencePiece adds a leading space
/// that is not part of the answer.
#[tokio::test]
async fn token_bytes_concatenate_to_the_text() {
    for file in FILES {
        let model = model(file);
        let control = (0..320).find(|&token| model.shared.tokenizer.is_control(token));
        for begin in control.into_iter().chain(tokens(1, 8)) {
            let mut request = generate(vec![begin], 24);
            request.params.logprobs = Some(2);
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
            let answer = model.run(&mut Session::default(), request, Some(sender), soon()).await.unwrap();
            let Output::Text { text, tokens: generated, logprobs, .. } = answer.output else {
                panic!("scores")
            };
            assert_eq!(logprobs.len(), generated.len());
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
