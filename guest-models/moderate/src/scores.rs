//! Scores of the worst part by one classifier, or by several together.

use crate::classifiers::{Assignment, Judge};
use crate::judge::Judgement;
use crate::odds::{aligned, logit, probability};

impl Judge {
    /// Score of each part, on the scale of the judge's card.
    fn scores<'j>(&'j self, judgement: &'j Judgement<'_>) -> impl Iterator<Item = f32> + 'j {
        judgement.rows().filter_map(|row| self.rule.score(&judgement.labels, row))
    }

    /// Score of the worst part.
    pub(crate) fn score(&self, judgement: &Judgement<'_>) -> Option<f32> {
        self.scores(judgement).reduce(f32::max)
    }
}

/// Score of the worst text: each has the mean of its scores by the classifiers that count, on the
/// scale of log-odds, each relative to the threshold of its card.
pub(crate) fn mean<'j, 's: 'j>(
    assignment: &'j Assignment,
    judgement: impl Fn(&Judge) -> Option<&'j Judgement<'s>>,
) -> Option<f32> {
    let of = |judge: &'j Judge| {
        let scores = judge.scores(judgement(judge)?);
        Some(scores.map(|score| aligned(score, judge.threshold, assignment.scale)).collect::<Vec<_>>())
    };
    let all: Vec<_> = assignment.of_texts().filter_map(of).collect();
    let (first, others) = all.split_first()?;
    if others.is_empty() {
        return first.iter().copied().reduce(f32::max);
    }
    let evidence = |text: usize| all.iter().filter_map(move |of| of.get(text)).map(|score| logit(*score));
    let scores = (0..first.len()).map(|text| probability(evidence(text).sum::<f32>() / all.len() as f32));
    scores.reduce(f32::max)
}
