//! A guard in place of a policy: a language model that was trained to judge texts, and answers the
//! questions of its card.

use guest_sdk::card::Card;
use guest_sdk::nn::ModelError;
use guest_sdk::settings::Settings;
use guest_sdk::{Fault, texts};

use crate::categories::{self, Advised, Category};

/// The guard's labels, and the categories that its card computes from them.
#[derive(Debug)]
pub(crate) struct Guard {
    labels: Vec<String>,
    categories: Vec<Category>,
}

/// A guard's answers about an input.
pub(crate) struct Opinion {
    /// Probability of each category, in the order of the card: that of the worst text.
    pub(crate) probabilities: Vec<f32>,
    /// True if it read only the beginning of a text.
    pub(crate) cut: bool,
}

impl Guard {
    /// Reads the card.
    ///
    /// # Errors
    ///
    /// `internal` for a malformed card, one without categories, and settings of a policy, which
    /// have no effect.
    pub(crate) fn read(settings: &Settings, card: Card<'_>) -> Result<Guard, Fault> {
        let model = card.model();
        let (labels, categories) = (card.labels()?, categories::of_card(&card)?);
        if categories.is_empty() {
            return Err(Fault::Internal(format!("model `{model}`: its card has no `[categories]`")));
        }
        if let Some(key) = settings.keys().find(|key| key.starts_with("policy.")) {
            return Err(Fault::Internal(format!(
                "setting `{key}`: model `{model}` is a guard, which answers the questions of its card; remove the \
                 setting, or configure a model for text-generation"
            )));
        }
        Ok(Guard { labels: labels.into_iter().map(str::to_owned).collect(), categories })
    }

    /// Categories of the card.
    pub(crate) fn categories(&self) -> impl Iterator<Item = Advised> {
        let advised = |Category { name, threshold, .. }: &Category| Advised {
            name: name.clone(),
            threshold: *threshold,
        };
        self.categories.iter().map(advised)
    }

    /// Asks the guard, which the configuration names `model`, about `texts`.
    ///
    /// # Errors
    ///
    /// When the model fails.
    pub(crate) fn ask<T: AsRef<str>>(&self, model: &str, texts: &[T]) -> Result<Opinion, ModelError> {
        let scores = texts::score(model, texts, self.labels.len())?;
        let cut = scores.facts.iter().any(|facts| facts.is_truncated);
        Ok(Opinion { probabilities: self.probabilities(&scores.values), cut })
    }

    fn probabilities(&self, values: &[f32]) -> Vec<f32> {
        let labels: Vec<_> = self.labels.iter().map(String::as_str).collect();
        let probability = |category: &Category| {
            let rows = values.chunks_exact(labels.len().max(1));
            rows.filter_map(|row| category.rule.score(&labels, row)).fold(0.0, f32::max)
        };
        self.categories.iter().map(probability).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CATEGORIES: &str = r#"{"violence":{"rule":"max","labels":["S1"],"threshold":0.3},"hate":{"rule":"not","labels":["safe"]}}"#;

    fn guard(pairs: &[(&str, &str)]) -> Result<Guard, Fault> {
        let card = [
            ("models.language.task", "text-classification"),
            ("models.language.labels", "safe\nS1"),
            ("models.language.categories", CATEGORIES),
        ];
        let all = card.iter().chain(pairs).map(|&(key, value)| (key.to_owned(), value.to_owned()));
        // The later of two equal keys wins.
        let settings =
            Settings::from_pairs(all.collect::<std::collections::BTreeMap<_, _>>().into_iter().collect());
        Guard::read(&settings, settings.card("language").unwrap())
    }

    #[test]
    fn worst_text_decides() {
        let guard = guard(&[]).unwrap();
        let advised: Vec<_> = guard.categories().collect();
        assert_eq!(
            advised,
            [("violence", Some(0.3)), ("hate", None)]
                .map(|(name, threshold)| Advised { name: name.to_owned(), threshold })
        );
        assert_eq!(guard.probabilities(&[0.75, 0.25, 0.5, 0.125]), [0.25, 0.5]);
    }

    #[test]
    fn settings_without_effect_are_named() {
        for (key, value, expected) in [
            ("policy.text", "No spoilers.", "setting `policy.text`: model `language` is a guard"),
            ("models.language.categories", "{}", "model `language`: its card has no `[categories]`"),
        ] {
            let Err(Fault::Internal(message)) = guard(&[(key, value)]) else { panic!("{key}") };
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
