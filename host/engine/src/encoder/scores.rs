//! Scores of texts from the values of their windows.

use std::collections::BTreeSet;

use super::embedding::embed;
use super::values::{floats, numbers};
use crate::card::{Activation, Card, Combine, Head, Rule, TextSpec};
use crate::tensor::Tensor;

/// Combination of a model's values into scores.
pub(super) struct Scoring {
    /// Heads on the model's embedding; empty for a model that computes scores.
    heads: Vec<Head>,
    activation: Activation,
    combine: Combine,
    /// For each label, true if the lowest score is the worst, because a category negates it.
    negated: Vec<bool>,
}

impl Scoring {
    /// Reads the card.
    pub(super) fn new(card: &Card) -> Self {
        let (activation, combine) =
            card.text.as_ref().map_or_else(Default::default, |text| (text.activation, text.combine));
        let negated: BTreeSet<_> = card
            .categories
            .values()
            .filter_map(|category| if let Rule::Not(label) = &category.rule { Some(label) } else { None })
            .collect();
        let negated = card.labels.iter().map(|label| negated.contains(label)).collect();
        Scoring { heads: card.heads.clone(), activation, combine, negated }
    }

    /// Computes the scores of a window of `tokens` tokens from the model's output, or with `raw`
    /// their values before activation or calibration.
    ///
    /// # Errors
    ///
    /// When the output has another shape than the card says, or a value is not a number.
    pub(super) fn scores(
        &self,
        output: &Tensor,
        tokens: usize,
        spec: &TextSpec,
        raw: bool,
    ) -> Result<Vec<f32>, String> {
        let values = if self.heads.is_empty() {
            let mut values = floats(output)?;
            if !raw {
                self.activate(&mut values);
            }
            values
        } else {
            let embedding = embed(output, tokens, spec, None)?;
            numbers(&embedding)?;
            let score = |head: &Head| {
                if head.weights.len() != embedding.len() {
                    let (found, expected) = (embedding.len(), head.weights.len());
                    return Err(format!("the embedding has {found} values, its heads have {expected}"));
                }
                let products = head.weights.iter().zip(&embedding).map(|(weight, value)| weight * value);
                let logit = products.sum::<f32>() + head.bias;
                Ok(if raw { logit } else { head.calibration.probability(logit) })
            };
            self.heads.iter().map(score).collect::<Result<_, _>>()?
        };
        numbers(&values)?;
        Ok(values)
    }

    /// Turns a row of values into scores.
    fn activate(&self, values: &mut [f32]) {
        match self.activation {
            Activation::None => {}
            Activation::Sigmoid => values.iter_mut().for_each(|value| *value = 1.0 / (1.0 + (-*value).exp())),
            Activation::Softmax => softmax(values),
        }
    }

    /// Combines the scores of the windows of one reading. `windows` are scores and the number of
    /// tokens.
    pub(super) fn combine(&self, windows: &[(Vec<f32>, usize)]) -> Vec<f32> {
        match self.combine {
            Combine::Max => self.worst(windows.iter().map(|(scores, _)| scores)),
            Combine::Mean => {
                let tokens: usize = windows.iter().map(|(_, tokens)| tokens).sum();
                let mut mean = vec![0.0; windows.first().map_or(0, |(scores, _)| scores.len())];
                for (scores, weight) in windows {
                    let weight = *weight as f32 / tokens.max(1) as f32;
                    mean.iter_mut().zip(scores).for_each(|(mean, score)| *mean += weight * score);
                }
                mean
            }
        }
    }

    /// The worst score of each label: the highest, or the lowest of a label that a category
    /// negates.
    pub(super) fn worst<'s>(&self, mut rows: impl Iterator<Item = &'s Vec<f32>>) -> Vec<f32> {
        let mut worst = rows.next().cloned().unwrap_or_default();
        for row in rows {
            for (index, (worst, score)) in worst.iter_mut().zip(row).enumerate() {
                let lower = self.negated.get(index).copied().unwrap_or(false);
                *worst = if lower { worst.min(*score) } else { worst.max(*score) };
            }
        }
        worst
    }
}

/// Scales values to probabilities that sum to 1.
pub(crate) fn softmax(values: &mut [f32]) {
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|value| *value = (*value - max).exp());
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scoring(activation: Activation, combine: Combine) -> Scoring {
        Scoring { heads: Vec::new(), activation, combine, negated: vec![false, true] }
    }

    #[test]
    fn windows_are_combined() {
        let windows = [(vec![0.2, 0.9], 3), (vec![0.6, 0.5], 1)];
        let max = scoring(Activation::None, Combine::Max).combine(&windows);
        assert_eq!(max, [0.6, 0.5], "the second label is negated");
        let mean = scoring(Activation::None, Combine::Mean).combine(&windows);
        assert!((mean[0] - 0.3).abs() < 1e-6 && (mean[1] - 0.8).abs() < 1e-6, "{mean:?}");
    }

    #[test]
    fn nan_score_is_an_error() {
        assert!(numbers(&[0.0, 1.0, f32::INFINITY]).is_ok());
        assert!(numbers(&[0.0, f32::NAN]).is_err());
    }

    #[test]
    fn activations_give_probabilities() {
        let mut values = [0.0, 2.0];
        scoring(Activation::Sigmoid, Combine::Max).activate(&mut values);
        assert!((values[0] - 0.5).abs() < 1e-6 && (values[1] - 0.880_797).abs() < 1e-6);
        let mut values = [1_000.0, 1_002.0];
        scoring(Activation::Softmax, Combine::Max).activate(&mut values);
        assert!((values[0] - 0.119_203).abs() < 1e-6 && (values[1] - 0.880_797).abs() < 1e-6);
    }
}
