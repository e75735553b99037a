//! Shared by `infer train` and `infer calibrate`: scores of texts by a moderator, progress, files.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use infer_control::registry::LoadedComponent;
use infer_models::disk;
use infer_sandbox::types::{Part, Tier, Verdict};
use infer_train::{Example, Scores};

/// Texts that are judged at the same time.
const CONCURRENCY: usize = 8;

/// Judgements of examples.
pub(super) struct Judged {
    /// The judgement of each example in order; `None` if it was not judged.
    verdicts: Vec<Option<Judgement>>,
    /// The error that ended the work.
    error: Option<anyhow::Error>,
}

impl Judged {
    /// The scores of each example in order; `None` if it was not judged.
    pub(super) fn scores(&self) -> impl Iterator<Item = Option<&Scores>> {
        self.verdicts.iter().map(|judgement| judgement.as_ref().map(|judgement| &judgement.scores))
    }

    /// The judgements of all examples.
    ///
    /// # Errors
    ///
    /// The first error, if an example was not judged.
    pub(super) fn complete(self) -> anyhow::Result<Vec<Judgement>> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.verdicts.into_iter().flatten().collect()),
        }
    }
}

/// Judgement of an example.
#[derive(Clone, Default)]
pub(super) struct Judgement {
    /// Scores by category.
    pub(super) scores: Scores,
    /// Categories that a language model decided.
    pub(super) of_language: BTreeSet<String>,
    /// Events that the guest counted.
    pub(super) events: BTreeSet<String>,
}

/// Settings of a request beside the component's.
pub(super) type RequestSettings = &'static [(&'static str, &'static str)];

/// Judges the text of each example with further `settings`. Each has `deadline`. No further text is
/// judged after an error.
pub(super) async fn judge(
    loaded: &Arc<LoadedComponent>,
    examples: &[&Example],
    deadline: Duration,
    settings: RequestSettings,
    bar: &ProgressBar,
) -> Judged {
    let next = Arc::new(AtomicUsize::new(0));
    let texts: Arc<[(usize, String)]> =
        examples.iter().map(|example| (example.line, example.text.clone())).collect();
    let workers: Vec<_> = (0..CONCURRENCY)
        .map(|_| {
            let (loaded, next, texts, bar) = (loaded.clone(), next.clone(), texts.clone(), bar.clone());
            tokio::spawn(async move {
                let mut done = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((line, text)) = texts.get(index) else { return (done, None) };
                    match one(&loaded, text, deadline, settings).await {
                        Ok(judgement) => done.push((index, judgement)),
                        Err(error) => {
                            next.store(texts.len(), Ordering::Relaxed);
                            return (
                                done,
                                Some(error.context(format!("cannot judge the text of line {line}"))),
                            );
                        }
                    }
                    bar.inc(1);
                }
            })
        })
        .collect();
    let mut judged = Judged { verdicts: vec![None; examples.len()], error: None };
    for worker in workers {
        match worker.await.context("a task ended") {
            Ok((done, error)) => {
                judged.error = judged.error.or(error);
                done.into_iter().for_each(|(index, judgement)| judged.verdicts[index] = Some(judgement));
            }
            Err(error) => judged.error = Some(error),
        }
    }
    if judged.error.is_none() && judged.verdicts.iter().any(Option::is_none) {
        judged.error = Some(anyhow!("a text was not judged"));
    }
    judged
}

async fn one(
    loaded: &LoadedComponent,
    text: &str,
    deadline: Duration,
    settings: RequestSettings,
) -> anyhow::Result<Judgement> {
    let request = infer_sandbox::Request::new(Arc::from("command-line"), Instant::now() + deadline);
    let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
    let request = request.with_settings(settings.iter().map(owned).collect());
    let judged = loaded.moderate(&request, &[Part::Text(text.to_owned())]).await;
    let Verdict { scores, .. } = judged.result?;
    let of_language = scores.iter().filter(|one| one.tier == Tier::Language);
    Ok(Judgement {
        of_language: of_language.map(|one| one.category.clone()).collect(),
        scores: scores.into_iter().map(|one| (one.category, f64::from(one.score))).collect(),
        events: judged.annotations.events,
    })
}

/// A bar on standard error for `count` items.
pub(super) fn progress(count: usize, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(count as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}, {eta} left") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Writes a file, and the folder for it.
pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    }
    disk::replace(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}
