//! Arguments of the commands that learn from labelled texts.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use infer_train::control::{Bound, Rate};

use super::output::Format;

/// `infer train`
#[derive(Debug, Args)]
#[command(after_long_help = TRAIN_EXAMPLES)]
pub(crate) struct Train {
    /// Encoder: a model of infer.toml, a built-in one such as `minilm`, or a folder with a
    /// card.toml
    #[arg(long, value_name = "NAME|DIR")]
    pub(crate) encoder: String,
    /// Labelled texts in JSON Lines
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Category to judge, which is also the name of the label
    #[arg(long, value_name = "NAME", value_parser = category)]
    pub(crate) category: String,
    /// File to write; `.toml` is added to a name without an extension
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Weights of positive and negative examples
    #[arg(long, value_name = "WEIGHTS", default_value = "balanced")]
    pub(crate) class_weights: Weighting,
    /// Number of mistakes to print
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(..=1_000))]
    pub(crate) mistakes: u32,
    /// Language model that labels the lines without a label first: a model of infer.toml, a
    /// built-in one, or a GGUF file
    #[arg(long, value_name = "NAME")]
    pub(crate) from_language_model: Option<String>,
    /// Policy in plain words for the language model [default: the settings `policy.*` of the
    /// component that has it as `language`]
    #[arg(long, value_name = "FILE", requires = "from_language_model")]
    pub(crate) policy: Option<PathBuf>,
    /// File for the labels of the language model, which are not asked for again [default: the name
    /// of the data with `.labelled.jsonl`]
    #[arg(long, value_name = "FILE", requires = "from_language_model")]
    pub(crate) labelled: Option<PathBuf>,
    /// Format of the report
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: Format,
}

/// Weights of positive and negative examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Weighting {
    /// Both kinds weigh the same in total
    Balanced,
    /// All examples weigh the same
    None,
}

/// Explanation and examples of `infer train --help`.
const TRAIN_EXAMPLES: &str = "\
Each line of the data is an object such as
  {\"text\": \"win a prize now\", \"label\": true}
`label` is true or 1, false or 0, or a name, of which only that of the category is positive; or
`labels` has one for each category. Optional members: `id` or `group` (examples of one group stay on
one side of a split), and `split` (examples of `dev` and `test` are only reported). 16 examples are
enough to start.

All figures are of examples that the head was not fitted to. The same data give the same file.

Examples:
  infer pull minilm
  infer train --encoder minilm --data posts.jsonl --category spam -o heads/spam";

/// `infer calibrate`
#[derive(Debug, Args)]
#[command(after_long_help = CALIBRATE_EXAMPLES)]
pub(crate) struct Calibrate {
    /// Component [default: the only moderator of the configuration]
    #[arg(long, value_name = "NAME")]
    pub(crate) component: Option<String>,
    /// Labelled texts in JSON Lines, none of which a model was trained on
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Category of lines with `label` instead of `labels`
    #[arg(long, value_name = "NAME", value_parser = category)]
    pub(crate) category: Option<String>,
    /// Maximum share of the negatives that are flagged; the lowest threshold is chosen
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with = "max_fnr",
        required_unless_present_any = ["max_fnr", "language_budget"])]
    pub(crate) max_fpr: Option<f64>,
    /// Maximum share of the positives that are not flagged; the highest threshold is chosen
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) max_fnr: Option<f64>,
    /// Maximum share of the texts that reach the language model, triggers included: fits
    /// `cascade.low`, `cascade.high`, `cascade.weight` and the calibration of its answers
    #[arg(long, value_name = "SHARE", value_parser = budget, conflicts_with_all = ["max_fpr", "max_fnr"])]
    pub(crate) language_budget: Option<f64>,
    /// Probability with which each threshold respects the maximum
    #[arg(long, value_name = "SHARE", value_parser = share, default_value_t = 0.95)]
    pub(crate) confidence: f64,
    /// File to write
    #[arg(short, long, value_name = "FILE", default_value = "thresholds.toml")]
    pub(crate) output: PathBuf,
    /// Format of the report
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: Format,
}

impl Calibrate {
    /// The bound to respect, if thresholds are chosen.
    pub(crate) fn bound(&self) -> Option<Bound> {
        let (rate, max) = match (self.max_fpr, self.max_fnr) {
            (Some(max), _) => (Rate::FalsePositive, max),
            (None, max) => (Rate::FalseNegative, max?),
        };
        Some(Bound { rate, max, confidence: self.confidence })
    }
}

/// Explanation and examples of `infer calibrate --help`.
const CALIBRATE_EXAMPLES: &str = "\
Each line of the data is an object such as
  {\"text\": \"…\", \"labels\": {\"harassment\": true, \"hate\": false}, \"language\": \"en\"}
or has `label` for the category of `--category`. `language` is optional.

Candidate thresholds that are fixed in advance are tested one after the other, the safest first,
until the upper confidence bound (Clopper-Pearson) of the error rate exceeds the maximum. So the
guarantee holds for each category although its threshold is chosen, if later texts are like those of
the data. For a maximum of 0.01 with confidence 0.95 a category needs at least 299 negatives.

With `--language-budget`, every text is judged by the classifiers and by the language model of the
component, and the band and the weight are chosen with which the scores of both order the texts best
(mean AUROC of the categories). Give examples in the proportions of the content to be judged, or the
share differs.

Examples:
  infer calibrate --component moderate --data labelled.jsonl --max-fpr 0.01
  infer calibrate --config examples/cascade.toml --data labelled.jsonl --language-budget 0.2";

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| format!("expected a number between 0 and 1, found `{text}`"))
}

fn budget(text: &str) -> Result<f64, String> {
    let budget = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    budget.ok_or_else(|| format!("expected a number above 0, at most 1, found `{text}`"))
}

/// Checks the name of a category.
pub(super) fn category(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-/".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("expected 1 to 64 lower-case letters, digits, `-` and `/`; found `{text}`"))
}
