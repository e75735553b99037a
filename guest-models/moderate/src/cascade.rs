//! The second tier: a language model judges texts where the text classifier is uncertain, by the
//! operator's policy or by the questions of its card.
//!
//! The classifier is certain if its score is far from the category's threshold. Otherwise its score
//! and the language model's probability are combined as evidence: on the scale of log-odds, each
//! relative to its own threshold. So each category keeps its single threshold, and reaches it when
//! the weighted evidence of both does.

use guest_sdk::nn::{ErrorCode, ModelError};
use guest_sdk::settings::Settings;
use guest_sdk::{Fault, Tier, log};

use crate::categories::{Advised, LANGUAGE, THRESHOLD};
use crate::guard::Guard;
use crate::odds::{logit, probability};
use crate::opinion;
use crate::policy::Policy;
use crate::verdict::{Finding, Row};

/// Default of `cascade.low`: below this multiple of its threshold a score is certainly harmless.
const LOW: f32 = 0.02;

/// Default of `cascade.high`: from this multiple of its threshold a score is certainly a violation.
const HIGH: f32 = 1.25;

/// Default of `cascade.weight`: the weight of the language model's evidence.
const WEIGHT: f32 = 0.5;

/// The language model and the condition for asking it.
#[derive(Debug)]
pub(crate) struct Cascade {
    adviser: Adviser,
    categories: Vec<Advised>,
    band: Band,
    /// True if an input is a fault when the language model should have judged it and did not.
    required: bool,
}

/// The means by which the language model judges.
#[derive(Debug)]
enum Adviser {
    Policy(Policy),
    Guard(Guard),
}

/// Range of uncertain scores, and weight of the second opinion.
#[derive(Clone, Copy, Debug)]
struct Band {
    low: f32,
    high: f32,
    weight: f32,
}

/// Answer of the language model about one category.
#[derive(Clone, Copy, Debug)]
struct Answer {
    /// Probability that the post belongs to the category.
    probability: f32,
    /// Minimum probability at which it does.
    threshold: f32,
    /// True for a guard's, whose probability is the score if no classifier has judged.
    is_of_guard: bool,
    /// The gap of a post of which it read only a part.
    gap: Option<&'static str>,
}

impl Cascade {
    /// Reads the second tier's settings. Returns `None` without a configured language model.
    ///
    /// # Errors
    ///
    /// `internal` for an invalid setting or model.
    pub(crate) fn read(settings: &Settings) -> Result<Option<Cascade>, Fault> {
        let Some(card) = settings.card(LANGUAGE) else { return Ok(None) };
        let (adviser, categories) = match (card.require("task")?, card.find("questions")) {
            ("text-generation", _) => {
                let policy = Policy::read(settings)?;
                let names = policy.categories.iter().cloned();
                let threshold = Some(THRESHOLD);
                let categories = names.map(|name| Advised { name, threshold }).collect();
                (Adviser::Policy(policy), categories)
            }
            ("text-classification", Some(_)) => {
                let guard = Guard::read(settings, card)?;
                let categories = guard.categories().collect();
                (Adviser::Guard(guard), categories)
            }
            (task, _) => {
                return Err(Fault::Internal(format!(
                    "model `{LANGUAGE}`: expected a model for text-generation, or a guard, its card says {task}"
                )));
            }
        };
        let band = Band::read(settings)?;
        let required = settings.get("cascade.required", false)?;
        Ok(Some(Cascade { adviser, categories, band, required }))
    }

    /// Categories that the language model judges.
    pub(crate) fn categories(&self) -> &[Advised] {
        &self.categories
    }

    /// Judges the uncertain categories of `rows`, which contain the classifier's findings on
    /// `texts`.
    ///
    /// # Errors
    ///
    /// `model` when the language model does not answer, and no classifier has judged or
    /// `cascade.required` is set.
    pub(crate) fn judge<T: AsRef<str>>(&self, rows: &mut [Row<'_>], texts: &[T]) -> Result<(), Fault> {
        let has_verdict = !self.required && rows.iter().any(|row| row.text.score().is_some());
        let mut rows: Vec<_> = rows
            .iter_mut()
            .filter_map(|row| Some((self.categories.iter().position(|own| own.name == row.name)?, row)))
            .collect();
        if !self.band.contains_any(rows.iter().map(|(_, row)| &**row)) {
            return Ok(());
        }
        rows.retain(|(_, row)| self.band.is_open(row));
        match self.ask(texts) {
            Ok(answers) => {
                for (category, row) in rows {
                    self.band.apply(row, answers[category]);
                }
                Ok(())
            }
            Err(error) if has_verdict => {
                log::warn(&format!("keeping the classifier's verdict: {error}"));
                let reason = match error.code {
                    ErrorCode::Timeout => "uncertain, and the language model did not answer in time",
                    _ => "uncertain, and the language model did not answer",
                };
                rows.into_iter().for_each(|(_, row)| row.text_gaps.push(reason.to_owned()));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The answers about the categories, in their order.
    fn ask<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Answer>, ModelError> {
        match &self.adviser {
            Adviser::Policy(policy) => {
                let opinion = opinion::ask(policy, LANGUAGE, texts)?;
                let gap = "too long for the language model, which read the beginning and the end";
                let gap = opinion.cut.then_some(gap);
                let (probability, threshold) = (opinion.probability, policy.threshold);
                let answer = Answer { probability, threshold, is_of_guard: false, gap };
                Ok(vec![answer; self.categories.len()])
            }
            Adviser::Guard(guard) => {
                let opinion = guard.ask(LANGUAGE, texts)?;
                let gap = "too long for the language model, which read the beginning";
                let gap = opinion.cut.then_some(gap);
                let answer = |(probability, category): (f32, &Advised)| {
                    let threshold = category.threshold.unwrap_or(THRESHOLD);
                    Answer { probability, threshold, is_of_guard: true, gap }
                };
                Ok(opinion.probabilities.into_iter().zip(&self.categories).map(answer).collect())
            }
        }
    }
}

impl Band {
    fn read(settings: &Settings) -> Result<Band, Fault> {
        let unfit = |key: &str, expected: &str, found: f32| {
            Err(Fault::Internal(format!("setting `{key}`: expected {expected}, found `{found}`")))
        };
        let low = settings.get("cascade.low", LOW)?;
        let high = settings.get("cascade.high", HIGH)?;
        let weight = settings.get("cascade.weight", WEIGHT)?;
        if low < 0.0 {
            return unfit("cascade.low", "a multiple of a threshold, 0 or more", low);
        }
        if high < low {
            return unfit("cascade.high", &format!("at least `cascade.low`, which is {low}"), high);
        }
        if !(0.0..=1.0).contains(&weight) {
            return unfit("cascade.weight", "a number from 0 to 1", weight);
        }
        Ok(Band { low, high, weight })
    }

    /// Returns true if `rows`, the categories of the language model, need it: the classifier cannot
    /// judge one that can be flagged, or the one nearest to being flagged, or furthest beyond, is
    /// uncertain.
    fn contains_any<'r>(&self, mut rows: impl Iterator<Item = &'r Row<'r>> + Clone) -> bool {
        let worst = rows.clone().filter_map(ratio).fold(0.0, f32::max);
        rows.any(|row| row.threshold.is_some() && ratio(row).is_none()) || self.contains(worst)
    }

    /// Returns true if the language model's answer affects this category.
    fn is_open(&self, row: &Row<'_>) -> bool {
        ratio(row).is_none_or(|ratio| self.contains(ratio))
    }

    fn contains(&self, ratio: f32) -> bool {
        (self.low..self.high).contains(&ratio)
    }

    /// Combines the scores of the classifier and the language model.
    fn apply(&self, row: &mut Row<'_>, answer: Answer) {
        let own = row.threshold.unwrap_or(THRESHOLD);
        let is_alone = answer.is_of_guard && row.text.score().is_none();
        let language = logit(answer.probability) - logit(if is_alone { own } else { answer.threshold });
        let margin = match row.text.score() {
            Some(score) => {
                let classifier = logit(score) - logit(own);
                let both = classifier + self.weight * (language - classifier);
                // A part of a post can show that it breaks the policy, but not that it does not.
                if answer.gap.is_some() { both.max(classifier) } else { both }
            }
            None => language,
        };
        let score = probability(logit(own) + margin);
        row.text = Finding::Score(score, Tier::Language);
        row.text_gaps.extend(answer.gap.map(str::to_owned));
    }
}

/// The classifier's score as a multiple of the category's threshold, if there is a score.
fn ratio(row: &Row<'_>) -> Option<f32> {
    let threshold = row.threshold.unwrap_or(THRESHOLD);
    row.text.score().map(|score| if threshold > 0.0 { score / threshold } else { f32::INFINITY })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(threshold: f32, text: Finding) -> Row<'static> {
        Row {
            name: "harassment",
            threshold: Some(threshold),
            text,
            text_gaps: Vec::new(),
            image: Finding::Absent,
            image_gaps: Vec::new(),
        }
    }

    fn scored(score: f32) -> Finding {
        Finding::Score(score, Tier::Classifier)
    }

    const BAND: Band = Band { low: 0.1, high: 1.25, weight: 0.5 };

    fn answer(probability: f32, threshold: f32) -> Answer {
        Answer { probability, threshold, is_of_guard: false, gap: None }
    }

    #[test]
    fn uncertain_categories_ask_the_language_model() {
        let unjudged = || Finding::Gap("no text model judges it");
        // Two categories with thresholds 0.5 and 0.2: whether to ask the language model, and
        // whether it affects each.
        let cases = [
            (scored(0.04), scored(0.01), false, [false, false]),
            (scored(0.05), scored(0.01), true, [true, false]),
            (scored(0.45), scored(0.1), true, [true, true]),
            (scored(0.62), scored(0.0), true, [true, false]),
            (scored(0.63), scored(0.1), false, [false, true]),
            (scored(0.3), scored(0.25), false, [true, false]),
            (scored(0.0), unjudged(), true, [false, true]),
            (scored(0.9), unjudged(), true, [false, true]),
            (unjudged(), unjudged(), true, [true, true]),
        ];
        for (index, (one, other, expected, open)) in cases.into_iter().enumerate() {
            let (one, other) = (row(0.5, one), row(0.2, other));
            assert_eq!([BAND.is_open(&one), BAND.is_open(&other)], open, "case {index}");
            assert_eq!(BAND.contains_any([&one, &other].into_iter()), expected, "case {index}");
        }
        assert!(
            !BAND.contains_any([&row(0.0, scored(0.0))].into_iter()),
            "a threshold of 0 flags everything"
        );
    }

    #[test]
    fn score_reaches_threshold_with_the_evidence() {
        // Classifier's score, probability, policy's threshold, weight, and the result of 1 / (1 +
        // exp(-x)) by hand.
        let cases = [
            // Even odds, and half the distance below the threshold: ln(7/3) / 2 above even.
            (Some(0.5), 0.5, 0.5, 0.5, 0.604_356),
            (Some(0.7), 0.5, 0.5, 0.5, 0.7),
            (Some(0.7), 0.3, 0.3, 0.9, 0.7),
            (Some(0.2), 0.9, 0.5, 1.0, 0.954_545),
            (Some(0.2), 0.9, 0.5, 0.0, 0.2),
            (None, 0.4, 0.4, 0.5, 0.7),
            (None, 0.9, 0.5, 0.5, 0.954_545),
        ];
        for (score, probability, threshold, weight, expected) in cases {
            let first = score.map_or(Finding::Gap("no model"), scored);
            let mut row = row(0.7, first);
            Band { weight, ..BAND }.apply(&mut row, answer(probability, threshold));
            let found = row.text.score().unwrap();
            assert!(
                (found - expected).abs() < 1e-5,
                "{score:?}, {probability}: {found}, expected {expected}"
            );
            assert!(matches!(row.text, Finding::Score(_, Tier::Language)) && row.text_gaps.is_empty());
        }
    }

    #[test]
    fn probability_of_a_guard_alone_is_the_score() {
        for own in [0.1, 0.5, 0.9] {
            let mut row = row(own, Finding::Gap("no model"));
            BAND.apply(&mut row, Answer { is_of_guard: true, ..answer(0.6, 0.5) });
            assert!((row.text.score().unwrap() - 0.6).abs() < 1e-5, "{own}");
        }
        // A category that is only reported is no reason to ask.
        let reported = Row { threshold: None, ..row(0.5, Finding::Gap("no model")) };
        assert!(!BAND.contains_any([&reported].into_iter()));
    }

    #[test]
    fn combined_scores_are_monotonic_probabilities() {
        let steps = || (0..=20).map(|step| step as f32 / 20.0);
        for threshold in [0.0, 0.05, 0.5, 1.0, 7.0] {
            let combined = |score: f32, probability: f32| {
                let mut row = row(threshold, scored(score));
                BAND.apply(&mut row, answer(probability, 0.5));
                row.text.score().unwrap()
            };
            for (score, probability) in steps().flat_map(|score| steps().map(move |other| (score, other))) {
                let found = combined(score, probability);
                assert!((0.0..=1.0).contains(&found), "{threshold}, {score}, {probability}: {found}");
                assert!(
                    combined(score + 0.05, probability) >= found
                        && combined(score, probability + 0.05) >= found
                );
            }
        }
    }

    #[test]
    fn partial_reading_raises_but_never_clears() {
        for (probability, expected) in [(0.01, 0.6), (0.99, 0.949_017)] {
            let mut row = row(0.7, scored(0.6));
            BAND.apply(&mut row, Answer { gap: Some("too long"), ..answer(probability, 0.5) });
            let found = row.text.score().unwrap();
            assert!((found - expected).abs() < 1e-3, "{found}");
            assert_eq!(row.text_gaps, ["too long"]);
        }
    }

    #[test]
    fn invalid_settings_are_named() {
        let cases = [
            (
                "cascade.low",
                "-1",
                "setting `cascade.low`: expected a multiple of a threshold, 0 or more, found `-1`",
            ),
            (
                "cascade.high",
                "0.01",
                "setting `cascade.high`: expected at least `cascade.low`, which is 0.02, found",
            ),
            ("cascade.weight", "2", "setting `cascade.weight`: expected a number from 0 to 1, found `2`"),
            (
                "cascade.required",
                "yes",
                "setting `cascade.required`: expected `true` or `false`, found `yes`",
            ),
            (
                "models.language.task",
                "text-classification",
                "model `language`: expected a model for text-generation, or a guard",
            ),
        ];
        for (key, value, words) in cases {
            let mut pairs = vec![(key.to_owned(), value.to_owned())];
            if key != "models.language.task" {
                pairs.push(("models.language.task".to_owned(), "text-generation".to_owned()));
            }
            let Err(Fault::Internal(message)) = Cascade::read(&Settings::from_pairs(pairs)) else {
                panic!("{key}")
            };
            assert!(message.starts_with(words), "{message}");
        }
        assert!(Cascade::read(&Settings::from_pairs(Vec::new())).unwrap().is_none());
    }
}
