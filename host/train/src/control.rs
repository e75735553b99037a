//! A threshold whose error rate has a guaranteed bound.
//!
//! The candidates are fixed before any data are seen. They are tested one after the other, the
//! safest first: the hypothesis that a candidate's error rate exceeds the bound is rejected if the
//! Clopper–Pearson upper bound of the rate is at most the bound. The first candidate that fails
//! ends the sequence, and the last that passed is chosen. Every test has the full confidence,
//! because a wrong threshold can only be chosen if the first wrong candidate passes: fixed-sequence
//! testing, as in "Learn then Test" (Angelopoulos et al. 2021). It holds for examples that are
//! drawn independently from the same source as the later texts.

use serde::Serialize;

use crate::binomial;
use crate::metrics::Scored;

/// Range of the candidates on the scale of log-odds: thresholds from 0.000006 to 0.999994.
const LAST_LOGIT: f64 = 12.0;

/// Candidates for each unit of log-odds.
const PER_UNIT: i32 = 32;

/// The error rate to bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rate {
    /// Share of the negatives that are flagged. The lowest threshold is chosen.
    FalsePositive,
    /// Share of the positives that are not flagged. The highest threshold is chosen.
    FalseNegative,
}

/// A bound that holds with a confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bound {
    /// The error rate.
    pub rate: Rate,
    /// Its maximum, between 0 and 1.
    pub max: f64,
    /// Probability that the chosen threshold respects the maximum, between 0 and 1.
    pub confidence: f64,
}

/// The chosen threshold. Content is flagged if `score >= threshold`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Controlled {
    /// Minimum score of flagged content; exactly representable in f32.
    pub threshold: f64,
    /// Errors in the data at this threshold.
    pub errors: usize,
    /// Examples that could be such errors.
    pub of: usize,
    /// Upper bound of the error rate at the confidence.
    pub upper: f64,
}

/// The reason why there is no threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum Failure {
    /// Even without an error, this many examples do not show that the bound holds.
    TooSmall {
        /// Examples that could be such errors.
        found: usize,
        /// Examples that are needed if none of them is an error.
        needed: usize,
    },
    /// The safest candidate already has too many errors.
    Unreachable {
        /// Errors at that candidate.
        errors: usize,
        /// Examples that could be such errors.
        of: usize,
    },
}

/// Chooses the threshold for `scored`.
///
/// # Errors
///
/// If no candidate respects the bound.
pub fn control(scored: &[Scored], bound: &Bound) -> Result<Controlled, Failure> {
    let is_relevant = |one: &&Scored| one.truth == (bound.rate == Rate::FalseNegative);
    let mut scores: Vec<_> = scored.iter().filter(is_relevant).map(|one| one.score).collect();
    scores.sort_by(f64::total_cmp);
    let of = scores.len();
    let needed = binomial::needed(bound.max, bound.confidence);
    if of < needed {
        return Err(Failure::TooSmall { found: of, needed });
    }
    let errors_at = |threshold: f64| {
        let below = scores.partition_point(|score| *score < threshold);
        if bound.rate == Rate::FalsePositive { of - below } else { below }
    };
    let mut chosen = None;
    let mut failed = 0;
    for threshold in candidates(bound.rate) {
        let errors = errors_at(threshold);
        if binomial::tail(errors, of, bound.max) > 1.0 - bound.confidence {
            failed = errors;
            break;
        }
        chosen = Some((threshold, errors));
    }
    let (threshold, errors) = chosen.ok_or(Failure::Unreachable { errors: failed, of })?;
    Ok(Controlled { threshold, errors, of, upper: binomial::upper_bound(errors, of, bound.confidence) })
}

/// The candidates, the safest first.
fn candidates(rate: Rate) -> impl Iterator<Item = f64> {
    let last = (LAST_LOGIT * f64::from(PER_UNIT)) as i32;
    let sign = if rate == Rate::FalsePositive { -1 } else { 1 };
    let logits = (-last..=last).map(move |step| f64::from(sign * step) / f64::from(PER_UNIT));
    logits.map(|logit| f64::from(crate::logistic::sigmoid(logit) as f32))
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const BOUND: Bound = Bound { rate: Rate::FalsePositive, max: 0.01, confidence: 0.95 };

    /// Share of `resamples` in which the threshold that is chosen on one sample keeps the bound on
    /// the whole population.
    fn held(population: &[Scored], bound: &Bound, size: usize, resamples: usize) -> f64 {
        let is_relevant = |one: &&Scored| one.truth == (bound.rate == Rate::FalseNegative);
        let relevant: Vec<_> = population.iter().filter(is_relevant).collect();
        let mut held = 0;
        for seed in 0..resamples {
            let mut random = Rng::with_seed(seed as u64);
            let sample: Vec<_> = (0..size).map(|_| population[random.usize(..population.len())]).collect();
            let Ok(controlled) = control(&sample, bound) else {
                held += 1;
                continue;
            };
            let is_error = |one: &&&Scored| (one.score >= controlled.threshold) != one.truth;
            let errors = relevant.iter().filter(is_error).count();
            held += usize::from(errors as f64 <= bound.max * relevant.len() as f64);
        }
        held as f64 / resamples as f64
    }

    fn normal(random: &mut Rng) -> f64 {
        (0..12).map(|_| random.f64()).sum::<f64>() - 6.0
    }

    fn synthetic() -> Vec<Scored> {
        let mut random = Rng::with_seed(1);
        (0..100_000)
            .map(|index| {
                let truth = index % 5 == 0;
                let logit = normal(&mut random) * 2.0 + if truth { 1.5 } else { -2.5 };
                Scored { score: crate::logistic::sigmoid(logit), truth }
            })
            .collect()
    }

    #[test]
    fn bound_holds_in_resamples_of_a_synthetic_distribution() {
        let population = synthetic();
        for (bound, size) in [
            (BOUND, 1_000),
            (BOUND, 4_000),
            (Bound { max: 0.05, ..BOUND }, 400),
            (Bound { rate: Rate::FalseNegative, max: 0.1, ..BOUND }, 1_000),
        ] {
            let held = held(&population, &bound, size, 1_000);
            assert!(held >= 0.95, "{bound:?} with {size} examples: held in {held}");
        }
    }

    /// Scores of a text model for 2,000 posts: tests/scripts/score_distribution.py writes them.
    fn real() -> Vec<Scored> {
        let scores: Vec<(f64, u8)> = serde_json::from_str(include_str!("scores.json")).unwrap();
        let scored =
            |(logit, label)| Scored { score: crate::logistic::sigmoid(logit / 100.0), truth: label == 1 };
        scores.into_iter().map(scored).collect()
    }

    #[test]
    fn bound_holds_in_resamples_of_a_real_distribution() {
        let population = real();
        assert_eq!(population.len(), 2_000);
        for (bound, size) in [
            (BOUND, 1_000),
            (BOUND, 2_000),
            (Bound { max: 0.05, ..BOUND }, 500),
            (Bound { rate: Rate::FalseNegative, max: 0.1, ..BOUND }, 1_000),
        ] {
            let held = held(&population, &bound, size, 1_000);
            assert!(held >= 0.95, "{bound:?} with {size} examples: held in {held}");
        }
    }

    #[test]
    fn threshold_is_not_wasteful() {
        let population = synthetic();
        let large = control(&population, &BOUND).unwrap();
        assert!(large.upper <= 0.01 && large.upper > 0.009, "{large:?}");
        assert!(large.errors as f64 / large.of as f64 > 0.008, "{large:?}");
    }

    #[test]
    fn small_data_name_the_needed_number() {
        let mut scored = vec![Scored { score: 0.1, truth: false }; 298];
        let failure = control(&scored, &BOUND).unwrap_err();
        assert_eq!(failure, Failure::TooSmall { found: 298, needed: 299 });
        scored.push(Scored { score: 0.1, truth: false });
        let controlled = control(&scored, &BOUND).unwrap();
        assert!(controlled.threshold > 0.1 && controlled.threshold < 0.11, "{controlled:?}");
        assert_eq!((controlled.errors, controlled.of), (0, 299));
    }

    #[test]
    fn confident_errors_are_unreachable() {
        let scored = vec![Scored { score: 1.0, truth: false }; 400];
        assert_eq!(control(&scored, &BOUND).unwrap_err(), Failure::Unreachable { errors: 400, of: 400 });
        let missed = vec![Scored { score: 0.0, truth: true }; 400];
        let bound = Bound { rate: Rate::FalseNegative, ..BOUND };
        assert_eq!(control(&missed, &bound).unwrap_err(), Failure::Unreachable { errors: 400, of: 400 });
    }
}
