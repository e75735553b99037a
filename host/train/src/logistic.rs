//! Logistic regression with an L2 penalty, fitted by L-BFGS (Nocedal 1980) in f64.
//!
//! The embeddings are centred, and scaled so that their mean squared distance from the centre is 1.
//! Hence a penalty means the same for every encoder. All sums are in the order of the examples, on
//! one thread, so equal inputs give equal bits.

use std::collections::VecDeque;

use crate::features::{Features, add_scaled, dot};
use crate::limits::{MAX_FIT_STEPS, MAX_STEP_HALVINGS};

/// Steps that approximate the curvature.
const MEMORY: usize = 10;

/// Part of the predicted decrease that a step has to reach (Armijo).
const SUFFICIENT: f64 = 1e-4;

/// Examples to fit a regression to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Problem<'a> {
    /// Embeddings of all examples.
    pub(crate) features: &'a Features,
    /// Labels of all examples.
    pub(crate) truths: &'a [bool],
    /// Weights of all examples in the loss.
    pub(crate) weights: &'a [f64],
    /// The examples to use.
    pub(crate) examples: &'a [usize],
    /// Inverse of the penalty, as `C` of scikit-learn, for the scaled embeddings.
    pub(crate) c: f64,
    /// Maximum component of the gradient of the mean loss at the end.
    pub(crate) tolerance: f64,
}

/// A fitted regression. The logit of an embedding is its product with the weights, plus the bias.
#[derive(Clone, Debug, PartialEq)]
pub struct Regression {
    /// One weight for each number of an embedding.
    pub weights: Vec<f64>,
    /// Logit of an embedding of zeros.
    pub bias: f64,
}

impl Regression {
    /// The log-odds that the embedding is of a positive example.
    pub fn logit(&self, embedding: &[f32]) -> f64 {
        dot(embedding, &self.weights) + self.bias
    }
}

/// The logistic function.
pub(crate) fn sigmoid(logit: f64) -> f64 {
    if logit >= 0.0 { 1.0 / (1.0 + (-logit).exp()) } else { logit.exp() / (1.0 + logit.exp()) }
}

/// Negative log-likelihood of `truth`, of which `logit` is the log-odds.
pub(crate) fn log_loss(logit: f64, truth: bool) -> f64 {
    let against = if truth { -logit } else { logit };
    against.max(0.0) + (-against.abs()).exp().ln_1p()
}

/// Fits a regression, from `start` if there is one.
pub(crate) fn fit(problem: &Problem<'_>, start: Option<&Regression>) -> Regression {
    let (mean, spread) = problem.features.centre(problem.examples);
    let total: f64 = problem.examples.iter().map(|&example| problem.weights[example]).sum();
    let scaled = Scaled { problem, mean, spread, total };
    let mut point = match start {
        Some(regression) => scaled.enter(regression),
        None => vec![0.0; problem.features.size() + 1],
    };
    let (mut value, mut gradient) = scaled.evaluate(&point);
    let mut pairs: VecDeque<Pair> = VecDeque::new();
    for _ in 0..MAX_FIT_STEPS {
        if gradient.iter().all(|part| part.abs() <= problem.tolerance) {
            break;
        }
        let direction = descend(&gradient, &pairs);
        let slope = product(&direction, &gradient);
        let mut length = 1.0;
        if pairs.is_empty() {
            length /= product(&gradient, &gradient).sqrt().max(1.0);
        }
        let mut next = None;
        for _ in 0..MAX_STEP_HALVINGS {
            let moved: Vec<_> = point.iter().zip(&direction).map(|(at, step)| at + length * step).collect();
            let (lower, changed) = scaled.evaluate(&moved);
            if lower <= value + SUFFICIENT * length * slope {
                next = Some((moved, lower, changed));
                break;
            }
            length /= 2.0;
        }
        // Rounding hides any further decrease.
        let Some((moved, lower, changed)) = next else { break };
        let step: Vec<_> = moved.iter().zip(&point).map(|(to, from)| to - from).collect();
        let change: Vec<_> = changed.iter().zip(&gradient).map(|(to, from)| to - from).collect();
        let curvature = product(&step, &change);
        if curvature > 0.0 {
            if pairs.len() == MEMORY {
                pairs.pop_front();
            }
            pairs.push_back(Pair { step, change, curvature });
        }
        (point, value, gradient) = (moved, lower, changed);
    }
    scaled.leave(&point)
}

/// A step, and the change of the gradient along it.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    curvature: f64,
}

/// The direction of descent: the gradient times an approximation of the inverse curvature.
fn descend(gradient: &[f64], pairs: &VecDeque<Pair>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|part| -part).collect();
    let mut factors = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let factor = product(&pair.step, &direction) / pair.curvature;
        direction.iter_mut().zip(&pair.change).for_each(|(part, change)| *part -= factor * change);
        factors.push(factor);
    }
    if let Some(last) = pairs.back() {
        let scale = last.curvature / product(&last.change, &last.change);
        direction.iter_mut().for_each(|part| *part *= scale);
    }
    for (pair, factor) in pairs.iter().zip(factors.into_iter().rev()) {
        let factor = factor - product(&pair.change, &direction) / pair.curvature;
        direction.iter_mut().zip(&pair.step).for_each(|(part, step)| *part += factor * step);
    }
    direction
}

fn product(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// The problem on scaled embeddings. A point has the weights, and then the bias.
struct Scaled<'a> {
    problem: &'a Problem<'a>,
    mean: Vec<f64>,
    spread: f64,
    /// Sum of the examples' weights.
    total: f64,
}

impl Scaled<'_> {
    /// The mean loss plus the penalty, and its gradient.
    fn evaluate(&self, point: &[f64]) -> (f64, Vec<f64>) {
        let Problem { features, truths, weights, examples, c, .. } = *self.problem;
        let Regression { weights: unscaled, bias } = self.leave(point);
        let mut gradient = vec![0.0; features.size()];
        let (mut loss, mut residuals) = (0.0, 0.0);
        for &example in examples {
            let logit = dot(features.row(example), &unscaled) + bias;
            let weight = weights[example] / self.total;
            loss += weight * log_loss(logit, truths[example]);
            let residual = weight * (sigmoid(logit) - f64::from(truths[example]));
            residuals += residual;
            add_scaled(&mut gradient, residual, features.row(example));
        }
        let penalty = 1.0 / (c * self.total);
        for ((part, mean), weight) in gradient.iter_mut().zip(&self.mean).zip(point) {
            *part = (*part - residuals * mean) / self.spread + penalty * weight;
        }
        let weights = &point[..features.size()];
        loss += penalty * product(weights, weights) / 2.0;
        gradient.push(residuals);
        (loss, gradient)
    }

    fn enter(&self, regression: &Regression) -> Vec<f64> {
        let bias = regression.bias + product(&regression.weights, &self.mean);
        regression.weights.iter().map(|weight| weight * self.spread).chain([bias]).collect()
    }

    fn leave(&self, point: &[f64]) -> Regression {
        let size = self.mean.len();
        let weights: Vec<_> = point[..size].iter().map(|weight| weight / self.spread).collect();
        let bias = point[size] - product(&weights, &self.mean);
        Regression { weights, bias }
    }
}
