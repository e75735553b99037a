//! The first run of an imported model, whose answer becomes its self-test.

use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};
use infer_engine::{Model, ModelOptions, Precision, RunError, Runtime, Task, Tensor, Weights};

use super::card::TestDraft;
use super::plan::Plan;
use crate::limits::MAX_FIRST_RUN_TIME;

/// Text of the first run.
const SENTENCE: &str = "The quick brown fox jumps over the lazy dog.";

/// Pair of texts of the first run of a model with one score, such as a cross-encoder.
const PAIR: &str = "[[\"Which animal is lazy?\", \"The quick brown fox jumps over the lazy dog.\"]]";

/// Number of values of an embedding that the self-test compares.
const COMPARED_VALUES: usize = 8;

/// Runs the model in `weights` once, and returns the test that expects its answer.
///
/// # Errors
///
/// If the model cannot be loaded or run, or returns no numbers.
pub(super) fn run(runtime: &Runtime, weights: Weights, plan: &Plan) -> anyhow::Result<TestDraft> {
    let model = load(runtime, weights)?;
    let input = match plan.task {
        Task::TextClassification if plan.labels.len() == 1 => ("texts", PAIR.to_owned()),
        _ => ("text", SENTENCE.to_owned()),
    };
    let output = if plan.task == Task::TextEmbedding { "embeddings" } else { "scores" };
    let inputs = vec![(input.0.to_owned(), Tensor::from_bytes(input.1.clone().into()))];
    let reply = block_on(model.run(inputs, Instant::now() + MAX_FIRST_RUN_TIME))?;
    let reply = match reply {
        // rten cannot be interrupted, and dropping the model would wait for it.
        Err(RunError::Deadline { .. }) => {
            std::mem::forget(model);
            bail!(
                "the first run took more than {} s; the ONNX file may never end",
                MAX_FIRST_RUN_TIME.as_secs()
            );
        }
        reply => reply.context("the first run failed")?,
    };
    let found = reply.outputs.iter().find(|(name, _)| name == output).map(|(_, tensor)| tensor);
    let values = found.with_context(|| format!("the first run returned no `{output}`"))?.to_vec::<f32>()?;
    if let Some(place) = values.iter().position(|value| !value.is_finite()) {
        bail!(
            "the first run returned {} as value {place} of `{output}`, expected a finite number; the ONNX file is \
             damaged, or needs another precision: choose another with `--file`, or export the model again",
            values[place]
        );
    }
    let (tolerance, decimals) = match plan.precision {
        Precision::Full => (1e-3, 3),
        Precision::Half => (5e-3, 3),
        Precision::Quantized => (0.02, 2),
    };
    // Rounded, so that machines whose last digits differ write the same card.
    let scale = 10_f64.powi(decimals);
    let kept = if output == "embeddings" { COMPARED_VALUES } else { values.len() };
    let rounded = values.iter().take(kept).map(|value| (f64::from(*value) * scale).round() / scale + 0.0);
    Ok(TestDraft { input, output, values: rounded.collect(), is_partial: values.len() > kept, tolerance })
}

/// Loads the model in `weights` and runs its self-tests.
///
/// # Errors
///
/// If it cannot be loaded, or a test fails.
pub(super) fn self_test(runtime: &Runtime, weights: Weights) -> anyhow::Result<()> {
    let model = load(runtime, weights)?;
    let passed = block_on(model.self_test(Instant::now() + MAX_FIRST_RUN_TIME))?;
    passed.context("the self-test of the imported model failed")?;
    Ok(())
}

fn load(runtime: &Runtime, weights: Weights) -> anyhow::Result<Model> {
    let options = ModelOptions { sessions: Some(1), ..ModelOptions::default() };
    let name = weights.card().name.clone();
    Ok(Model::load(runtime, &name, weights, &options)?)
}

/// Runs `future` on a thread of its own, because the caller may be part of an asynchronous runtime.
fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            Ok(runtime.context("cannot start the runtime of the first run")?.block_on(future))
        });
        thread.join().map_err(|_| anyhow!("the first run panicked"))?
    })
}
