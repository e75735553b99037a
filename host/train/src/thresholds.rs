//! Thresholds with a guarantee for each category, and for each language of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, ensure};
use infer_engine::text::names;
use serde::Serialize;

use crate::control::{Bound, Controlled, Failure, control};
use crate::dataset::{Dataset, Example, Split};
use crate::metrics::{Decision, Scored, auroc, counts, decide};

/// Scores of a text by category.
pub type Scores = BTreeMap<String, f64>;

/// The examples to calibrate with.
#[derive(Clone, Debug)]
pub struct Sample<'d> {
    /// One example for each distinct text, in the order of the lines.
    pub examples: Vec<&'d Example>,
    /// Examples whose text stands in an earlier line; they would count twice.
    pub duplicates: usize,
    /// Examples of the split `train`: scores of texts that a model has learned are too good.
    pub trained: usize,
}

/// Thresholds of a category.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibrated {
    /// Name of the category.
    pub category: String,
    /// All examples.
    #[serde(flatten)]
    pub all: Part,
    /// The examples of each language that is given.
    pub languages: BTreeMap<String, Part>,
}

/// A threshold for a part of the examples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// Examples.
    pub examples: usize,
    /// Of these, positive ones.
    pub positive: usize,
    /// Probability that a positive example scores above a negative one.
    pub auroc: Option<f64>,
    /// The threshold.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Quality at the threshold.
    pub decision: Option<Decision>,
}

/// A threshold, or the reason that it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The bound holds at this threshold.
    Guarantee(Controlled),
    /// No threshold is known to respect the bound.
    Failure(Failure),
}

impl<'d> Sample<'d> {
    /// Selects the labelled examples of `data`.
    ///
    /// # Errors
    ///
    /// If there are none.
    pub fn new(data: &'d Dataset) -> anyhow::Result<Sample<'d>> {
        let mut sample = Sample { examples: Vec::new(), duplicates: 0, trained: 0 };
        let mut seen = HashMap::new();
        for example in data.examples.iter().filter(|example| !example.labels.is_empty()) {
            if example.split == Some(Split::Train) {
                sample.trained += 1;
            } else if seen.insert(example.text.as_str(), ()).is_some() {
                sample.duplicates += 1;
            } else {
                sample.examples.push(example);
            }
        }
        ensure!(
            !sample.examples.is_empty(),
            "`{}` has no labelled examples outside of the split `train`; expected lines such as {{\"text\": \"…\", \
             \"labels\": {{\"harassment\": true}}}}",
            data.name
        );
        Ok(sample)
    }

    /// Names of the categories that have labels.
    pub fn categories(&self) -> BTreeSet<&'d str> {
        self.examples.iter().flat_map(|example| example.labels.keys().map(String::as_str)).collect()
    }

    /// Chooses a threshold for each labelled category. `scores` has those of each example.
    ///
    /// # Errors
    ///
    /// If an example has no score of a category that it has a label of.
    pub fn calibrate(&self, scores: &[Scores], bound: &Bound) -> anyhow::Result<Vec<Calibrated>> {
        let mut calibrated = Vec::new();
        for category in self.categories() {
            let (mut all, mut languages): (Vec<Scored>, BTreeMap<String, Vec<Scored>>) = Default::default();
            for (example, scores) in self.examples.iter().zip(scores) {
                let Some(&truth) = example.labels.get(category) else { continue };
                let score = scores.get(category).with_context(|| {
                    format!(
                        "line {}: the component gives no score for `{category}`; expected one of {}",
                        example.line,
                        names(scores.keys())
                    )
                })?;
                let scored = Scored { score: *score, truth };
                all.push(scored);
                if let Some(language) = &example.language {
                    languages.entry(language.clone()).or_default().push(scored);
                }
            }
            let languages = languages.into_iter().map(|(name, scored)| (name, Part::new(&scored, bound)));
            calibrated.push(Calibrated {
                category: category.to_owned(),
                all: Part::new(&all, bound),
                languages: languages.collect(),
            });
        }
        Ok(calibrated)
    }
}

impl Part {
    fn new(scored: &[Scored], bound: &Bound) -> Part {
        let outcome = match control(scored, bound) {
            Ok(controlled) => Outcome::Guarantee(controlled),
            Err(failure) => Outcome::Failure(failure),
        };
        let decision = match outcome {
            Outcome::Guarantee(controlled) => decide(scored, controlled.threshold),
            Outcome::Failure(_) => None,
        };
        let positive = counts(scored).0;
        Part { examples: scored.len(), positive, auroc: auroc(scored), outcome, decision }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Rate;

    const BOUND: Bound = Bound { rate: Rate::FalsePositive, max: 0.1, confidence: 0.9 };

    fn example(line: usize, label: bool, language: Option<&str>, split: Option<Split>) -> Example {
        Example {
            line,
            text: line.to_string(),
            labels: BTreeMap::from([("spam".to_owned(), label)]),
            group: None,
            split,
            language: language.map(str::to_owned),
            answer: None,
        }
    }

    fn data(examples: Vec<Example>) -> Dataset {
        let (name, sha256) = ("posts.jsonl".to_owned(), String::new());
        Dataset { name, sha256, examples, other_labels: Default::default() }
    }

    #[test]
    fn languages_have_thresholds_of_their_own() {
        let examples = (0..120).map(|line| {
            let language = if line < 80 {
                "en"
            } else if line < 110 {
                "de"
            } else {
                "fr"
            };
            example(line, line % 4 == 0, Some(language), None)
        });
        let data = data(examples.collect());
        let sample = Sample::new(&data).unwrap();
        let score = |example: &&Example| {
            let base = if example.labels["spam"] { 0.9 } else { 0.2 };
            let other = if example.language.as_deref() == Some("de") { 0.05 } else { 0.0 };
            Scores::from([("spam".to_owned(), base + other)])
        };
        let scores: Vec<_> = sample.examples.iter().map(score).collect();
        let [spam] = &sample.calibrate(&scores, &BOUND).unwrap()[..] else { panic!("one category") };
        let threshold = |part: &Part| match part.outcome {
            Outcome::Guarantee(controlled) => Some(controlled.threshold),
            Outcome::Failure(_) => None,
        };
        assert_eq!((spam.all.examples, spam.all.positive, spam.all.auroc), (120, 30, Some(1.0)));
        let (all, english, german) =
            (threshold(&spam.all), threshold(&spam.languages["en"]), threshold(&spam.languages["de"]));
        assert!(all.unwrap() > 0.25 && english.unwrap() < 0.25 && german.unwrap() > 0.25);
        let failure = Outcome::Failure(Failure::TooSmall { found: 8, needed: 22 });
        assert_eq!(spam.languages["fr"].outcome, failure);
        assert_eq!(spam.all.decision.unwrap().recall, 1.0);
    }

    #[test]
    fn repeated_and_learned_texts_do_not_count() {
        let mut examples = vec![example(1, true, None, Some(Split::Train)), example(2, true, None, None)];
        examples.push(Example { line: 3, ..examples[1].clone() });
        examples.push(example(4, false, None, Some(Split::Test)));
        let data = data(examples);
        let sample = Sample::new(&data).unwrap();
        assert_eq!((sample.examples.len(), sample.duplicates, sample.trained), (2, 1, 1));
        let error = sample.calibrate(&vec![Scores::from([("hate".to_owned(), 0.5)]); 2], &BOUND).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2: the component gives no score for `spam`; expected one of `hate`"
        );
    }

    #[test]
    fn data_without_labels_are_rejected() {
        let mut only = example(1, true, None, None);
        only.labels.clear();
        assert!(Sample::new(&data(vec![only])).unwrap_err().to_string().contains("no labelled examples"));
    }
}
