//! Probabilities on the scale of log-odds, on which evidence adds up.

/// Log-odds, limited to a million to one.
pub(crate) fn logit(probability: f32) -> f32 {
    let probability = probability.clamp(1e-6, 1.0 - 1e-6);
    (probability / (1.0 - probability)).ln()
}

/// The probability of these log-odds.
pub(crate) fn probability(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// Moves `score` on the scale of log-odds, so that one at the threshold `from` is at `to`. Without
/// both thresholds the score stays.
pub(crate) fn aligned(score: f32, from: Option<f32>, to: Option<f32>) -> f32 {
    match (from, to) {
        (Some(from), Some(to)) if from != to => probability(logit(score) - logit(from) + logit(to)),
        _ => score,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_scores_cross_both_thresholds_together() {
        for (score, from, to, expected) in [
            (0.3, Some(0.5), Some(0.5), 0.3),
            (0.3, None, Some(0.9), 0.3),
            (0.3, Some(0.9), None, 0.3),
            // Odds of 9 become odds of 1, so odds of 1 become odds of 1/9.
            (0.9, Some(0.9), Some(0.5), 0.5),
            (0.5, Some(0.9), Some(0.5), 0.1),
            (0.5, Some(0.5), Some(0.9), 0.9),
        ] {
            let found = aligned(score, from, to);
            assert!((found - expected).abs() < 1e-5, "{score} {from:?} {to:?}: {found}");
        }
    }
}
