//! A head from embeddings and labels: cross-validated regularisation, calibration, threshold.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde::Serialize;

use crate::calibration::{self, Calibration};
use crate::features::Features;
use crate::folds;
use crate::limits::{MIN_CALIBRATION_EXAMPLES, MIN_EXAMPLES_OF_KIND};
use crate::logistic::{Problem, Regression, fit, log_loss};
use crate::metrics::{self, Decision, Scored, counts};

/// Maximum number of folds.
const FOLDS: usize = 5;

/// Values of `C` to choose from, two for each power of ten, the strongest penalty first.
const PENALTIES: [f64; 10] = [0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0];

/// Weaker penalties that may be worse in a row before the search ends.
const PATIENCE: usize = 2;

/// Gradient at which the fit of a fold ends.
const FOLD_TOLERANCE: f64 = 1e-5;

/// Gradient at which the fit of the head ends.
const TOLERANCE: f64 = 1e-8;

/// Weights of the two classes in the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// Both classes weigh the same in total.
    Balanced,
    /// All examples weigh the same.
    None,
}

/// Examples to train on.
#[derive(Clone, Copy, Debug)]
pub struct Training<'a> {
    /// Embeddings of all examples.
    pub features: &'a Features,
    /// Labels of all examples.
    pub truths: &'a [bool],
    /// Keys of all examples; examples of one key are never on both sides of a split.
    pub groups: &'a [String],
    /// The examples to fit to.
    pub examples: &'a [usize],
    /// Weights of the classes.
    pub class_weights: ClassWeights,
}

/// A trained head, and what it says about examples that it was not fitted to.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The regression on all examples.
    pub regression: Regression,
    /// Chosen inverse of the penalty.
    pub c: f64,
    /// Number of folds.
    pub folds: usize,
    /// Fitted to the out-of-fold logits; `None` with too few examples.
    pub calibration: Option<Calibration>,
    /// The threshold with the highest F1 of the out-of-fold probabilities, and its quality there.
    pub decision: Decision,
    /// Out-of-fold logits, in the order of the examples.
    pub logits: Vec<f64>,
    /// Out-of-fold probabilities by a calibration that was fitted to the other folds.
    pub probabilities: Vec<f64>,
}

/// Trains a head.
///
/// # Errors
///
/// If a kind of examples has fewer than two groups; the message says what is missing.
pub fn train(training: &Training<'_>) -> anyhow::Result<Trained> {
    let Training { features, truths, groups, examples, class_weights } = *training;
    let folds = fold_count(training)?;
    let fold_of = folds::assign(examples, groups, truths, folds);
    let weights = weights(truths, examples, class_weights);
    let problem = Problem { features, truths, weights: &weights, examples, c: 1.0, tolerance: TOLERANCE };

    let loss = |logits: &[f64]| {
        let of = |(&example, &logit): (&usize, &f64)| weights[example] * log_loss(logit, truths[example]);
        examples.iter().zip(logits).map(of).sum::<f64>()
    };
    let mut starts: Vec<Option<Regression>> = vec![None; folds];
    let mut best: Option<(f64, f64, Vec<f64>)> = None;
    let mut worse = 0;
    for c in PENALTIES {
        let inside = Problem { c, tolerance: FOLD_TOLERANCE, ..problem };
        starts = fit_folds(&inside, &fold_of, &starts);
        let mut logits = vec![0.0; examples.len()];
        for (index, &example) in examples.iter().enumerate() {
            if let Some(regression) = &starts[fold_of[index]] {
                logits[index] = regression.logit(features.row(example));
            }
        }
        let loss = loss(&logits);
        if best.as_ref().is_none_or(|(lowest, ..)| loss < *lowest) {
            best = Some((loss, c, logits));
            worse = 0;
        } else {
            worse += 1;
            if worse > PATIENCE {
                break;
            }
        }
    }
    let (_, c, logits) = best.unwrap_or_else(|| (0.0, 1.0, vec![0.0; examples.len()]));

    let scored: Vec<_> = examples
        .iter()
        .zip(&logits)
        .map(|(&example, &score)| Scored { score, truth: truths[example] })
        .collect();
    let fewest = {
        let (positives, negatives) = counts(&scored);
        positives.min(negatives)
    };
    let calibrated = fewest >= MIN_CALIBRATION_EXAMPLES;
    let calibration = calibration::fit(&scored).filter(|_| calibrated);
    let all = calibration.unwrap_or(Calibration::NONE);
    let of_folds: Vec<_> = (0..folds)
        .map(|fold| {
            let others = scored.iter().zip(&fold_of).filter(|(_, of)| **of != fold);
            let others: Vec<_> = others.map(|(one, _)| *one).collect();
            calibration::fit(&others).filter(|_| calibrated).unwrap_or(all)
        })
        .collect();
    let probabilities = logits.iter().zip(&fold_of).map(|(logit, fold)| of_folds[*fold].probability(*logit));
    let probabilities = probabilities.collect();
    let shown: Vec<_> =
        scored.iter().map(|one| Scored { score: all.probability(one.score), ..*one }).collect();
    let decision = metrics::best_f1(&shown);
    let regression = fit(&Problem { c, ..problem }, None);
    Ok(Trained {
        regression,
        c,
        folds,
        calibration,
        decision: decision.expect("both kinds have been counted"),
        logits,
        probabilities,
    })
}

/// Number of folds: as many as the rarer kind has groups, at most [`FOLDS`].
fn fold_count(training: &Training<'_>) -> anyhow::Result<usize> {
    let mut fewest = FOLDS;
    for (kind, truth) in [("positive", true), ("negative", false)] {
        let of_kind = training.examples.iter().filter(|&&example| training.truths[example] == truth);
        let keys: std::collections::BTreeSet<_> = of_kind.map(|&example| &training.groups[example]).collect();
        anyhow::ensure!(
            keys.len() >= MIN_EXAMPLES_OF_KIND,
            "{} {kind} examples in groups of their own, expected at least {MIN_EXAMPLES_OF_KIND}; label more",
            keys.len()
        );
        fewest = fewest.min(keys.len());
    }
    Ok(fewest)
}

fn weights(truths: &[bool], examples: &[usize], weights: ClassWeights) -> Vec<f64> {
    let positives = examples.iter().filter(|&&example| truths[example]).count();
    let total = examples.len() as f64;
    let of = |count: usize| total / (2.0 * count.max(1) as f64);
    let [negative, positive] = match weights {
        ClassWeights::Balanced => [of(examples.len() - positives), of(positives)],
        ClassWeights::None => [1.0, 1.0],
    };
    truths.iter().map(|&truth| if truth { positive } else { negative }).collect()
}

/// Fits a regression for each fold to the examples of the others. Each fit is on one thread, so the
/// number of threads changes no bit.
fn fit_folds(
    problem: &Problem<'_>,
    fold_of: &[usize],
    starts: &[Option<Regression>],
) -> Vec<Option<Regression>> {
    let next = AtomicUsize::new(0);
    let fitted = Mutex::new(vec![None; starts.len()]);
    let work = || {
        loop {
            let fold = next.fetch_add(1, Ordering::Relaxed);
            let Some(start) = starts.get(fold) else { break };
            let others = problem.examples.iter().zip(fold_of).filter(|(_, of)| **of != fold);
            let others: Vec<_> = others.map(|(example, _)| *example).collect();
            let regression = fit(&Problem { examples: &others, ..*problem }, start.as_ref());
            fitted.lock().unwrap_or_else(PoisonError::into_inner)[fold] = Some(regression);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(starts.len());
    thread::scope(|scope| {
        (0..threads).for_each(|_| {
            scope.spawn(work);
        });
    });
    fitted.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    /// Embeddings of two overlapping clouds.
    fn clouds(examples: usize, size: usize, seed: u64) -> (Features, Vec<bool>, Vec<String>) {
        let mut random = Rng::with_seed(seed);
        let truths: Vec<_> = (0..examples).map(|index| index % 3 == 0).collect();
        let value = |(truth, at): (bool, usize)| {
            let noise: f32 = (0..6).map(|_| random.f32() - 0.5).sum();
            noise + if truth && at < 3 { 1.2 } else { 0.0 }
        };
        let values =
            truths.iter().flat_map(|&truth| (0..size).map(move |at| (truth, at))).map(value).collect();
        let groups = (0..examples).map(|index| index.to_string()).collect();
        (Features::new(values, size).unwrap(), truths, groups)
    }

    fn run(examples: usize, class_weights: ClassWeights) -> (Trained, Vec<bool>) {
        let (features, truths, groups) = clouds(examples, 16, 3);
        let examples: Vec<_> = (0..examples).collect();
        let training = Training {
            features: &features,
            truths: &truths,
            groups: &groups,
            examples: &examples,
            class_weights,
        };
        let trained = train(&training).unwrap();
        assert_eq!(trained, train(&training).unwrap(), "two runs agree in every bit");
        (trained, truths)
    }

    #[test]
    fn head_separates_clouds_and_is_calibrated() {
        for class_weights in [ClassWeights::Balanced, ClassWeights::None] {
            let (trained, truths) = run(600, class_weights);
            let scored: Vec<_> = trained
                .probabilities
                .iter()
                .zip(truths)
                .map(|(&score, truth)| Scored { score, truth })
                .collect();
            assert!(metrics::auroc(&scored).unwrap() > 0.95);
            assert!(metrics::calibration_error(&scored).unwrap() < 0.05);
            assert!(trained.decision.f1 > 0.8 && trained.calibration.is_some() && trained.folds == 5);
        }
    }

    #[test]
    fn sixteen_examples_are_enough() {
        let (trained, _) = run(16, ClassWeights::Balanced);
        assert!(trained.regression.weights.iter().all(|weight| weight.is_finite()));
        assert_eq!(trained.folds, 5);
        assert!(trained.calibration.is_some());
    }

    #[test]
    fn single_group_of_a_kind_is_rejected() {
        let (features, truths, mut groups) = clouds(18, 4, 1);
        let positives = (0..18).filter(|&index| truths[index]);
        positives.for_each(|index| groups[index] = "one author".to_owned());
        let training = Training {
            features: &features,
            truths: &truths,
            groups: &groups,
            examples: &(0..18).collect::<Vec<_>>(),
            class_weights: ClassWeights::Balanced,
        };
        let error = train(&training).unwrap_err().to_string();
        assert!(
            error.starts_with("1 positive examples in groups of their own, expected at least 2"),
            "{error}"
        );
    }

    #[test]
    fn identical_embeddings_give_a_constant_head() {
        let features = Features::new(vec![0.5; 32 * 4], 4).unwrap();
        let truths: Vec<_> = (0..32).map(|index| index % 2 == 0).collect();
        let groups: Vec<_> = (0..32).map(|index| index.to_string()).collect();
        let training = Training {
            features: &features,
            truths: &truths,
            groups: &groups,
            examples: &(0..32).collect::<Vec<_>>(),
            class_weights: ClassWeights::Balanced,
        };
        let trained = train(&training).unwrap();
        assert!(trained.regression.logit(features.row(0)).is_finite());
        assert!(trained.probabilities.iter().all(|probability| (probability - 0.5).abs() < 0.1));
    }
}
