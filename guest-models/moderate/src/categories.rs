//! Categories of the verdict: OpenAI's, those of the models' cards, and the operator's mapping.
//!
//! A card maps a model's labels to categories, under `models.NAME.categories`. The setting
//! `category.NAME` chooses another model, another rule, or both: `text2`, `max(toxic, insult)`, or
//! `text2: max(toxic, insult)`.

use guest_sdk::Fault;
use guest_sdk::card::Card;
use guest_sdk::json::{Reader, Unexpected};
use guest_sdk::settings::Settings;

/// The categories of OpenAI's moderation API, in the order of the verdict.
pub(crate) const OPENAI: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];

/// The guest's name for the language model, which judges after the classifiers.
pub(crate) const LANGUAGE: &str = "language";

/// Threshold of a category whose model has none, if it can be flagged.
pub(crate) const THRESHOLD: f32 = 0.5;

/// Combination of the scores of labels into one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The maximum: any label is enough.
    Max(Vec<String>),
    /// The minimum: all labels are needed.
    Min(Vec<String>),
    /// The sum, at most 1: the labels exclude each other.
    Sum(Vec<String>),
    /// One minus the score of the label.
    Not(String),
}

/// A category that a model judges.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Category {
    /// Name, such as `hate/threatening`.
    pub(crate) name: String,
    /// Computation of its score.
    pub(crate) rule: Rule,
    /// Minimum score at which it is flagged; `None` if it is only reported.
    pub(crate) threshold: Option<f32>,
}

/// A category that the language model judges.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Advised {
    pub(crate) name: String,
    /// Minimum probability at which a text belongs to it, by the model's card.
    pub(crate) threshold: Option<f32>,
}

/// The operator's choice for a category.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The guest's name for the model.
    pub(crate) model: Option<String>,
    /// Rule for its labels.
    pub(crate) rule: Option<Rule>,
}

impl Rule {
    fn new(name: &str, mut labels: Vec<String>) -> Option<Rule> {
        match name {
            _ if labels.is_empty() => None,
            "max" => Some(Rule::Max(labels)),
            "min" => Some(Rule::Min(labels)),
            "sum" => Some(Rule::Sum(labels)),
            "not" if labels.len() == 1 => labels.pop().map(Rule::Not),
            _ => None,
        }
    }

    /// Returns the score of one row of a model's output, if the model has the labels: all of them
    /// for a `Min`, any for the others. `labels` names the values of `row`.
    pub(crate) fn score(&self, labels: &[&str], row: &[f32]) -> Option<f32> {
        let value =
            |label: &String| row.get(labels.iter().position(|candidate| candidate == label)?).copied();
        match self {
            Rule::Max(names) => names.iter().filter_map(value).reduce(f32::max),
            Rule::Min(names) => names.iter().map(value).reduce(|one, other| Some(one?.min(other?)))?,
            Rule::Sum(names) => names.iter().filter_map(value).reduce(|one, other| (one + other).min(1.0)),
            Rule::Not(name) => value(name).map(|score| 1.0 - score),
        }
    }

    fn labels(&self) -> &[String] {
        match self {
            Rule::Max(labels) | Rule::Min(labels) | Rule::Sum(labels) => labels,
            Rule::Not(label) => std::slice::from_ref(label),
        }
    }
}

/// Reads the categories of a model's card; none if the card has no mapping.
///
/// # Errors
///
/// `internal` when the host's facts are malformed.
pub(crate) fn of_card(card: &Card<'_>) -> Result<Vec<Category>, Fault> {
    let Some(json) = card.find("categories") else { return Ok(Vec::new()) };
    parse(json).map_err(|error| {
        Fault::Internal(format!("model `{}`: the fact `categories` is malformed: {error}", card.model()))
    })
}

/// Parses `{"NAME": {"rule": "max", "labels": ["a"], "threshold": 0.5}}`.
fn parse(json: &str) -> Result<Vec<Category>, Unexpected> {
    let mut categories = Vec::new();
    let mut reader = Reader::new(json);
    reader.object(&mut |reader, name| {
        let (mut rule, mut labels, mut threshold) = (String::new(), Vec::new(), None);
        reader.object(&mut |reader, key| {
            match key {
                "rule" => rule = reader.string()?,
                "labels" => reader.array(&mut |reader| {
                    labels.push(reader.string()?);
                    Ok(())
                })?,
                "threshold" => threshold = Some(reader.number()? as f32),
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        let rule = Rule::new(&rule, labels).ok_or_else(|| reader.expected("a rule with labels"))?;
        categories.push(Category { name: name.to_owned(), rule, threshold });
        Ok(())
    })?;
    reader.end()?;
    Ok(categories)
}

/// Reads the setting `category.NAME`.
///
/// # Errors
///
/// `internal` when it is malformed.
pub(crate) fn choice(settings: &Settings, category: &str) -> Result<Option<Choice>, Fault> {
    let key = ["category.", category].concat();
    let Some(text) = settings.text(&key) else { return Ok(None) };
    let choice = match (text.split_once(':'), text.contains('(')) {
        (Some((model, rule)), _) => {
            parse_rule(rule).map(|rule| Choice { model: Some(model.trim().to_owned()), rule: Some(rule) })
        }
        (None, true) => parse_rule(text).map(|rule| Choice { model: None, rule: Some(rule) }),
        (None, false) => Some(Choice { model: Some(text.trim().to_owned()), rule: None }),
    };
    let expected =
        "a model, a rule such as `max(toxic, insult)`, or `MODEL: RULE`; rules are max, min, sum, not";
    let choice = choice.filter(|choice| choice.model.as_deref() != Some(""));
    choice
        .map(Some)
        .ok_or_else(|| Fault::Internal(format!("setting `{key}`: expected {expected}, found `{text}`")))
}

fn parse_rule(text: &str) -> Option<Rule> {
    let (name, rest) = text.trim().split_once('(')?;
    let labels = rest.strip_suffix(')')?.split(',').map(|label| label.trim().to_owned());
    Rule::new(name.trim(), labels.filter(|label| !label.is_empty()).collect())
}

/// Checks that the model has the labels of `rule`.
///
/// # Errors
///
/// `internal` for the first label that it does not have.
pub(crate) fn check_labels(category: &str, rule: &Rule, card: &Card<'_>) -> Result<(), Fault> {
    let labels = card.labels()?;
    match rule.labels().iter().find(|label| !labels.contains(&label.as_str())) {
        None => Ok(()),
        Some(label) => Err(Fault::Internal(format!(
            "setting `category.{category}`: model `{}` has no label `{label}`, expected one of `{}`",
            card.model(),
            labels.join("`, `")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(labels: &[&str]) -> Vec<String> {
        labels.iter().map(|&label| label.to_owned()).collect()
    }

    #[test]
    fn scores_follow_the_rules() {
        let labels = ["a", "b", "c"];
        let row = [0.2, 0.7, 0.6];
        let cases = [
            (Rule::Max(names(&["a", "b"])), Some(0.7)),
            (Rule::Max(names(&["c", "absent"])), Some(0.6)),
            (Rule::Max(names(&["absent"])), None),
            (Rule::Min(names(&["b", "c"])), Some(0.6)),
            (Rule::Min(names(&["b", "absent"])), None),
            (Rule::Sum(names(&["a", "c"])), Some(0.8)),
            (Rule::Sum(names(&["b", "c"])), Some(1.0)),
            (Rule::Sum(names(&["absent"])), None),
            (Rule::Not("a".to_owned()), Some(0.8)),
            (Rule::Not("absent".to_owned()), None),
        ];
        for (rule, expected) in cases {
            assert_eq!(rule.score(&labels, &row), expected, "{rule:?}");
        }
    }

    #[test]
    fn cards_map_labels_to_categories() {
        let json = r#"{"hate":{"rule":"max","labels":["identity_hate"],"threshold":0.25},"insult":{"rule":"not","labels":["kind"]}}"#;
        let rule = Rule::Max(names(&["identity_hate"]));
        let hate = Category { name: "hate".to_owned(), rule, threshold: Some(0.25) };
        let insult =
            Category { name: "insult".to_owned(), rule: Rule::Not("kind".to_owned()), threshold: None };
        assert_eq!(parse(json).unwrap(), [hate, insult]);
        for json in
            [r#"{"hate":{"rule":"max","labels":[]}}"#, r#"{"hate":{"rule":"all","labels":["a"]}}"#, "[]"]
        {
            assert!(parse(json).is_err(), "{json}");
        }
    }

    #[test]
    fn settings_choose_model_and_rule() {
        let read = |text: &str| {
            let pairs = vec![("category.hate".to_owned(), text.to_owned())];
            choice(&Settings::from_pairs(pairs), "hate")
        };
        let rule = || Some(Rule::Max(names(&["toxic", "insult"])));
        let model = || Some("text2".to_owned());
        for (text, expected) in [
            ("text2", Choice { model: model(), rule: None }),
            ("max(toxic, insult)", Choice { model: None, rule: rule() }),
            ("text2: max( toxic,insult )", Choice { model: model(), rule: rule() }),
            ("not(kind)", Choice { model: None, rule: Some(Rule::Not("kind".to_owned())) }),
        ] {
            assert_eq!(read(text).unwrap(), Some(expected), "{text}");
        }
        for text in ["", "max()", "all(toxic)", "not(a, b)", "text2:", ": max(a)", "max(a"] {
            let Err(Fault::Internal(message)) = read(text) else { panic!("{text}") };
            assert!(message.starts_with("setting `category.hate`: expected a model, a rule"), "{message}");
        }
        assert_eq!(choice(&Settings::from_pairs(Vec::new()), "hate").unwrap(), None);
    }
}
