//! From the files of an export to the values of a card.

use anyhow::bail;
use infer_engine::text::{QUOTE_BYTES, excerpt, has_controls};
use infer_engine::{
    Activation, Axis, Combine, DType, Emoji, Evasion, OnnxPort, OnnxSummary, Precision, Task, TextSpec,
};

use super::categories::{self, Proposal};
use super::notes::Notes;
use super::settings::Settings;
use super::{labels, length, task};

/// Inputs that distinguish tokens from padding.
const MASKS: [&str; 2] = ["attention_mask", "mask"];

/// Values of a card that come from the files of an export.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) task: Task,
    pub(super) labels: Vec<String>,
    pub(super) text: TextSpec,
    pub(super) inputs: Vec<Tensor>,
    /// The output that answers first.
    pub(super) outputs: Vec<Tensor>,
    /// Reason why rows are not computed together; `None` if they are.
    pub(super) unbatched: Option<&'static str>,
    pub(super) categories: Vec<Proposal>,
    pub(super) precision: Precision,
}

/// A tensor of the card.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) dtype: DType,
    /// Axes, outermost first.
    pub(super) shape: Vec<Size>,
}

/// Size of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Fixed(usize),
    Rows,
    Tokens,
}

/// Choices of the command line.
#[derive(Debug, Default)]
pub(super) struct Choices<'a> {
    /// Names of the labels, instead of those in config.json.
    pub(super) labels: Option<&'a [String]>,
}

/// Plans the card of a model.
///
/// # Errors
///
/// If the model is for another task, or its files disagree.
pub(super) fn plan(
    settings: &Settings,
    summary: &OnnxSummary,
    choices: &Choices<'_>,
    notes: &mut Notes,
) -> anyhow::Result<Plan> {
    let task = task::task(settings, summary, notes)?;
    let is_embedding = task == Task::TextEmbedding;
    let answer = task::output(task, summary)?;
    let labels =
        if is_embedding { Vec::new() } else { named(settings, &summary.outputs[answer], choices, notes)? };
    let width = width(&summary.inputs);
    let max_tokens = length::max_tokens(settings, width, notes);
    let stride = length::stride(max_tokens).filter(|_| !is_embedding);
    if let Some(stride) = stride {
        notes.assumed("stride", format!("{stride}: a quarter; longer texts are read in windows"));
    }
    let activation = match task {
        Task::TextClassification => task::activation(settings, labels.len(), notes),
        _ => Activation::None,
    };
    let mut text = TextSpec {
        languages: Vec::new(),
        max_tokens,
        stride,
        max_windows: TextSpec::DEFAULT_WINDOWS,
        combine: Combine::Max,
        activation,
        drop_unknown: false,
        canonical: false,
        emoji: Emoji::Keep,
        evasion: Evasion::Undo,
        pooling: None,
        normalize: false,
        query_prefix: String::new(),
        document_prefix: String::new(),
    };
    if is_embedding {
        let is_pooled = summary.outputs[answer].shape.as_ref().is_some_and(|shape| shape.len() == 2);
        (text.pooling, text.normalize) = task::pooling(settings, is_pooled, notes)?;
        prefixes(settings, &mut text, notes)?;
    }
    let spans = task == Task::TokenClassification;
    let categories = categories::propose(&labels, activation == Activation::Softmax || spans, spans);
    for Proposal { category, rule, labels } in &categories {
        notes.assumed("category", format!("{category}: {rule} of {}", labels.join(", ")));
    }
    let last = if is_embedding && settings.has_module("Dense") {
        None
    } else if is_embedding {
        ["hidden_size", "dim", "d_model"]
            .iter()
            .find_map(|key| Some(settings.config[*key].as_u64()? as usize))
    } else {
        Some(labels.len())
    };
    let inputs =
        summary.inputs.iter().map(|port| tensor("input", port, None)).collect::<Result<Vec<_>, _>>()?;
    // A backend may infer a size that the file leaves open.
    let mut outputs = Vec::with_capacity(summary.outputs.len());
    for (index, port) in summary.outputs.iter().enumerate() {
        outputs.push(tensor("output", port, last.filter(|_| index == answer || is_embedding))?);
    }
    outputs.swap(0, answer);
    let unbatched = unbatched(summary, &inputs, &outputs);
    match unbatched {
        None => notes.read("batch_axis", "0: rows are independent"),
        Some(reason) => notes.read("batch_axis", format!("none: {reason}")),
    }
    let precision = summary.precision();
    Ok(Plan { task, labels, text, inputs, outputs, unbatched, categories, precision })
}

/// Names of the labels, and a note about their origin.
fn named(
    settings: &Settings,
    output: &OnnxPort,
    choices: &Choices<'_>,
    notes: &mut Notes,
) -> anyhow::Result<Vec<String>> {
    let scores = output.shape.as_ref().and_then(|shape| match shape.last() {
        Some(Axis::Fixed(scores)) => Some(*scores),
        _ => None,
    });
    let found = match choices.labels {
        Some(chosen) => {
            labels::check(chosen, chosen.len())?;
            Some(chosen.to_vec())
        }
        None => labels::read(&settings.config)?,
    };
    let labels = match found {
        Some(labels) => {
            let list = excerpt(&labels.join(", "), QUOTE_BYTES).into_owned();
            let unnamed = labels.iter().filter(|label| labels::is_unnamed(label)).count();
            match unnamed {
                0 if choices.labels.is_some() => notes.read("labels", format!("{list}, from `--labels`")),
                0 => notes.read("labels", list),
                _ => notes.unknown(
                    "labels",
                    format!("{list}: their names say nothing; name them with `--labels A,B,…`"),
                ),
            }
            labels
        }
        None => {
            // The library that writes config.json leaves two default labels out.
            let count = scores.or_else(|| settings.config["num_labels"].as_u64().map(|count| count as usize));
            let labels: Vec<_> = (0..count.unwrap_or(2)).map(|index| format!("LABEL_{index}")).collect();
            labels::check(&labels, labels.len())?;
            notes.unknown(
                "labels",
                format!(
                    "{}: config.json has no `id2label`; name them with `--labels A,B,…`",
                    labels.join(", ")
                ),
            );
            labels
        }
    };
    if let Some(scores) = scores.filter(|scores| *scores != labels.len()) {
        let (given, remedy) = match choices.labels {
            Some(_) => ("`--labels` names", "name all of them"),
            None => ("config.json has", "export the model again"),
        };
        bail!(
            "output `{}` of the ONNX file has {scores} scores, but {given} {} labels; {remedy}",
            excerpt(&output.name, QUOTE_BYTES),
            labels.len()
        );
    }
    Ok(labels)
}

/// Number of tokens of a row, if the file fixes it.
fn width(inputs: &[OnnxPort]) -> Option<usize> {
    let axes = inputs.iter().filter_map(|input| input.shape.as_ref()?.get(1));
    axes.filter_map(|axis| if let Axis::Fixed(size) = axis { Some(*size) } else { None }).min()
}

/// Reads the prefixes of queries and documents.
fn prefixes(settings: &Settings, text: &mut TextSpec, notes: &mut Notes) -> anyhow::Result<()> {
    let prompts = &settings.prompts["prompts"];
    let prompt = |names: &[&str]| {
        let found = names.iter().find_map(|name| prompts[*name].as_str()).unwrap_or_default();
        if found.len() > QUOTE_BYTES || has_controls(&found.replace('\n', "")) {
            bail!(
                "config_sentence_transformers.json: prompt `{}` is longer than {QUOTE_BYTES} bytes or has control \
                 characters",
                excerpt(found, 64)
            );
        }
        Ok(found.to_owned())
    };
    text.query_prefix = prompt(&["query", "search_query"])?;
    text.document_prefix = prompt(&["document", "passage", "corpus", "search_document"])?;
    for (subject, prefix) in
        [("query_prefix", &text.query_prefix), ("document_prefix", &text.document_prefix)]
    {
        if prefix.is_empty() {
            notes.assumed(subject, "none: config_sentence_transformers.json has none");
        } else {
            notes.read(subject, format!("`{}`", excerpt(prefix, QUOTE_BYTES)));
        }
    }
    Ok(())
}

/// Converts a tensor of the file. `last` is the size of its last axis, if known.
fn tensor(kind: &str, port: &OnnxPort, last: Option<usize>) -> anyhow::Result<Tensor> {
    let name = &port.name;
    let shown = excerpt(name, QUOTE_BYTES);
    let Some(dtype) = port.dtype else {
        bail!(
            "{kind} `{shown}` of the ONNX file has a type that is not supported, expected f32, f16, i64 or i32"
        );
    };
    let Some(axes) = &port.shape else {
        bail!("{kind} `{shown}` of the ONNX file declares no shape; export the model again");
    };
    if has_controls(name) || name.is_empty() {
        bail!("{kind} `{shown}` of the ONNX file has a name with control characters, or none");
    }
    let size = |(index, axis): (usize, &Axis)| match axis {
        Axis::Fixed(size) => Size::Fixed(*size),
        _ if index == 0 => Size::Rows,
        _ if index + 1 == axes.len() => last.map_or(Size::Tokens, Size::Fixed),
        _ => Size::Tokens,
    };
    Ok(Tensor { name: name.clone(), dtype, shape: axes.iter().enumerate().map(size).collect() })
}

/// Reason why rows of several requests are not computed together; `None` if they are.
fn unbatched(summary: &OnnxSummary, inputs: &[Tensor], outputs: &[Tensor]) -> Option<&'static str> {
    let is_masked = inputs.iter().any(|input| MASKS.contains(&input.name.as_str()));
    let is_fixed = inputs.iter().all(|input| matches!(input.shape.get(1), Some(Size::Fixed(_))));
    let varies = |tensor: &Tensor| tensor.shape.first() == Some(&Size::Rows);
    if summary.quantises_batches() {
        Some("the file computes the scale of int8 values from the whole batch")
    } else if !is_masked && !is_fixed {
        Some("the file has no attention mask, so padding would change the scores")
    } else if !inputs.iter().chain(outputs).all(varies) {
        Some("the file fixes the number of rows")
    } else {
        None
    }
}
