//! Scores variants of a text with a text model, within a budget.

use std::collections::BTreeMap;

use guest_sdk::nn::{ErrorCode, ModelError};
use guest_sdk::texts::{self, TextFacts};

use crate::categories::Rule;
use crate::classifiers::Classifier;
use crate::limits::{
    MAX_BYTES, MAX_CALL_WINDOWS, MAX_TOKENS, MAX_VARIANT_BYTES, MAX_VARIANT_TOKENS, MAX_VARIANT_WINDOWS,
    MAX_VARIANTS,
};
use crate::occlusion::{Scored, Scorer, Variant};

/// Fewest tokens that a window counts as: a model takes time for an empty one as well.
const WINDOW_TOKENS: usize = 16;

/// The work that the explanation of an input may still take.
pub(crate) struct Budget {
    bytes: usize,
    tokens: usize,
    is_spent: bool,
}

impl Budget {
    /// The work of one input.
    pub(crate) fn new() -> Self {
        Budget { bytes: MAX_BYTES, tokens: MAX_TOKENS, is_spent: false }
    }

    /// Takes the bytes of `texts` as far as they are left, and returns how many of them that are.
    fn take(&mut self, texts: &[String]) -> usize {
        let mut count = 0;
        for text in texts.iter().filter(|_| self.tokens > 0) {
            let Some(left) = self.bytes.checked_sub(text.len()) else { break };
            (self.bytes, count) = (left, count + 1);
        }
        self.is_spent |= count < texts.len();
        count
    }

    /// True if some variants were not scored.
    pub(crate) fn is_spent(&self) -> bool {
        self.is_spent
    }
}

/// Rows of values of the variants of a text, by the ranges of the variant.
pub(crate) type Rows = BTreeMap<[usize; 4], Option<(Vec<f32>, TextFacts)>>;

/// Scores variants of a text with a classifier.
pub(crate) struct ModelScorer<'s> {
    pub(crate) classifier: &'s Classifier<'s>,
    pub(crate) rule: &'s Rule,
    pub(crate) text: &'s str,
    /// Windows of the text.
    pub(crate) windows: usize,
    /// Rows that were computed for another category.
    pub(crate) rows: &'s mut Rows,
    pub(crate) budget: &'s mut Budget,
}

impl ModelScorer<'_> {
    /// Runs the model on `variants`. If they have too many windows together, halves are run.
    fn run(&mut self, variants: &[Variant]) -> Result<(), ModelError> {
        let labels = self.classifier.labels.len();
        let texts: Vec<_> = variants.iter().map(|variant| variant.of(self.text)).collect();
        match texts::score(self.classifier.card.model(), &texts, labels) {
            Ok(scores) => {
                let rows = scores.values.chunks_exact(labels.max(1)).map(<[f32]>::to_vec);
                for (variant, row) in variants.iter().zip(rows.zip(scores.facts)) {
                    let used = scored(0.0, &row.1);
                    let tokens = used.tokens.max(used.windows * WINDOW_TOKENS);
                    self.budget.tokens = self.budget.tokens.saturating_sub(tokens);
                    self.rows.insert(key(variant), Some(row));
                }
                Ok(())
            }
            Err(error) if error.code == ErrorCode::TooLarge && variants.len() > 1 => {
                let (one, other) = variants.split_at(variants.len() / 2);
                self.run(one)?;
                self.run(other)
            }
            Err(error) if error.code == ErrorCode::TooLarge => {
                self.rows.insert(key(&variants[0]), None);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

impl Scorer for ModelScorer<'_> {
    fn score(&mut self, variants: &[Variant]) -> Result<Vec<Option<Scored>>, ModelError> {
        let new: Vec<_> =
            variants.iter().filter(|variant| !self.rows.contains_key(&key(variant))).cloned().collect();
        let texts: Vec<_> = new.iter().map(|variant| variant.of(self.text)).collect();
        let count = self.budget.take(&texts);
        let mut rest = &new[..count];
        while let Some(first) = rest.first() {
            let bytes = first.part.len() - first.without.len();
            let windows = (self.windows * bytes).div_ceil(self.text.len().max(1)).max(1);
            let (some, others) = rest.split_at((MAX_CALL_WINDOWS / windows).clamp(1, rest.len()));
            self.run(some)?;
            rest = others;
        }
        let score = |variant: &Variant| {
            let (row, facts) = self.rows.get(&key(variant))?.as_ref()?;
            Some(scored(self.rule.score(&self.classifier.labels, row)?, facts))
        };
        Ok(variants.iter().map(score).collect())
    }

    fn room(&self, one: Scored, bytes: usize) -> usize {
        let windows = MAX_VARIANT_WINDOWS / one.windows.max(1);
        let tokens = MAX_VARIANT_TOKENS / one.tokens.max(1);
        windows.min(tokens).min(MAX_VARIANT_BYTES / bytes.max(1)).clamp(1, MAX_VARIANTS)
    }
}

fn key(variant: &Variant) -> [usize; 4] {
    [variant.part.start, variant.part.end, variant.without.start, variant.without.end]
}

/// The score of a variant, with its size by `facts`.
pub(crate) fn scored(score: f32, facts: &TextFacts) -> Scored {
    Scored { score, windows: facts.windows as usize, tokens: facts.tokens as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_ends_with_the_first_text_beyond_it() {
        let texts: Vec<_> = ["a", "bbb", "c"].map(str::to_owned).to_vec();
        let mut budget = Budget { bytes: 2, tokens: 1, is_spent: false };
        assert_eq!(budget.take(&texts[..1]), 1);
        assert!(!budget.is_spent());
        assert_eq!(budget.take(&texts), 1, "the second is too long");
        assert!(budget.is_spent());
        assert_eq!(budget.take(&texts[..1]), 0);
    }
}
