//! Helpers that find backends, load models and run tensors.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use infer_engine::{
    LoadError, Model, ModelOptions, Onnxruntime, Reply, RunError, Runtime, RuntimeOptions, Tensor, Weights,
};

use crate::skip::skip;

/// Small models, written by `make_models.py`.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Models that ship.
pub(crate) fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights").join(name)
}

/// rten, and ONNX Runtime if it is available.
pub(crate) fn runtimes() -> Vec<Runtime> {
    std::iter::once(rten()).chain(onnxruntime()).collect()
}

pub(crate) fn rten() -> Runtime {
    Runtime::new(&RuntimeOptions { onnxruntime: Onnxruntime::Off }).unwrap()
}

/// ONNX Runtime, from INFER_ONNXRUNTIME or the cache folder. Without it a test is skipped, except
/// in CI.
pub(crate) fn onnxruntime() -> Option<Runtime> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let search = match variable("INFER_ONNXRUNTIME") {
        Some(file) => vec![file],
        None => variable("INFER_CACHE")
            .or_else(|| variable("HOME").map(|home| home.join(".cache/infer")))
            .map(|cache| cache.join("onnxruntime"))
            .into_iter()
            .collect(),
    };
    let runtime = Runtime::new(&RuntimeOptions { onnxruntime: Onnxruntime::Auto { search } }).unwrap();
    if runtime.backend() == "onnxruntime" {
        return Some(runtime);
    }
    let reason = runtime.describe();
    assert!(std::env::var_os("CI").is_none(), "CI tests both backends: {reason}");
    skip(&format!("on ONNX Runtime, set INFER_ONNXRUNTIME to test it: {reason}"));
    None
}

/// Loads a model with one session, so that queued jobs form batches.
pub(crate) fn load(runtime: &Runtime, folder: &Path) -> Result<Model, LoadError> {
    let options = ModelOptions { sessions: Some(1), ..ModelOptions::default() };
    Model::load(runtime, "m", Weights::read(folder, None).unwrap(), &options)
}

pub(crate) async fn run(model: &Model, inputs: Vec<(&str, Tensor)>) -> Result<Reply, RunError> {
    let inputs = inputs.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
    model.run(inputs, Instant::now() + Duration::from_secs(60)).await
}
