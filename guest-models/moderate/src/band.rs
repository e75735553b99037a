//! The range of uncertain scores, and the combination of a classifier's score with the language
//! model's answer.

use guest_sdk::settings::Settings;
use guest_sdk::{Fault, Tier};

use crate::categories::THRESHOLD;
use crate::odds::{logit, probability};
use crate::verdict::{Finding, Row};

/// Default of `cascade.low`: below this multiple of its threshold a score is certainly harmless.
const LOW: f32 = 0.4;

/// Default of `cascade.high`: from this multiple of its threshold a score is certainly a violation.
const HIGH: f32 = 1.25;

/// Default of `cascade.weight`, the weight of the language model's evidence: the classifiers do not
/// know the operator's policies.
pub(crate) const WEIGHT: f32 = 0.5;

/// Default for the built-in policies, about which the classifiers know more. Chosen by the mean
/// AUROC on validation rows of three sets, with `qwen2.5-1.5b`.
pub(crate) const BUILT_IN_WEIGHT: f32 = 0.125;

/// Reason to ask about a category that no classifier judges.
const UNJUDGED: &str = "unjudged";

/// Reason to ask about a category whose score is near its threshold.
const UNCERTAIN: &str = "uncertain";

/// Range of uncertain scores, and weight of the second opinion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Band {
    low: f32,
    high: f32,
    /// `None` for that of the answer.
    weight: Option<f32>,
}

/// Answer of the language model about one category.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// Probability that the post belongs to the category.
    pub(crate) probability: f32,
    /// Minimum probability at which it does.
    pub(crate) threshold: f32,
    /// Divides the log-odds of the probability.
    pub(crate) temperature: f32,
    /// Its weight, unless the operator has set one.
    pub(crate) weight: f32,
    /// True for a guard's, whose probability is the score if no classifier has judged.
    pub(crate) is_of_guard: bool,
    /// The gap of a post of which it read only a part.
    pub(crate) gap: Option<&'static str>,
}

impl Band {
    /// Reads the settings.
    ///
    /// # Errors
    ///
    /// `internal` for an invalid one.
    pub(crate) fn read(settings: &Settings) -> Result<Band, Fault> {
        let unfit = |key: &str, expected: &str, found: f32| {
            Err(Fault::Internal(format!("setting `{key}`: expected {expected}, found `{found}`")))
        };
        let low = settings.get("cascade.low", LOW)?;
        let high = settings.get("cascade.high", HIGH)?;
        let key = "cascade.weight";
        let weight = settings.text(key).map(|_| settings.get(key, WEIGHT)).transpose()?;
        if low < 0.0 {
            return unfit("cascade.low", "a multiple of a threshold, 0 or more", low);
        }
        if high < low {
            return unfit("cascade.high", &format!("at least `cascade.low`, which is {low}"), high);
        }
        if let Some(weight) = weight.filter(|weight| !(0.0..=1.0).contains(weight)) {
            return unfit(key, "a number from 0 to 1", weight);
        }
        Ok(Band { low, high, weight })
    }

    /// The reason to ask about `rows`, the categories of one question, if there is one: the
    /// classifier cannot judge one that can be flagged, or the one nearest to being flagged, or
    /// furthest beyond, is uncertain.
    pub(crate) fn reason<'r>(
        &self,
        mut rows: impl Iterator<Item = &'r Row<'r>> + Clone,
    ) -> Option<&'static str> {
        let worst = rows.clone().filter_map(ratio).fold(0.0, f32::max);
        if rows.any(|row| row.threshold.is_some() && ratio(row).is_none()) {
            return Some(UNJUDGED);
        }
        self.contains(worst).then_some(UNCERTAIN)
    }

    /// Returns true if the language model's answer affects this category.
    pub(crate) fn is_open(&self, row: &Row<'_>) -> bool {
        ratio(row).is_none_or(|ratio| self.contains(ratio))
    }

    fn contains(&self, ratio: f32) -> bool {
        (self.low..self.high).contains(&ratio)
    }

    /// Combines the scores of the classifier and the language model.
    pub(crate) fn apply(&self, row: &mut Row<'_>, answer: Answer) {
        let own = row.threshold.unwrap_or(THRESHOLD);
        let is_alone = answer.is_of_guard && row.text.score().is_none();
        let language = logit(answer.probability) - logit(if is_alone { own } else { answer.threshold });
        let language = if is_alone { language } else { language / answer.temperature };
        let margin = match row.text.score() {
            Some(score) => {
                let classifier = logit(score) - logit(own);
                let weight = self.weight.unwrap_or(answer.weight);
                let both = classifier + weight * (language - classifier);
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
        Row::of_texts("harassment", threshold, text)
    }

    fn scored(score: f32) -> Finding {
        Finding::Score(score, Tier::Classifier)
    }

    const BAND: Band = Band { low: 0.1, high: 1.25, weight: None };

    fn answer(probability: f32, threshold: f32) -> Answer {
        Answer { probability, threshold, temperature: 1.0, weight: WEIGHT, is_of_guard: false, gap: None }
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
            let found = BAND.reason([&one, &other].into_iter());
            assert_eq!(found.is_some(), expected, "case {index}");
            let has_gap = index >= 6;
            assert!(found.is_none_or(|reason| (reason == UNJUDGED) == has_gap), "case {index}: {found:?}");
        }
        assert!(
            BAND.reason([&row(0.0, scored(0.0))].into_iter()).is_none(),
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
            Band { weight: Some(weight), ..BAND }.apply(&mut row, answer(probability, threshold));
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
        assert!(BAND.reason([&reported].into_iter()).is_none());
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
    fn temperature_divides_the_evidence_of_a_policy() {
        for (temperature, expected) in [(1.0, 0.75), (2.0, 0.633_975), (1_000.0, 0.500_275)] {
            let mut row = row(0.5, scored(0.5));
            BAND.apply(&mut row, Answer { temperature, ..answer(0.9, 0.5) });
            let found = row.text.score().unwrap();
            assert!((found - expected).abs() < 1e-4, "{temperature}: {found}");
        }
    }
}
