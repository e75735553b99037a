//! The use of a language model behind a classifier, fitted to labelled texts.
//!
//! First the answers of each question are calibrated. Then the band and the weight are chosen by
//! search: of the bands that send at most a share of the texts to the language model, triggers
//! included, the one whose scores have the highest mean AUROC over the categories.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::calibration;
use crate::limits::{MAX_BANDS, MIN_CALIBRATION_EXAMPLES};
use crate::logistic::sigmoid;
use crate::metrics::{Scored, auroc, counts};

/// Weights of the language model that are tried, in tenths.
const WEIGHTS: std::ops::RangeInclusive<u32> = 0..=10;

/// Range of the settings `policy.temperature` and `policy.threshold`.
const TEMPERATURES: [f64; 2] = [0.01, 1_000.0];
const CUTS: [f64; 2] = [1e-4, 1.0 - 1e-4];

/// A gain of the mean AUROC below this is not worth more questions.
const LEAST_GAIN: f64 = 1e-3;

/// Judgements of one category of one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Opinions {
    /// The category.
    pub category: String,
    /// The question that judges it; questions have the calibration of their answers in common.
    pub question: String,
    /// The threshold of the category.
    pub threshold: f64,
    /// The classifier's score.
    pub classifier: f64,
    /// The language model's probability.
    pub language: f64,
    /// True if a trigger sends the question to the language model.
    pub is_triggered: bool,
    /// The label, if the text has one for the category.
    pub truth: Option<bool>,
}

/// The calibration of a question's answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Question {
    /// Divides the log-odds of an answer.
    pub temperature: f64,
    /// The probability at which a label is as likely to hold as not.
    pub threshold: f64,
}

/// Ranking of one category.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ranking {
    /// Labelled texts.
    pub examples: usize,
    /// Of these, positive ones.
    pub positive: usize,
    /// AUROC of the classifier's score.
    pub classifier: f64,
    /// AUROC of the language model's probability.
    pub language: f64,
    /// AUROC of the scores of both, with the chosen settings.
    pub cascade: f64,
}

/// The chosen settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fitted {
    /// `cascade.low`.
    pub low: f64,
    /// `cascade.high`.
    pub high: f64,
    /// `cascade.weight`.
    pub weight: f64,
    /// Calibration by question.
    pub questions: BTreeMap<String, Question>,
    /// Share of the texts that reach the language model.
    pub reached: f64,
    /// Share of the texts that a trigger sends there, which `reached` includes.
    pub triggered: f64,
    /// Ranking by category.
    pub categories: BTreeMap<String, Ranking>,
}

/// A category of a text, on the scale of log-odds relative to its threshold.
struct Margins<'o> {
    question: &'o str,
    /// The classifier's score as a multiple of the threshold.
    ratio: f64,
    classifier: f64,
    language: f64,
}

/// A band of ratios, and the weight of the language model.
#[derive(Clone, Copy)]
struct Settings {
    low: f64,
    high: f64,
    weight: f64,
}

/// Fits the use of the language model to `texts`, each with its judged categories, so that at most
/// the share `budget` of them reaches it.
///
/// # Errors
///
/// If a question has too few labelled texts of either kind or answers no better than chance, or
/// triggers alone exceed the budget.
pub fn fit(texts: &[Vec<Opinions>], budget: f64) -> anyhow::Result<Fitted> {
    ensure!(!texts.is_empty(), "no text was judged");
    let questions = calibrate(texts)?;
    let total = texts.len() as f64;
    let triggered =
        texts.iter().filter(|text| text.iter().any(|own| own.is_triggered)).count() as f64 / total;
    ensure!(
        triggered <= budget,
        "triggers alone send {:.1} % of the texts to the language model, more than the budget of {:.1} %; remove some \
         from the setting `cascade.triggers`",
        100.0 * triggered,
        100.0 * budget
    );
    let margins: Vec<Vec<_>> =
        texts.iter().map(|text| text.iter().map(|own| margins(own, &questions)).collect()).collect();
    let labelled: BTreeSet<&str> =
        texts.iter().flatten().filter(|own| own.truth.is_some()).map(|own| own.category.as_str()).collect();
    let mean = |settings: Settings| {
        let of = |category: &&str| auroc(&ranked(texts, &margins, category, settings));
        let all: Vec<_> = labelled.iter().filter_map(of).collect();
        all.iter().sum::<f64>() / all.len().max(1) as f64
    };
    let none = Settings { low: 0.0, high: 0.0, weight: 0.0 };
    let mut best = (none, mean(none), triggered);
    for (low, high) in bands(texts, &margins, budget) {
        let reached = reached(texts, &margins, low, high);
        for weight in WEIGHTS {
            let settings = Settings { low, high, weight: f64::from(weight) / 10.0 };
            let found = mean(settings);
            let gain = found - best.1;
            if gain > LEAST_GAIN || (gain >= 0.0 && reached < best.2) {
                best = (settings, found, reached);
            }
        }
    }
    let (settings, _, reached) = best;
    let figures = |category: &&str| {
        let figure = |settings| auroc(&ranked(texts, &margins, category, settings));
        let all = Settings { low: 0.0, high: f64::INFINITY, weight: 1.0 };
        let scored = ranked(texts, &margins, category, settings);
        let (positive, negative) = counts(&scored);
        let ranking = Ranking {
            examples: positive + negative,
            positive,
            classifier: figure(Settings { weight: 0.0, ..settings })?,
            language: figure(all)?,
            cascade: figure(settings)?,
        };
        Some(((*category).to_owned(), ranking))
    };
    let categories = labelled.iter().filter_map(figures).collect();
    let Settings { low, high, weight } = settings;
    Ok(Fitted { low, high, weight, questions, reached, triggered, categories })
}

/// Calibrates the answers of each question to the labels of its categories.
fn calibrate(texts: &[Vec<Opinions>]) -> anyhow::Result<BTreeMap<String, Question>> {
    let mut answers: BTreeMap<&str, Vec<Scored>> = BTreeMap::new();
    for own in texts.iter().flatten() {
        let of = answers.entry(&own.question).or_default();
        of.extend(own.truth.map(|truth| Scored { score: logit(own.language), truth }));
    }
    let fitted = answers.into_iter().map(|(question, scored)| {
        let (positive, negative) = counts(&scored);
        ensure!(
            positive.min(negative) >= MIN_CALIBRATION_EXAMPLES,
            "question `{question}`: expected at least {MIN_CALIBRATION_EXAMPLES} labelled texts of each kind, found \
             {positive} positive and {negative} negative"
        );
        let ranking = auroc(&scored).unwrap_or_default();
        ensure!(
            ranking > 0.5,
            "question `{question}`: the language model orders the texts no better than chance (AUROC {ranking:.3}); \
             change the policy, or remove it"
        );
        let fitted = calibration::fit(&scored).context("a calibration needs both kinds")?;
        let temperature = fitted.temperature.clamp(TEMPERATURES[0], TEMPERATURES[1]);
        let threshold = sigmoid(-fitted.shift * temperature).clamp(CUTS[0], CUTS[1]);
        Ok((question.to_owned(), Question { temperature, threshold }))
    });
    fitted.collect()
}

fn margins<'o>(own: &'o Opinions, questions: &BTreeMap<String, Question>) -> Margins<'o> {
    let Question { temperature, threshold } =
        questions.get(&own.question).copied().unwrap_or(Question { temperature: 1.0, threshold: 0.5 });
    Margins {
        question: &own.question,
        ratio: if own.threshold > 0.0 { own.classifier / own.threshold } else { f64::INFINITY },
        classifier: logit(own.classifier) - logit(own.threshold),
        language: (logit(own.language) - logit(threshold)) / temperature,
    }
}

/// The scores of the labelled texts of `category`, as the guest combines them.
fn ranked(
    texts: &[Vec<Opinions>],
    margins: &[Vec<Margins<'_>>],
    category: &str,
    settings: Settings,
) -> Vec<Scored> {
    let Settings { low, high, weight } = settings;
    let mut scored = Vec::new();
    for (text, margins) in texts.iter().zip(margins) {
        for (own, margin) in text.iter().zip(margins).filter(|(own, _)| own.category == category) {
            let Some(truth) = own.truth else { continue };
            let is_fired = text.iter().any(|own| own.is_triggered && own.question == margin.question);
            let is_asked = is_fired || is_uncertain(margins, margin.question, low, high);
            let is_open = is_fired || (low..high).contains(&margin.ratio);
            let weight = if is_asked && is_open { weight } else { 0.0 };
            scored.push(Scored {
                score: margin.classifier + weight * (margin.language - margin.classifier),
                truth,
            });
        }
    }
    scored
}

/// True if the highest ratio of the categories of a question is in the band.
fn is_uncertain(margins: &[Margins<'_>], question: &str, low: f64, high: f64) -> bool {
    (low..high).contains(&worst(margins, question))
}

fn worst(margins: &[Margins<'_>], question: &str) -> f64 {
    let of = margins.iter().filter(|margin| margin.question == question);
    of.map(|margin| margin.ratio).fold(0.0, f64::max)
}

/// Share of the texts that reach the language model.
fn reached(texts: &[Vec<Opinions>], margins: &[Vec<Margins<'_>>], low: f64, high: f64) -> f64 {
    let is_asked = |(text, margins): &(&Vec<Opinions>, &Vec<Margins<'_>>)| {
        text.iter().any(|own| own.is_triggered)
            || margins.iter().any(|margin| is_uncertain(margins, margin.question, low, high))
    };
    texts.iter().zip(margins).filter(is_asked).count() as f64 / texts.len() as f64
}

/// The bands to try: for each of at most [`MAX_BANDS`] lower ends, the highest upper end that keeps
/// the budget. The ends are at quantiles of the ratios.
fn bands(texts: &[Vec<Opinions>], margins: &[Vec<Margins<'_>>], budget: f64) -> Vec<(f64, f64)> {
    let mut ratios: Vec<f64> = margins
        .iter()
        .flat_map(|text| text.iter().map(|margin| worst(text, margin.question)))
        .filter(|ratio| ratio.is_finite())
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios.dedup();
    let step = ratios.len().div_ceil(MAX_BANDS).max(1);
    let mut ends: Vec<f64> = ratios.iter().copied().step_by(step).collect();
    // The first band may begin at 0, and the last end beyond all ratios.
    ends.insert(0, 0.0);
    ends.extend(ratios.last().map(|last| last * 1.01));
    // The settings are numbers of f32.
    let ends: Vec<f64> = ends.into_iter().map(|end| f64::from(end as f32)).collect();
    let mut bands = Vec::new();
    for (index, &low) in ends.iter().enumerate() {
        let further = &ends[index..];
        // A higher end never sends fewer texts.
        let within = further.partition_point(|&high| reached(texts, margins, low, high) <= budget);
        if let Some(&high) =
            within.checked_sub(1).and_then(|last| further.get(last)).filter(|high| **high > low)
        {
            bands.push((low, high));
        }
    }
    bands
}

/// Log-odds, limited as the guest limits them.
fn logit(probability: f64) -> f64 {
    let probability = probability.clamp(1e-6, 1.0 - 1e-6);
    (probability / (1.0 - probability)).ln()
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    fn opinions(category: &str, classifier: f64, language: f64, truth: bool) -> Opinions {
        Opinions {
            category: category.to_owned(),
            question: category.to_owned(),
            threshold: 0.5,
            classifier,
            language,
            is_triggered: false,
            truth: Some(truth),
        }
    }

    /// Texts on which the classifier and the language model make independent errors: normal
    /// log-odds with the given distances between the kinds.
    fn texts(count: usize, classifier: f64, language: f64) -> Vec<Vec<Opinions>> {
        let mut random = Rng::with_seed(5);
        let mut normal = move || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        (0..count)
            .map(|index| {
                let truth = index % 3 == 0;
                let sign = if truth { 0.5 } else { -0.5 };
                let mut score = |distance: f64| sigmoid(normal() + sign * distance);
                vec![opinions("hate", score(classifier), score(language), truth)]
            })
            .collect()
    }

    #[test]
    fn budget_is_spent_where_it_helps() {
        let texts = texts(900, 1.5, 2.5);
        let mut before = 0.0;
        for budget in [0.05, 0.2, 0.5, 1.0] {
            let Fitted { low, high, reached, categories, .. } = fit(&texts, budget).unwrap();
            let hate = categories["hate"];
            assert!(reached <= budget && reached > 0.4 * budget, "{budget}: {reached}");
            assert!(low < high && hate.cascade > before, "{budget}: {hate:?}");
            assert_eq!((hate.examples, hate.positive), (900, 300));
            before = hate.cascade;
        }
        let hate = fit(&texts, 1.0).unwrap().categories["hate"];
        assert!(hate.cascade > hate.language.max(hate.classifier) + 0.005, "{hate:?}");
    }

    #[test]
    fn useless_answers_are_rejected() {
        let mut texts = texts(600, 2.0, 0.0);
        for own in texts.iter_mut().flatten() {
            own.language = if own.truth == Some(true) { 0.4 } else { 0.6 };
        }
        let error = fit(&texts, 0.5).unwrap_err().to_string();
        assert!(error.contains("no better than chance (AUROC 0.000); change the policy"), "{error}");
    }

    #[test]
    fn overconfident_answers_get_a_temperature() {
        let mut texts = texts(900, 1.0, 2.0);
        let calm = fit(&texts, 1.0).unwrap();
        for own in texts.iter_mut().flatten() {
            own.language = sigmoid(3.0 * logit(own.language) + 2.0);
        }
        let hot = fit(&texts, 1.0).unwrap();
        let [calm, hot] =
            [calm, hot].map(|fitted| (fitted.questions["hate"], fitted.categories["hate"].cascade));
        assert!((hot.0.temperature / calm.0.temperature - 3.0).abs() < 0.05, "{hot:?} {calm:?}");
        // The shift moves with the answers: 3 times the cut, and 2.
        let expected = 3.0 * logit(calm.0.threshold) + 2.0;
        assert!((logit(hot.0.threshold) - expected).abs() < 0.1, "{hot:?} {calm:?}");
        assert!((hot.1 - calm.1).abs() < 0.005, "{hot:?} {calm:?}");
    }

    #[test]
    fn triggers_count_against_the_budget() {
        let mut texts = texts(300, 1.0, 3.0);
        for text in texts.iter_mut().take(60) {
            text[0].is_triggered = true;
        }
        let fitted = fit(&texts, 0.3).unwrap();
        assert!(fitted.triggered == 0.2 && fitted.reached > 0.25 && fitted.reached <= 0.3, "{fitted:?}");
        let error = fit(&texts, 0.1).unwrap_err().to_string();
        assert!(error.starts_with("triggers alone send 20.0 % of the texts"), "{error}");
    }

    #[test]
    fn highest_category_of_a_question_decides() {
        let asked = |ratios: [f64; 2]| {
            let [one, other] = ratios.map(|ratio| Opinions {
                question: "both".to_owned(),
                ..opinions("a", ratio * 0.5, 0.5, true)
            });
            let texts = vec![vec![one, Opinions { category: "b".to_owned(), ..other }]];
            let none = BTreeMap::new();
            let margins = vec![texts[0].iter().map(|own| margins(own, &none)).collect()];
            reached(&texts, &margins, 0.1, 1.25)
        };
        assert_eq!([asked([0.05, 0.5]), asked([0.5, 1.5]), asked([0.05, 0.01])], [1.0, 0.0, 0.0]);
    }

    #[test]
    fn too_few_labels_are_an_error() {
        let error = fit(&texts(12, 1.0, 1.0), 0.5).unwrap_err().to_string();
        assert_eq!(
            error,
            "question `hate`: expected at least 5 labelled texts of each kind, found 4 positive and 8 negative"
        );
    }
}
