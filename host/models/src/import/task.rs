//! Task of an imported model, and the output that answers it.

use anyhow::bail;
use infer_engine::text::{QUOTE_BYTES, excerpt};
use infer_engine::{Activation, DType, OnnxPort, OnnxSummary, Pooling, Task};

use super::notes::Notes;
use super::settings::Settings;

/// Outputs with one vector per text or token, in the order in which they are chosen.
const EMBEDDINGS: [&str; 4] =
    ["sentence_embedding", "last_hidden_state", "token_embeddings", "hidden_states"];

/// Endings of architectures for the three tasks.
const SEQUENCE: &str = "ForSequenceClassification";
const TOKENS: &str = "ForTokenClassification";

/// Determines the task.
///
/// # Errors
///
/// If the model is for another task.
pub(super) fn task(settings: &Settings, summary: &OnnxSummary, notes: &mut Notes) -> anyhow::Result<Task> {
    let architecture = settings.architecture().map(|found| excerpt(found, QUOTE_BYTES));
    let has_embedding = summary.outputs.iter().any(|output| EMBEDDINGS.contains(&output.name.as_str()));
    let (task, reason) = match &architecture {
        _ if settings.is_sentence_transformer() => (Task::TextEmbedding, "it pools tokens".to_owned()),
        Some(found) if found.ends_with(SEQUENCE) => (Task::TextClassification, found.to_string()),
        Some(found) if found.ends_with(TOKENS) => (Task::TokenClassification, found.to_string()),
        Some(found) if found.ends_with("Model") || has_embedding => (Task::TextEmbedding, found.to_string()),
        Some(found) => bail!(
            "config.json: `architectures` is `{found}`, expected one that ends with `{SEQUENCE}`, `{TOKENS}` or \
             `Model`, or an export of sentence-transformers"
        ),
        None if has_embedding => {
            notes.assumed("task", format!("{}: `architectures` is missing", Task::TextEmbedding));
            return Ok(Task::TextEmbedding);
        }
        None => {
            notes.assumed("task", format!("{}: `architectures` is missing", Task::TextClassification));
            return Ok(Task::TextClassification);
        }
    };
    notes.read("task", format!("{task} ({reason})"));
    Ok(task)
}

/// Index of the output that answers `task`.
///
/// # Errors
///
/// If no output has the axes of an answer.
pub(super) fn output(task: Task, summary: &OnnxSummary) -> anyhow::Result<usize> {
    let is_float = |port: &OnnxPort| {
        matches!(port.dtype, Some(DType::F32 | DType::F64 | DType::F16 | DType::BF16) | None)
    };
    let axes = |port: &OnnxPort| port.shape.as_ref().map(Vec::len);
    let named = |name: &str| summary.outputs.iter().position(|port| port.name == name);
    let with_axes =
        |count: usize| summary.outputs.iter().position(|port| is_float(port) && axes(port) == Some(count));
    let found = match task {
        Task::TextEmbedding => {
            EMBEDDINGS.iter().find_map(|name| named(name)).or_else(|| with_axes(3)).or_else(|| with_axes(2))
        }
        Task::TokenClassification => named("logits").or_else(|| with_axes(3)),
        _ => named("logits").or_else(|| with_axes(2)),
    };
    match found {
        Some(index) => Ok(index),
        None => {
            let names: Vec<_> = summary.outputs.iter().map(|port| port.name.as_str()).collect();
            bail!(
                "the ONNX file has the outputs `{}`, expected `{}` for {task}",
                names.join("`, `"),
                if task == Task::TextEmbedding { EMBEDDINGS[1] } else { "logits" }
            )
        }
    }
}

/// Determines the activation of a classifier with `labels` labels.
pub(super) fn activation(settings: &Settings, labels: usize, notes: &mut Notes) -> Activation {
    let (activation, name) = match settings.config["problem_type"].as_str() {
        Some("multi_label_classification") => (Activation::Sigmoid, "sigmoid"),
        Some("single_label_classification") if labels > 1 => (Activation::Softmax, "softmax"),
        Some("regression") => (Activation::None, "none"),
        _ if labels == 1 => {
            notes.assumed("activation", "sigmoid: the model has one label, as cross-encoders have");
            return Activation::Sigmoid;
        }
        _ => {
            notes.assumed("activation", "softmax: `problem_type` is missing");
            return Activation::Softmax;
        }
    };
    notes.read("activation", format!("{name}, from problem_type"));
    activation
}

/// Determines the pooling of an embedding, and true if it is scaled to length 1. `is_pooled` is
/// true if the file pools the tokens itself.
///
/// # Errors
///
/// If the pooling is not supported.
pub(super) fn pooling(
    settings: &Settings,
    is_pooled: bool,
    notes: &mut Notes,
) -> anyhow::Result<(Option<Pooling>, bool)> {
    if settings.has_module("Dense") && !is_pooled {
        bail!(
            "modules.json has a module `Dense` behind the pooling, which the ONNX file lacks; export the whole \
             model with `optimum-cli export onnx --task sentence-similarity`"
        );
    }
    let modes = [
        ("pooling_mode_cls_token", "cls", Some(Pooling::Cls)),
        ("pooling_mode_mean_tokens", "mean", Some(Pooling::Mean)),
        ("pooling_mode_lasttoken", "lasttoken", Some(Pooling::Last)),
        ("pooling_mode_max_tokens", "max", None),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", None),
        ("pooling_mode_weightedmean_tokens", "weightedmean", None),
    ];
    let file = &settings.pooling;
    let is_on = |(key, name, _): &&(&str, &str, Option<Pooling>)| {
        file[*key].as_bool() == Some(true) || file["pooling_mode"].as_str() == Some(*name)
    };
    let chosen: Vec<_> = modes.iter().filter(is_on).collect();
    let pooling = match &chosen[..] {
        _ if is_pooled => {
            notes.read("pooling", "in the file");
            None
        }
        [] => {
            notes.assumed("pooling", "mean: 1_Pooling/config.json is missing or names none");
            Some(Pooling::Mean)
        }
        [(_, name, Some(pooling))] => {
            notes.read("pooling", format!("{name}, from 1_Pooling/config.json"));
            Some(*pooling)
        }
        _ => {
            let names: Vec<_> = chosen.iter().map(|(key, ..)| *key).collect();
            bail!(
                "1_Pooling/config.json: `{}` is not supported, expected one of `mean`, `cls` and `lasttoken`",
                names.join("` and `")
            )
        }
    };
    let normalize = if settings.modules.is_array() {
        let normalize = settings.has_module("Normalize");
        notes.read("normalize", format!("{normalize}, from modules.json"));
        normalize
    } else {
        notes.assumed("normalize", "true: modules.json is missing");
        true
    };
    Ok((pooling, normalize))
}
