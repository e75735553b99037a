//! The decision in an answer, in one form for all paths.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::body::Bytes;
use infer_engine::{Card, TokenUsage};
use infer_sandbox::types::{CategoryScore, Label, NamedTensor, Verdict};
use serde::Deserialize;

use crate::args::BenchTask;
use crate::stats::{Instance, Stages};

/// The reply to one request.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) stages: Stages,
    /// The decision, for comparison with a label. `None` if the reply holds none.
    pub(super) said: Option<Said>,
}

/// A decision and its confidence.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// The decision about each category, and whether the whole is flagged.
    Verdict { categories: Vec<Decision>, flagged: bool },
    /// The most likely label and its score.
    Label { name: String, score: f64 },
    /// The probability of each choice, normalised over the choices.
    Choices(Vec<f64>),
    /// The score of each label of a text model.
    Scores(Vec<(String, f64)>),
}

/// The decision about a category.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decision {
    pub(super) category: String,
    pub(super) score: f64,
    pub(super) flagged: bool,
}

impl Said {
    pub(super) fn verdict(verdict: &Verdict) -> Said {
        let decision = |judged: &CategoryScore| Decision {
            category: judged.category.clone(),
            score: judged.score.into(),
            flagged: judged.flagged,
        };
        let categories = verdict.scores.iter().map(decision).collect();
        Said::Verdict { categories, flagged: verdict.flagged }
    }

    pub(super) fn labels(labels: &[Label]) -> Option<Said> {
        let best = labels.first()?;
        Some(Said::Label { name: best.name.clone(), score: f64::from(best.score) })
    }

    pub(super) fn logprobs(logprobs: &[f32]) -> Said {
        let max = logprobs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<_> = logprobs.iter().map(|logprob| f64::from(logprob - max).exp()).collect();
        let total: f64 = weights.iter().sum();
        Said::Choices(weights.into_iter().map(|weight| weight / total).collect())
    }

    /// Reads the decision from the outputs that a guest returns: choices that a language model
    /// scored, or the scores of `card`'s labels for a text.
    pub(super) fn tensors(card: &Card, outputs: &[NamedTensor]) -> Option<Said> {
        let find = |name: &str| outputs.iter().find(|output| output.name == name).map(numbers);
        match find("logprobs") {
            Some(logprobs) => Some(Said::logprobs(&logprobs)),
            None => Said::scores(card, &find("scores")?),
        }
    }

    /// Pairs the scores of one text with the labels of a text model's `card`.
    pub(super) fn scores(card: &Card, scores: &[f32]) -> Option<Said> {
        let scores = card.labels.iter().cloned().zip(scores.iter().map(|&score| score.into()));
        card.takes_texts().then(|| Said::Scores(scores.collect()))
    }
}

/// The elements of a tensor of f32.
fn numbers(tensor: &NamedTensor) -> Vec<f32> {
    tensor.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The members of a server's answer that are read; the others are ignored.
#[derive(Deserialize)]
struct Served {
    #[serde(default)]
    results: Vec<Judged>,
    #[serde(default)]
    labels: Vec<Labelled>,
    infer: Option<Facts>,
}

#[derive(Deserialize)]
struct Judged {
    flagged: bool,
    #[serde(default)]
    categories: BTreeMap<String, bool>,
    category_scores: BTreeMap<String, f64>,
}

/// A category beyond OpenAI's.
#[derive(Deserialize)]
struct Further {
    score: f64,
    flagged: bool,
}

#[derive(Deserialize)]
struct Labelled {
    label: String,
    score: f64,
}

#[derive(Deserialize)]
struct Facts {
    /// Of each result.
    #[serde(default)]
    categories: Vec<BTreeMap<String, Further>>,
    timings: Option<Timings>,
    tokens: Option<Tokens>,
}

#[derive(Deserialize)]
struct Timings {
    queue_ms: f64,
    instantiate_ms: f64,
    guest_ms: f64,
    compute_ms: f64,
}

#[derive(Deserialize)]
struct Tokens {
    prompt_tokens: usize,
    cached_tokens: usize,
    generated_tokens: usize,
}

/// Parses a server's answer. An answer without the `infer` member yields only its latency.
///
/// # Errors
///
/// If the body is not an answer of the task's route.
pub(super) fn of_server(task: BenchTask, body: &Bytes) -> Result<Reply, String> {
    let mut served: Served =
        serde_json::from_slice(body).map_err(|error| format!("the answer is invalid for {task}: {error}"))?;
    let said = match task {
        BenchTask::Classify => {
            served.labels.into_iter().next().map(|best| Said::Label { name: best.label, score: best.score })
        }
        _ => {
            let further = served.infer.as_mut().and_then(|facts| facts.categories.drain(..).next());
            served.results.into_iter().next().map(|result| judged(result, further.unwrap_or_default()))
        }
    };
    if said.is_none() {
        return Err(format!("the answer has no result of {task}"));
    }
    let mut stages = Stages::default();
    if let Some(Facts { timings, tokens, .. }) = served.infer {
        if let Some(timings) = timings {
            let time = |ms: f64| Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default();
            (stages.queue, stages.compute) = (time(timings.queue_ms), time(timings.compute_ms));
            let (instantiate, guest) = (time(timings.instantiate_ms), time(timings.guest_ms));
            stages.instance = Some(Instance { instantiate, guest, drop: None });
        }
        if let Some(Tokens { prompt_tokens, cached_tokens, generated_tokens }) = tokens {
            stages.tokens = TokenUsage { prompt_tokens, cached_tokens, generated_tokens };
        }
    }
    Ok(Reply { stages, said })
}

fn judged(result: Judged, further: BTreeMap<String, Further>) -> Said {
    let Judged { flagged, categories, category_scores } = result;
    let own = category_scores.into_iter().map(|(category, score)| Decision {
        flagged: categories.get(&category).copied().unwrap_or(false),
        category,
        score,
    });
    let further = further.into_iter().map(|(category, Further { score, flagged })| Decision {
        category,
        score,
        flagged,
    });
    Said::Verdict { categories: own.chain(further).collect(), flagged }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_read_with_its_timings() {
        let body = br#"{"id": "x", "results": [{"flagged": true, "categories": {"hate": true}, "category_scores": {"hate": 0.75}}],
            "infer": {"categories": [{"insult": {"score": 0.5, "flagged": false, "tier": "classifier"}}], "timings": {"queue_ms": 1.0, "instantiate_ms": 0.5, "guest_ms": 0.25, "compute_ms": 2.0, "total_ms": 4},
            "tokens": {"prompt_tokens": 10, "cached_tokens": 8, "generated_tokens": 0}}}"#;
        let Reply { stages, said } = of_server(BenchTask::Moderate, &Bytes::from_static(body)).unwrap();
        let decision =
            |category: &str, score, flagged| Decision { category: category.into(), score, flagged };
        let categories = vec![decision("hate", 0.75, true), decision("insult", 0.5, false)];
        assert_eq!(said, Some(Said::Verdict { categories, flagged: true }));
        assert_eq!((stages.queue, stages.compute), (Duration::from_millis(1), Duration::from_millis(2)));
        assert_eq!(stages.instance.unwrap().guest, Duration::from_micros(250));
        assert_eq!(stages.tokens.cached_tokens, 8);
    }

    #[test]
    fn answer_of_another_server_is_an_error() {
        for body in [&b"<html>"[..], b"{}", b"[]", br#"{"results": []}"#, br#"{"labels": [{"label": "a"}]}"#]
        {
            let error = of_server(BenchTask::Classify, &Bytes::from_static(body)).unwrap_err();
            assert!(error.starts_with("the answer "), "{error}");
        }
    }

    #[test]
    fn log_probabilities_become_probabilities_among_the_choices() {
        let Said::Choices(found) = Said::logprobs(&[-1.0, -1.0 - 3f32.ln(), f32::NEG_INFINITY]) else {
            unreachable!()
        };
        assert!(
            (found[0] - 0.75).abs() < 1e-6 && (found[1] - 0.25).abs() < 1e-6 && found[2] == 0.0,
            "{found:?}"
        );
    }
}
