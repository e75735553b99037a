//! Speed of a language model: prefill and decode, each measured on the model without the sandbox,
//! and the time from a post to its verdict.
//!
//! A prompt is random tokens in a session of its own, so that all of it is computed; a run that
//! hits the prefix cache is rejected. Decoding starts after a prompt of one token, so that each
//! pass computes exactly one token of each session. With one session, these are the `pp` and `tg`
//! tests of llama.cpp's llama-bench.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fastrand::Rng;
use indicatif::ProgressBar;
use infer_engine::{Answer, Finish, LanguageModel, Model, Output, Params, Prompt, Request, Session};
use tokio::task::JoinSet;

use crate::args::PrefixCache;
use crate::figures::{TokenRate, Verdict};
use crate::limits::MAX_LANGUAGE_REQUEST_TIME;
use crate::path::{COMPONENT, Path, PathKind};
use crate::stats;
use crate::subject::Subject;
use crate::work::Work;

/// Prompt lengths for prefill, in tokens. A verdict after a cached policy computes about 40.
const PREFILL: [usize; 6] = [16, 32, 40, 64, 128, 512];

/// Tokens to decode.
const DECODE: usize = 32;

/// Time budget and maximum number of repeats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    pub(super) time: Duration,
    pub(super) repeats: u32,
    /// Ignores the time budget, if the user set the number of repeats.
    pub(super) all: bool,
}

impl Effort {
    /// True if there is time for another repeat, after `done` repeats since `began`.
    fn goes_on(&self, done: u32, began: Instant) -> bool {
        let took = began.elapsed();
        done < self.repeats && (done == 0 || self.all || took + took / done <= self.time)
    }
}

/// Measures prefill, and decode with each number of `sessions` at once, in alternation, so that a
/// machine that slows down affects all. Each prompt length is read once before, untimed. Sizes that
/// exceed the model's context are skipped.
///
/// # Errors
///
/// If `model` is no language model, fails, or computes a different number of tokens than requested.
pub(super) async fn measure(
    model: &Arc<Model>,
    sessions: &[u32],
    random: &mut Rng,
    effort: Effort,
    progress: &ProgressBar,
) -> anyhow::Result<(Vec<TokenRate>, Vec<TokenRate>)> {
    let language = language(model)?;
    let sizes: Vec<_> = PREFILL.into_iter().filter(|tokens| tokens + 1 < language.context()).collect();
    let length = DECODE.min(language.context().saturating_sub(2)).max(1);
    let mut reading = vec![Vec::new(); sizes.len()];
    let mut writing = vec![Vec::new(); sessions.len()];
    for tokens in &sizes {
        progress.set_message(format!("warm-up of {tokens} tokens"));
        prefill(language, random, *tokens).await?;
    }
    let began = Instant::now();
    let mut repeat = 0;
    while effort.goes_on(repeat, began) {
        for (tokens, rates) in sizes.iter().zip(&mut reading) {
            progress.set_message(format!("prefill of {tokens} tokens, repeat {}", repeat + 1));
            rates.push(*tokens as f64 / prefill(language, random, *tokens).await?.as_secs_f64());
        }
        for (&sessions, rates) in sessions.iter().zip(&mut writing) {
            progress.set_message(format!("{sessions} × decode of {length} tokens, repeat {}", repeat + 1));
            rates.push(decode(model, random, sessions, length).await?);
        }
        repeat += 1;
    }
    let prefill = sizes.iter().zip(&reading).map(|(&tokens, rates)| TokenRate::new(1, tokens, rates));
    let decode =
        sessions.iter().zip(&writing).map(|(&sessions, rates)| TokenRate::new(sessions, length, rates));
    Ok((prefill.collect(), decode.collect()))
}

fn language(model: &Model) -> anyhow::Result<&LanguageModel> {
    model.language().context("the model is no loaded language model")
}

/// Measures the time from a post to its verdict, with a cold and a warm prefix in alternation.
///
/// # Errors
///
/// If a request fails.
pub(super) async fn verdict(
    subject: &Subject,
    work: &Arc<Work>,
    effort: Effort,
    progress: &ProgressBar,
) -> anyhow::Result<Verdict> {
    let sandboxed = subject.path_kinds.iter().find(|path_kind| matches!(path_kind, PathKind::Sandbox { .. }));
    let path_kind =
        sandboxed.or(subject.path_kinds.first()).context("at least one path to the model exists")?.clone();
    let (prefix_cache, first, turn) = (PrefixCache::On, 1 << 59, Default::default());
    let path = Path { path_kind, work: work.clone(), prefix_cache, first, turn };
    let (mut times, mut tokens) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let began = Instant::now();
    let mut repeat = 0;
    while effort.goes_on(repeat, began) {
        for index in 0..2 {
            progress.set_message(format!(
                "a verdict with a {} prefix, repeat {}",
                ["cold", "warm"][index],
                repeat + 1
            ));
            // A component name that was not used before: the first request is cold, the second is
            // warm.
            let identity = Some(format!("{COMPONENT} verdict {repeat}"));
            let request = path.prepare(work.item(first + 2 * u64::from(repeat) + index as u64), identity);
            let start = Instant::now();
            let reply = path.ask(request).await.map_err(anyhow::Error::msg).context("a verdict")?;
            times[index].push(start.elapsed().as_secs_f64() * 1e3);
            let usage = reply.stages.tokens;
            tokens[index].push((usage.prompt_tokens - usage.cached_tokens) as f64);
        }
        repeat += 1;
    }
    let repeats = times[0].len();
    let [cold_ms, warm_ms] = times.map(stats::median);
    let [cold_tokens, warm_tokens] = tokens.map(stats::median);
    Ok(Verdict { cold_ms, cold_tokens, warm_ms, warm_tokens, repeats })
}

/// Time that the model takes to read `tokens` tokens that are in no cache.
async fn prefill(model: &LanguageModel, random: &mut Rng, tokens: usize) -> anyhow::Result<Duration> {
    let (answer, took) = run(model, random, tokens, 1).await?;
    let computed = answer.usage.prompt_tokens - answer.usage.cached_tokens;
    anyhow::ensure!(
        computed == tokens,
        "prefill of {tokens} tokens: {computed} were computed, so the measurement is invalid"
    );
    Ok(took)
}

/// Decode rate in tokens per second of `sessions` at once, each with answers of `length` tokens in
/// total.
async fn decode(model: &Arc<Model>, random: &mut Rng, sessions: u32, length: usize) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..sessions {
        let (model, mut random) = (model.clone(), random.fork());
        running.spawn(async move {
            let mut passes = 0;
            // A random model may end its answer at any token; further answers make up the rest.
            while passes < length {
                let (answer, _) = run(language(&model)?, &mut random, 1, length - passes).await?;
                let Output::Text { tokens, finish, .. } = answer.output else {
                    anyhow::bail!("the model answered with scores, expected text");
                };
                // The end-of-answer token is computed like any other.
                passes += tokens.len() + usize::from(finish == Finish::End);
            }
            Ok(passes)
        });
    }
    let mut passes = 0;
    while let Some(session) = running.join_next().await {
        passes += session.context("a session ended")??;
    }
    Ok(passes as f64 / began.elapsed().as_secs_f64())
}

async fn run(
    model: &LanguageModel,
    random: &mut Rng,
    prompt: usize,
    max_tokens: usize,
) -> anyhow::Result<(Answer, Duration)> {
    let tokens = (0..prompt).map(|_| random.u32(..model.vocabulary() as u32)).collect();
    let request = Request {
        prompt: Prompt::Tokens(tokens),
        choices: None,
        params: Params { max_tokens, ..Params::default() },
    };
    let mut session = Session::new(&Arc::from(format!("bench {:016x}", random.u64(..))));
    let began = Instant::now();
    let answer = model.run(&mut session, request, None, began + MAX_LANGUAGE_REQUEST_TIME).await;
    let took = began.elapsed();
    Ok((answer.with_context(|| format!("a prompt of {prompt} tokens, an answer of {max_tokens}"))?, took))
}
