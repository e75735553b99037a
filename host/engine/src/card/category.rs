//! Categories: what the labels of a model mean for moderation.

use serde::Deserialize;

/// A category of moderation, computed from a model's labels: a section `[categories.NAME]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "CategoryToml")]
pub struct Category {
    /// Computation of its score from the scores of labels.
    pub rule: Rule,
    /// Minimum score at which content is flagged; without it, the score is only reported.
    pub threshold: Option<f32>,
    /// Data that the threshold was fitted on.
    pub data: Option<String>,
    /// True if the mapping was guessed from the names of the labels and it is not confirmed.
    pub proposed: bool,
}

/// Computation of a category's score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The maximum: any of the labels is enough.
    Max(Vec<String>),
    /// The minimum: all of the labels are needed.
    Min(Vec<String>),
    /// The sum, at most 1: the labels exclude each other.
    Sum(Vec<String>),
    /// One minus the score of the label.
    Not(String),
}

impl Rule {
    /// Name of the rule, as in a card.
    pub fn name(&self) -> &'static str {
        match self {
            Rule::Max(_) => "max",
            Rule::Min(_) => "min",
            Rule::Sum(_) => "sum",
            Rule::Not(_) => "not",
        }
    }

    /// Labels of the rule.
    pub fn labels(&self) -> &[String] {
        match self {
            Rule::Max(labels) | Rule::Min(labels) | Rule::Sum(labels) => labels,
            Rule::Not(label) => std::slice::from_ref(label),
        }
    }
}

/// Keys of a category.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CategoryToml {
    max: Option<Vec<String>>,
    min: Option<Vec<String>>,
    sum: Option<Vec<String>>,
    not: Option<String>,
    threshold: Option<f32>,
    data: Option<String>,
    #[serde(default)]
    proposed: bool,
}

impl TryFrom<CategoryToml> for Category {
    type Error = String;

    fn try_from(toml: CategoryToml) -> Result<Self, String> {
        let rules = [
            toml.max.map(Rule::Max),
            toml.min.map(Rule::Min),
            toml.sum.map(Rule::Sum),
            toml.not.map(Rule::Not),
        ];
        let mut rules = rules.into_iter().flatten();
        let (Some(rule), None) = (rules.next(), rules.next()) else {
            return Err("expected exactly one of `max`, `min`, `sum` and `not`".to_owned());
        };
        if rule.labels().is_empty() {
            return Err(format!("`{}` is empty, expected at least one label", rule.name()));
        }
        if let Some(threshold) = toml.threshold
            && !(0.0..=1.0).contains(&threshold)
        {
            return Err(format!("`threshold` is {threshold}, expected a number from 0 to 1"));
        }
        Ok(Category { rule, threshold: toml.threshold, data: toml.data, proposed: toml.proposed })
    }
}
