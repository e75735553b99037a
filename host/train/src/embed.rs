//! Embeddings of texts by an encoder.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use indicatif::ProgressBar;
use infer_engine::{Model, ModelOptions, Task, Tensor};

use crate::features::Features;
use crate::limits::{MAX_EMBEDDED_VALUES, MAX_EMBEDDING_TIME};

/// Options of an encoder whose embedding of a text depends on nothing but the text: each text is
/// computed alone, on one thread.
pub fn options() -> ModelOptions {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ModelOptions { sessions: Some(cores), threads: Some(1), max_batch: Some(1), ..ModelOptions::default() }
}

/// Computes the embedding of each text, in order, on all cores. `model` should have been loaded
/// with [`options`]. Advances `progress` by one for each text.
///
/// # Errors
///
/// If `model` is no encoder, if it cannot embed a text, or if the embeddings exceed their limit.
pub async fn embed(
    model: &Arc<Model>,
    texts: &[Arc<str>],
    progress: &ProgressBar,
) -> anyhow::Result<Features> {
    let name = model.name();
    ensure!(
        model.card().task == Task::TextEmbedding,
        "model `{name}` is for {}, expected text-embedding; `infer models` lists the built-in ones",
        model.card().task
    );
    let texts: Arc<[Arc<str>]> = texts.into();
    let next = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..model.capacity().sessions)
        .map(|_| {
            let (model, texts, next, progress) =
                (model.clone(), texts.clone(), next.clone(), progress.clone());
            tokio::spawn(async move {
                let mut done = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(text) = texts.get(index) else { return anyhow::Ok(done) };
                    let embedding = one(&model, text).await;
                    done.push((index, embedding.with_context(|| format!("text {}", index + 1))?));
                    let size = done[0].1.len().max(1);
                    ensure!(
                        texts.len() <= MAX_EMBEDDED_VALUES / size,
                        "{} embeddings of {size} numbers exceed {MAX_EMBEDDED_VALUES} values; take a sample of the data",
                        texts.len()
                    );
                    progress.inc(1);
                }
            })
        })
        .collect();
    let mut embeddings = vec![Vec::new(); texts.len()];
    for worker in workers {
        for (index, embedding) in worker.await.context("a task ended")?? {
            embeddings[index] = embedding;
        }
    }
    let size = embeddings.iter().map(Vec::len).min().unwrap_or_default();
    for embedding in &mut embeddings {
        // A text of several windows or readings has an embedding of each; the first counts.
        ensure!(
            size > 0 && embedding.len().is_multiple_of(size),
            "model `{name}` returned embeddings of {size} and of {} numbers",
            embedding.len()
        );
        embedding.truncate(size);
    }
    Features::new(embeddings.concat(), size).with_context(|| format!("model `{name}`"))
}

async fn one(model: &Model, text: &str) -> anyhow::Result<Vec<f32>> {
    let tensor = Tensor::from_bytes(text.as_bytes().to_vec());
    let deadline = Instant::now() + MAX_EMBEDDING_TIME;
    let reply = model.run(vec![("text".to_owned(), tensor)], deadline).await?;
    let output = reply.outputs.into_iter().find(|(name, _)| name == "embeddings");
    let (_, output) = output.context("the model returned no `embeddings`")?;
    output.to_vec().context("`embeddings`")
}
