//! Probabilities from logits: a temperature and a shift (Platt 1999).

use crate::limits::MAX_NEWTON_STEPS;
use crate::logistic::{log_loss, sigmoid};
use crate::metrics::{Scored, counts};

/// Range of the temperature. A head that ranks no better than chance would have an infinite or a
/// negative one.
const TEMPERATURES: [f64; 2] = [0.01, 100.0];

/// The probability is `sigmoid(logit / temperature + shift)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// Divides the logit; above 0.
    pub temperature: f64,
    /// Is added to the divided logit.
    pub shift: f64,
}

impl Calibration {
    /// Leaves logits as they are.
    pub const NONE: Calibration = Calibration { temperature: 1.0, shift: 0.0 };

    /// The probability of a positive example with this logit.
    pub fn probability(&self, logit: f64) -> f64 {
        sigmoid(logit / self.temperature + self.shift)
    }
}

/// Fits a calibration to logits of examples that the head was not fitted to, by Newton's method.
/// Platt's targets stand for the labels: with P positives and N negatives, (P + 1) / (P + 2) for
/// positives and 1 / (N + 2) for negatives, so that few examples do not make it certain. `None`
/// without examples of both kinds.
pub(crate) fn fit(scored: &[Scored]) -> Option<Calibration> {
    let (positives, negatives) = counts(scored);
    if positives == 0 || negatives == 0 {
        return None;
    }
    let targets = [1.0 / (negatives as f64 + 2.0), (positives as f64 + 1.0) / (positives as f64 + 2.0)];
    let loss = |[slope, shift]: [f64; 2]| {
        let of = |one: &Scored| {
            let (logit, target) = (slope * one.score + shift, targets[usize::from(one.truth)]);
            target * log_loss(logit, true) + (1.0 - target) * log_loss(logit, false)
        };
        scored.iter().map(of).sum::<f64>()
    };
    let mut point = [0.0, ((positives as f64 + 1.0) / (negatives as f64 + 1.0)).ln()];
    let mut value = loss(point);
    for _ in 0..MAX_NEWTON_STEPS {
        let (mut gradient, mut curvature) = ([0.0; 2], [1e-12, 0.0, 1e-12]);
        for one in scored {
            let probability = sigmoid(point[0] * one.score + point[1]);
            let residual = probability - targets[usize::from(one.truth)];
            let spread = probability * (1.0 - probability);
            gradient[0] += residual * one.score;
            gradient[1] += residual;
            curvature[0] += spread * one.score * one.score;
            curvature[1] += spread * one.score;
            curvature[2] += spread;
        }
        let determinant = curvature[0] * curvature[2] - curvature[1] * curvature[1];
        let step = [
            (curvature[2] * gradient[0] - curvature[1] * gradient[1]) / determinant,
            (curvature[0] * gradient[1] - curvature[1] * gradient[0]) / determinant,
        ];
        let mut length = 1.0;
        let (next, lower) = loop {
            let next = [point[0] - length * step[0], point[1] - length * step[1]];
            let lower = loss(next);
            if lower <= value || length < 1e-10 {
                break (next, lower);
            }
            length /= 2.0;
        };
        // Also ends where a number has become NaN.
        if lower >= value || lower.is_nan() {
            break;
        }
        (point, value) = (next, lower);
    }
    let [coldest, hottest] = TEMPERATURES;
    let slope = if point[0].is_finite() { point[0].clamp(1.0 / hottest, 1.0 / coldest) } else { 1.0 };
    let shift = if slope == point[0] { point[1] } else { shift_of(scored, slope) };
    Some(Calibration { temperature: 1.0 / slope, shift })
}

/// The shift at which the mean probability is the share of positives, for a given slope: by
/// bisection.
fn shift_of(scored: &[Scored], slope: f64) -> f64 {
    let positives = counts(scored).0 as f64;
    let (mut low, mut high) = (-1e4, 1e4);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        let sum: f64 = scored.iter().map(|one| sigmoid(slope * one.score + middle)).sum();
        if sum < positives { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}
