//! Questions of a guard: a language model that judges texts by its answers.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::limits::{MAX_CHOICES, MAX_QUESTIONS};
use crate::text::names;

/// A question about a text, of which the model's answers are scored: a section `[[questions]]`. The
/// prompt is the model's own chat template with the text as the user's turn, or with a pair as the
/// turns of user and assistant.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Names of the answers; the score of each is its probability among the answers.
    pub labels: Vec<String>,
    /// The answers, as the model writes them after the prompt: for each label one, or several whose
    /// probabilities are added.
    #[serde(deserialize_with = "one_or_more")]
    pub choices: Vec<Vec<String>>,
    /// Label of the answer that nothing is wrong. The likeliest of the other labels then gets the
    /// probability of all of them together, and the rest of them a part of it by their ratio to the
    /// likeliest: the model names one reason of several.
    pub clear: Option<String>,
    /// Variables of the chat template, such as the rule that the question is about.
    #[serde(default)]
    pub template: Map<String, Value>,
    /// The variables for pairs, if they differ.
    pub pair: Option<Map<String, Value>>,
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a choice is a string or a list of strings")]
    enum Choice {
        One(String),
        More(Vec<String>),
    }
    let choices = Vec::<Choice>::deserialize(deserializer)?;
    let list = |choice| match choice {
        Choice::One(choice) => vec![choice],
        Choice::More(choices) => choices,
    };
    Ok(choices.into_iter().map(list).collect())
}

/// Checks the questions of a card.
///
/// # Errors
///
/// A message about the first that is out of bounds.
pub(super) fn check(questions: &[Question]) -> Result<(), String> {
    MAX_QUESTIONS.check("`questions`", questions.len())?;
    let mut labels = BTreeSet::new();
    for (index, Question { labels: own, choices, clear, .. }) in questions.iter().enumerate() {
        let wrong = |message: String| Err(format!("`questions[{index}]`: {message}"));
        if own.len() != choices.len() || own.len() < 2 {
            let (own, choices) = (own.len(), choices.len());
            return wrong(format!(
                "it has {own} labels and {choices} choices, expected the same number, at least 2"
            ));
        }
        let all = || choices.iter().flatten().map(String::as_str);
        if all().count() > MAX_CHOICES {
            return wrong(format!("it has {} choices, expected at most {MAX_CHOICES}", all().count()));
        }
        if choices.iter().any(Vec::is_empty) || all().any(str::is_empty) {
            return wrong("a choice is empty".to_owned());
        }
        if let Some(choice) = repeated(all()) {
            return wrong(format!("the choice {choice:?} is listed twice"));
        }
        if let Some(label) = own.iter().find(|label| label.is_empty() || label.contains(['\n', '\r'])) {
            return wrong(format!("the label {label:?} is empty or has several lines"));
        }
        if let Some(clear) = clear.as_ref().filter(|clear| !own.contains(clear)) {
            return wrong(format!("`clear` is {clear:?}, expected one of its labels, {}", names(own)));
        }
        if let Some(label) = own.iter().find(|label| !labels.insert(label.as_str())) {
            return wrong(format!(
                "the label `{label}` is listed twice; labels are unique among all questions"
            ));
        }
    }
    Ok(())
}

/// The first name that occurs a second time.
pub(super) fn repeated<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = BTreeSet::new();
    names.find(|name| !seen.insert(*name))
}

#[cfg(test)]
mod tests {
    use crate::card::Card;

    #[test]
    fn guards_have_labels_of_their_questions() {
        const CARD: &str = include_str!("../../../../weights/qwen2.5-0.5b/card.toml");
        const QUESTIONS: &str = "[[questions]]\nlabels = [\"safe\", \"S1\"]\nchoices = [\"safe\", \"unsafe\\nS1\"]\n\n[categories.violence]\nmax = [\"S1\"]\n";
        let guard = CARD.replacen("\"text-generation\"", "\"text-classification\"", 1);
        let guard = format!("{guard}\n{QUESTIONS}");
        let card = Card::parse(&guard).unwrap();
        assert!(card.takes_texts() && card.task.judges_text());
        assert_eq!(
            (card.labels, &*card.questions[0].choices[1]),
            (vec!["safe".to_owned(), "S1".to_owned()], &["unsafe\nS1".to_owned()][..])
        );
        let several = guard.replace(r#""unsafe\nS1"]"#, r#"["unsafe\nS1", "maybe\nS1"]]"#);
        assert_eq!(Card::parse(&several).unwrap().questions[0].choices[1].len(), 2);
        let cases = [
            (
                "\"text-classification\"",
                "\"text-generation\"",
                "expected `text-classification` for a card with `questions`",
            ),
            ("labels = [\"safe\", ", "labels = [", "it has 1 labels and 2 choices, expected the same number"),
            ("labels = [\"safe\", ", "labels = [\"S1\", ", "the label `S1` is listed twice"),
            ("choices = [\"safe\", ", "choices = [\"\", ", "a choice is empty"),
            ("choices = [\"safe\", ", "choices = [\"unsafe\\nS1\", ", "is listed twice"),
            ("choices = [\"safe\", ", "choices = [[], ", "a choice is empty"),
            ("choices = [\"safe\", ", "choices = [1, ", "a choice is a string or a list of strings"),
            (
                "choices = [\"safe\", ",
                "clear = \"fine\"\nchoices = [\"safe\", ",
                "`clear` is \"fine\", expected one of its labels, `safe`, `S1`",
            ),
            (
                "max = [\"S1\"]",
                "max = [\"S2\"]",
                "category `violence` uses the label `S2`, expected one of `safe`, `S1`",
            ),
        ];
        for (from, to, expected) in cases {
            assert!(guard.contains(from), "the card has no {from}");
            let message = Card::parse(&guard.replacen(from, to, 1)).unwrap_err();
            assert!(message.contains(expected), "{to}: {message}");
        }
        let toxic = include_str!("../../../../weights/toxic-bilstm/card.toml");
        let message =
            Card::parse(&format!("{toxic}\n[[questions]]\nlabels = []\nchoices = []\n")).unwrap_err();
        assert!(message.contains("`questions` is for `format` = `gguf`"), "{message}");
    }
}
