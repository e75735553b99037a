//! Shared by `infer train` and `infer calibrate`: scores of texts by a moderator, progress, files.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use infer_control::registry::LoadedComponent;
use infer_models::disk;
use infer_sandbox::types::Part;
use infer_train::{Example, Scores};

/// Texts that are judged at the same time.
const CONCURRENCY: usize = 8;

/// Scores of examples by category.
pub(super) struct Judged {
    /// The scores of each example in order; `None` if it was not judged.
    pub(super) scores: Vec<Option<Scores>>,
    /// The error that ended the work.
    error: Option<anyhow::Error>,
}

impl Judged {
    /// The scores of all examples.
    ///
    /// # Errors
    ///
    /// The first error, if an example was not judged.
    pub(super) fn complete(self) -> anyhow::Result<Vec<Scores>> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.scores.into_iter().flatten().collect()),
        }
    }
}

/// Judges the text of each example. Each has `deadline`. No further text is judged after an error.
pub(super) async fn judge(
    loaded: &Arc<LoadedComponent>,
    examples: &[&Example],
    deadline: Duration,
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
                    match one(&loaded, text, deadline).await {
                        Ok(scores) => done.push((index, scores)),
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
    let mut judged = Judged { scores: vec![None; examples.len()], error: None };
    for worker in workers {
        match worker.await.context("a task ended") {
            Ok((done, error)) => {
                judged.error = judged.error.or(error);
                done.into_iter().for_each(|(index, scores)| judged.scores[index] = Some(scores));
            }
            Err(error) => judged.error = Some(error),
        }
    }
    if judged.error.is_none() && judged.scores.contains(&None) {
        judged.error = Some(anyhow!("a text was not judged"));
    }
    judged
}

async fn one(loaded: &LoadedComponent, text: &str, deadline: Duration) -> anyhow::Result<Scores> {
    let request = infer_sandbox::Request::new(Arc::from("command-line"), Instant::now() + deadline);
    let judged = loaded.moderate(&request, &[Part::Text(text.to_owned())]).await;
    Ok(judged.result?.scores.into_iter().map(|one| (one.category, f64::from(one.score))).collect())
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
