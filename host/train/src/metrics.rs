//! Figures of scores against truths: ranking, calibration, and the best threshold.

use serde::Serialize;

/// Bins of the calibration error.
const BINS: usize = 10;

/// The score of an example, and its label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Any number for a ranking; a probability for the calibration error. Not NaN.
    pub score: f64,
    /// True if the example is positive.
    pub truth: bool,
}

/// Result of the decision `score >= threshold`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// Minimum score of an example that counts as positive.
    pub threshold: f64,
    /// Share of the positives among those decided as positive; 0 if there are none.
    pub precision: f64,
    /// Share of the positives that are decided as positive.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
}

/// Returns the probability that a positive example scores above a negative one, ties counting half:
/// by the rank sum (Mann and Whitney). `None` without examples of both kinds.
pub fn auroc(scored: &[Scored]) -> Option<f64> {
    let (positives, negatives) = counts(scored);
    if positives == 0 || negatives == 0 {
        return None;
    }
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
    let (mut ranks, mut before) = (0.0, 0);
    for tied in sorted.chunk_by(|a, b| a.score == b.score) {
        let rank = before as f64 + (tied.len() + 1) as f64 / 2.0;
        ranks += rank * counts(tied).0 as f64;
        before += tied.len();
    }
    let (positives, negatives) = (positives as f64, negatives as f64);
    Some((ranks - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

/// Returns the average precision: the mean of the precisions at each threshold, weighted by the
/// recall that the threshold adds. `None` without positives.
pub fn average_precision(scored: &[Scored]) -> Option<f64> {
    let positives = counts(scored).0;
    if positives == 0 {
        return None;
    }
    let (mut hits, mut decided, mut sum) = (0, 0, 0.0);
    for tied in descending(scored).chunk_by(|a, b| a.score == b.score) {
        let added = counts(tied).0;
        hits += added;
        decided += tied.len();
        sum += added as f64 * hits as f64 / decided as f64;
    }
    Some(sum / positives as f64)
}

/// Returns the expected calibration error over ten equal bins: the mean distance between score and
/// observed frequency. `None` without examples.
pub fn calibration_error(scored: &[Scored]) -> Option<f64> {
    let mut bins = [(0.0, 0.0); BINS];
    for Scored { score, truth } in scored {
        let (scores, truths) = &mut bins[((score * BINS as f64) as usize).min(BINS - 1)];
        *scores += score;
        *truths += f64::from(*truth);
    }
    let sum: f64 = bins.iter().map(|(scores, truths): &(f64, f64)| (scores - truths).abs()).sum();
    (!scored.is_empty()).then(|| sum / scored.len() as f64)
}

/// Returns the threshold with the highest F1, halfway between two neighbouring scores; of several,
/// the highest threshold. `None` without positives.
pub fn best_f1(scored: &[Scored]) -> Option<Decision> {
    let positives = counts(scored).0;
    let sorted = descending(scored);
    let (mut hits, mut decided) = (0, 0);
    let mut best = (0.0, 0);
    for tied in sorted.chunk_by(|a, b| a.score == b.score) {
        hits += counts(tied).0;
        decided += tied.len();
        let f1 = 2.0 * hits as f64 / (decided + positives) as f64;
        if f1 > best.0 {
            best = (f1, decided);
        }
    }
    let last = sorted[best.1.checked_sub(1)?].score;
    let next = sorted.get(best.1).map_or(last, |next| next.score);
    decide(scored, f64::midpoint(last, next))
}

/// Returns the quality of the decision `score >= threshold`. `None` without positives.
pub fn decide(scored: &[Scored], threshold: f64) -> Option<Decision> {
    let positives = counts(scored).0;
    let decided: Vec<_> = scored.iter().copied().filter(|one| one.score >= threshold).collect();
    let hits = counts(&decided).0;
    (positives > 0).then(|| Decision {
        threshold,
        precision: hits as f64 / decided.len().max(1) as f64,
        recall: hits as f64 / positives as f64,
        f1: 2.0 * hits as f64 / (decided.len() + positives) as f64,
    })
}

/// Returns Cohen's kappa of the decisions `score >= threshold` and the truths: agreement beyond
/// chance, 1 for complete agreement. `None` if chance alone agrees always.
pub fn kappa(scored: &[Scored], threshold: f64) -> Option<f64> {
    let total = scored.len() as f64;
    let share = |keep: &dyn Fn(&Scored) -> bool| scored.iter().filter(|one| keep(one)).count() as f64 / total;
    let agreed = share(&|one| (one.score >= threshold) == one.truth);
    let (decided, true_share) = (share(&|one| one.score >= threshold), share(&|one| one.truth));
    let by_chance = decided * true_share + (1.0 - decided) * (1.0 - true_share);
    (by_chance < 1.0).then(|| (agreed - by_chance) / (1.0 - by_chance))
}

/// Number of positives and of negatives.
pub(crate) fn counts(scored: &[Scored]) -> (usize, usize) {
    let positives = scored.iter().filter(|one| one.truth).count();
    (positives, scored.len() - positives)
}

fn descending(scored: &[Scored]) -> Vec<Scored> {
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
    sorted
}
