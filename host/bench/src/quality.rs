//! Accuracy of answers, against a dataset's labels.

use infer_engine::text::names;
use infer_train::metrics::{Scored, auroc, calibration_error};
use serde::Serialize;

use crate::answer::Said;
use crate::item::{Example, Label};

/// Accuracy of the answers to a dataset's labelled examples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Quality {
    /// Labelled examples that got an answer.
    pub(super) examples: usize,
    /// Those of them whose label is positive: to be flagged, or the first choice.
    pub(super) positives: usize,
    /// Labelled examples in the file.
    pub(super) of: usize,
    /// Examples without an answer.
    pub(super) errors: usize,
    /// Fraction of correct decisions.
    pub(super) accuracy: f64,
    /// Probability that a positive example scores above a negative one, ties counting half; `None`
    /// if all labels are alike.
    pub(super) auroc: Option<f64>,
    /// Harmonic mean of precision and recall; `None` if all labels are alike.
    pub(super) f1: Option<f64>,
    /// Expected calibration error over ten equal bins: the mean distance between score and observed
    /// frequency.
    pub(super) calibration_error: f64,
}

/// An answer and its label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    /// Probability that the example is positive, by the answer; for classes, that the label is
    /// correct.
    score: f64,
    decided: bool,
    truth: bool,
    /// True if labels are positive or negative, false for classes.
    binary: bool,
}

/// Pairs the answer `said` with the label of `example`.
///
/// # Errors
///
/// If they cannot be compared, such as when the answer lacks the example's category.
pub(super) fn point(example: &Example, said: &Said) -> Result<Point, String> {
    let category = example.category.as_deref();
    match (&example.label, said) {
        (Some(Label::Flagged(truth)), Said::Verdict { categories, flagged }) => {
            let (score, decided) = match category {
                Some(name) => {
                    let of = categories.iter().find(|decision| decision.category == name);
                    let of = of.ok_or_else(|| {
                        let known = categories.iter().map(|decision| decision.category.as_str());
                        missing(name, known)
                    })?;
                    (of.score, of.flagged)
                }
                None => (categories.iter().map(|decision| decision.score).fold(0.0, f64::max), *flagged),
            };
            Ok(Point { score, decided, truth: *truth, binary: true })
        }
        (Some(Label::Flagged(truth)), Said::Choices(choices)) if !choices.is_empty() => {
            let score = choices[0];
            Ok(Point { score, decided: score >= 0.5, truth: *truth, binary: true })
        }
        (Some(Label::Choice(index)), Said::Choices(choices)) if *index < choices.len() => {
            let (score, own) = (choices[0], choices[*index]);
            let right = choices.iter().all(|other| *other <= own);
            let binary = choices.len() == 2;
            let truth = if binary { *index == 0 } else { right };
            Ok(if binary {
                Point { score, decided: right == truth, truth, binary }
            } else {
                Point {
                    score: choices.iter().copied().fold(0.0, f64::max),
                    decided: true,
                    truth: right,
                    binary,
                }
            })
        }
        (Some(Label::Flagged(truth)), Said::Scores(scores)) => {
            let name = category.unwrap_or_default();
            let of = scores.iter().find(|(label, _)| label == name);
            let of = of.ok_or_else(|| missing(name, scores.iter().map(|(label, _)| label.as_str())));
            let score = of?.1;
            Ok(Point { score, decided: score >= 0.5, truth: *truth, binary: true })
        }
        (Some(Label::Class(class)), Said::Scores(scores)) if !scores.is_empty() => {
            let best = scores.iter().max_by(|a, b| a.1.total_cmp(&b.1));
            let (score, truth) = best.map_or((0.0, false), |(name, score)| (*score, name == class));
            Ok(Point { score, decided: true, truth, binary: false })
        }
        (Some(Label::Class(class)), Said::Label { name, score }) => {
            Ok(Point { score: *score, decided: true, truth: name == class, binary: false })
        }
        _ => Err("an answer of another kind than the label".to_owned()),
    }
}

fn missing<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    format!("an answer without the category `{name}`; it has {}", names(known))
}

/// Metrics of `points`, or `None` if there are none. `of` is the number of labelled examples.
pub(super) fn judge(points: &[Point], of: usize, errors: usize) -> Option<Quality> {
    let binary = points.first()?.binary;
    let count = |keep: &dyn Fn(&Point) -> bool| points.iter().filter(|point| keep(point)).count();
    let positives = count(&|point| point.truth);
    let right = count(&|point| point.decided == point.truth);
    let both = binary && positives > 0 && positives < points.len();
    let hits = count(&|point| point.decided && point.truth);
    let wrong = points.len() - right;
    let scored = |point: &Point| Scored { score: point.score, truth: point.truth };
    let scored: Vec<_> = points.iter().map(scored).collect();
    Some(Quality {
        examples: points.len(),
        positives,
        of,
        errors,
        accuracy: right as f64 / points.len() as f64,
        auroc: auroc(&scored).filter(|_| binary),
        f1: both.then(|| 2.0 * hits as f64 / (2 * hits + wrong) as f64),
        calibration_error: calibration_error(&scored)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Decision;

    fn point(score: f64, decided: bool, truth: bool) -> Point {
        Point { score, decided, truth, binary: true }
    }

    #[test]
    fn known_answers_have_known_figures() {
        // By hand: of nine pairs, five are in order and one is tied; two hits, one miss, one false
        // alarm.
        let points = [
            point(0.1, false, false),
            point(0.4, false, false),
            point(0.35, false, true),
            point(0.8, true, true),
            point(0.4, true, true),
            point(0.6, true, false),
        ];
        let quality = judge(&points, 10, 1).unwrap();
        assert!((quality.auroc.unwrap() - 0.611_111).abs() < 1e-5, "{quality:?}");
        assert!((quality.f1.unwrap() - 0.666_667).abs() < 1e-5, "{quality:?}");
        assert!((quality.accuracy - 0.666_667).abs() < 1e-5, "{quality:?}");
        // Bins 0.1: |0.1-0|, 0.3: |0.35-1|, 0.4: |0.8-1|, 0.6: |0.6-0|, 0.8: |0.8-1|.
        assert!(
            (quality.calibration_error - (0.1 + 0.65 + 0.2 + 0.6 + 0.2) / 6.0).abs() < 1e-9,
            "{quality:?}"
        );
        assert_eq!((quality.examples, quality.positives, quality.of, quality.errors), (6, 3, 10, 1));
    }

    #[test]
    fn single_label_has_no_ranking() {
        let quality = judge(&[point(1.0, true, true), point(0.9, true, true)], 2, 0).unwrap();
        assert_eq!((quality.auroc, quality.f1, quality.accuracy), (None, None, 1.0));
        assert_eq!(judge(&[], 2, 2), None);
    }

    #[test]
    fn answers_are_compared_with_their_labels() {
        let example = |label, category: Option<&str>| Example {
            item: crate::item::Item::Text(String::new()),
            label: Some(label),
            category: category.map(str::to_owned),
        };
        let decision =
            |category: &str, score, flagged| Decision { category: category.into(), score, flagged };
        let categories = vec![decision("hate", 0.2, true), decision("sexual", 0.7, false)];
        let verdict = Said::Verdict { categories, flagged: false };
        let choices = Said::Choices(vec![0.3, 0.7]);
        let label = Said::Label { name: "espresso".into(), score: 0.9 };
        let scores = Said::Scores(vec![("spam".into(), 0.6), ("ham".into(), 0.4)]);
        let cases = [
            (example(Label::Flagged(true), None), &verdict, Some((0.7, false, true))),
            (example(Label::Flagged(true), Some("hate")), &verdict, Some((0.2, true, true))),
            (example(Label::Flagged(true), Some("none")), &verdict, None),
            (example(Label::Choice(0), None), &choices, Some((0.3, false, true))),
            (example(Label::Choice(1), None), &choices, Some((0.3, false, false))),
            (example(Label::Flagged(false), None), &choices, Some((0.3, false, false))),
            (example(Label::Class("espresso".into()), None), &label, Some((0.9, true, true))),
            (example(Label::Class("cup".into()), None), &label, Some((0.9, true, false))),
            (example(Label::Class("cup".into()), None), &verdict, None),
            (example(Label::Class("spam".into()), None), &scores, Some((0.6, true, true))),
            (example(Label::Class("ham".into()), None), &scores, Some((0.6, true, false))),
            (example(Label::Flagged(true), Some("ham")), &scores, Some((0.4, false, true))),
            (example(Label::Flagged(false), Some("spam")), &scores, Some((0.6, true, false))),
            (example(Label::Flagged(true), None), &scores, None),
        ];
        for (index, (example, said, expected)) in cases.into_iter().enumerate() {
            let found = super::point(&example, said).map(|point| (point.score, point.decided, point.truth));
            assert_eq!(found.ok(), expected, "case {index}");
        }
    }
}
