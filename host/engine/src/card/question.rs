//! Questions of a guard: a language model that judges texts by its answers.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::limits::{MAX_CHOICES, MAX_QUESTIONS};

/// A question about a text, of which the model's answers are scored: a section `[[questions]]`. The
/// prompt is the model's own chat template with the text as the user's turn.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Names of the answers; the score of each is its probability among the answers.
    pub labels: Vec<String>,
    /// The answers, as the model writes them after the prompt, one for each label.
    pub choices: Vec<String>,
    /// Variables of the chat template, such as the rule that the question is about.
    #[serde(default)]
    pub template: Map<String, Value>,
}

/// Checks the questions of a card.
///
/// # Errors
///
/// A message about the first that is out of bounds.
pub(super) fn check(questions: &[Question]) -> Result<(), String> {
    MAX_QUESTIONS.check("`questions`", questions.len())?;
    let mut labels = BTreeSet::new();
    for (index, Question { labels: own, choices, .. }) in questions.iter().enumerate() {
        let wrong = |message: String| Err(format!("`questions[{index}]`: {message}"));
        if own.len() != choices.len() || !(2..=MAX_CHOICES).contains(&own.len()) {
            let (own, choices) = (own.len(), choices.len());
            return wrong(format!(
                "it has {own} labels and {choices} choices, expected the same number, 2 to {MAX_CHOICES}"
            ));
        }
        if choices.iter().any(String::is_empty) {
            return wrong("a choice is empty".to_owned());
        }
        if let Some(choice) = repeated(choices.iter().map(String::as_str)) {
            return wrong(format!("the choice {choice:?} is listed twice"));
        }
        if let Some(label) = own.iter().find(|label| label.is_empty() || label.contains(['\n', '\r'])) {
            return wrong(format!("the label {label:?} is empty or has several lines"));
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
            (card.labels, card.questions[0].choices[1].as_str()),
            (vec!["safe".to_owned(), "S1".to_owned()], "unsafe\nS1")
        );
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
