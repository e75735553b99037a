//! Text of the card of an imported model.

use std::fmt::Write as _;

use infer_engine::{Activation, Combine, Pooling, Role, Task};

use super::categories::{self, Proposal};
use super::plan::{Plan, Size, Tensor};

/// A file of the weights folder.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) path: String,
    pub(super) role: Role,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// Values of a card that do not come from a file.
#[derive(Debug)]
pub(super) struct Heading<'a> {
    pub(super) name: &'a str,
    pub(super) description: String,
    pub(super) license: &'a str,
    pub(super) source: &'a str,
}

/// Inputs and outputs of the self-test.
#[derive(Clone, Debug)]
pub(super) struct TestDraft {
    /// Name and text of the input.
    pub(super) input: (&'static str, String),
    /// Name of the output.
    pub(super) output: &'static str,
    /// Expected values, rounded, from the first.
    pub(super) values: Vec<f64>,
    /// True if the output has more values.
    pub(super) is_partial: bool,
    pub(super) tolerance: f64,
}

/// Name of the file of labels.
pub(super) const LABELS: &str = "labels.txt";

/// Formats a card.
pub(super) fn text(
    heading: &Heading<'_>,
    plan: &Plan,
    files: &[Written],
    test: Option<&TestDraft>,
) -> String {
    // Writing to a string does not fail.
    let mut out = String::new();
    for (key, value) in [
        ("name", heading.name),
        ("task", &plan.task.to_string()),
        ("format", "onnx"),
        ("description", &heading.description),
        ("license", heading.license),
        ("source", heading.source),
    ] {
        let _ = writeln!(out, "{key} = {}", quoted(value));
    }
    if !plan.labels.is_empty() {
        let _ = writeln!(out, "labels = {}", quoted(LABELS));
    }
    match plan.unbatched {
        None => out.push_str(
            "# Rows of N are independent: those of several requests are computed together.\nbatch_axis = 0\n",
        ),
        Some(reason) => {
            let _ = writeln!(out, "# No `batch_axis`: {reason}.");
        }
    }
    for file in files {
        let Written { path, role, bytes, sha256 } = file;
        let (path, role) = (quoted(path), quoted(&role.to_string()));
        let _ = writeln!(
            out,
            "\n[[files]]\npath = {path}\nrole = {role}\nbytes = {bytes}\nsha256 = \"{sha256}\""
        );
    }
    section(&mut out, plan);
    for (kind, tensors) in [("inputs", &plan.inputs), ("outputs", &plan.outputs)] {
        for tensor in tensors {
            let max = (kind == "inputs").then_some(plan.text.max_tokens);
            let (name, shape) = (quoted(&tensor.name), shape(tensor, max));
            let _ =
                writeln!(out, "\n[[{kind}]]\nname = {name}\ndtype = \"{}\"\nshape = {shape}", tensor.dtype);
        }
    }
    if !plan.categories.is_empty() {
        out.push_str("\n# Proposed from the names of the labels. Confirm each, fit its threshold, and remove `proposed`.\n");
    }
    for Proposal { category, rule, labels } in &plan.categories {
        let list = labels.iter().map(|label| quoted(label)).collect::<Vec<_>>().join(", ");
        let list = if *rule == "not" { list } else { format!("[{list}]") };
        let threshold = categories::THRESHOLD;
        let _ = writeln!(
            out,
            "[categories.{}]\n{rule} = {list}\nthreshold = {threshold:?}\ndata = \"none: proposed from the names of the \
             labels\"\nproposed = true\n",
            quoted(category)
        );
    }
    if let Some(test) = test {
        self_test(&mut out, test);
    }
    out
}

/// Writes the section `[text]`.
fn section(out: &mut String, plan: &Plan) {
    let text = &plan.text;
    let _ = writeln!(out, "\n[text]\nmax_tokens = {}", text.max_tokens);
    if let Some(stride) = text.stride {
        let _ = writeln!(out, "stride = {stride}\nmax_windows = {}", text.max_windows);
    }
    if plan.task == Task::TextClassification {
        let combine = match text.combine {
            Combine::Max => "max",
            Combine::Mean => "mean",
        };
        let activation = match text.activation {
            Activation::None => "none",
            Activation::Sigmoid => "sigmoid",
            Activation::Softmax => "softmax",
        };
        let _ = writeln!(out, "combine = \"{combine}\"\nactivation = \"{activation}\"");
    }
    if let Some(pooling) = text.pooling {
        let pooling = match pooling {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
            Pooling::Last => "last",
        };
        let _ = writeln!(out, "pooling = \"{pooling}\"");
    }
    if plan.task == Task::TextEmbedding {
        let _ = writeln!(out, "normalize = {}", text.normalize);
        for (key, prefix) in
            [("query_prefix", &text.query_prefix), ("document_prefix", &text.document_prefix)]
        {
            if !prefix.is_empty() {
                let _ = writeln!(out, "{key} = {}", quoted(prefix));
            }
        }
    }
}

/// Shape of a tensor; `max_tokens` bounds the tokens of an input.
fn shape(tensor: &Tensor, max_tokens: Option<usize>) -> String {
    let axis = |size: &Size| match (size, max_tokens) {
        (Size::Fixed(size), _) => size.to_string(),
        (Size::Rows, _) => "\"N\"".to_owned(),
        (Size::Tokens, Some(max)) => format!("{{ name = \"T\", max = {max} }}"),
        (Size::Tokens, None) => "\"T\"".to_owned(),
    };
    format!("[{}]", tensor.shape.iter().map(axis).collect::<Vec<_>>().join(", "))
}

fn self_test(out: &mut String, test: &TestDraft) {
    let numbered = test.values.iter().enumerate();
    let (name, text) = &test.input;
    let values = if test.is_partial {
        let places = numbered.map(|(index, value)| format!("\"{index}\" = {value:?}"));
        format!("{{ {} }}", places.collect::<Vec<_>>().join(", "))
    } else {
        let values = test.values.iter().map(|value| format!("{value:?}"));
        format!("[{}]", values.collect::<Vec<_>>().join(", "))
    };
    let _ = writeln!(
        out,
        "# The answer of the first run, by `infer import`: it shows later changes, not that the model is right.\n\
         [[tests]]\ninputs = {{ {name} = {} }}\noutputs = {{ {} = {values} }}\ntolerance = {}",
        quoted(text),
        test.output,
        test.tolerance
    );
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
