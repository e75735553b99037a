//! The tokens of a text in its readings.

use super::metadata::Metadata;
use super::tokenizer::Tokens;
use crate::limits::MAX_ROWS;
use crate::model::TokenUsage;

/// The tokens of one text, in each of its readings.
pub(super) struct Readings {
    /// At least one.
    pub(super) all: Vec<Tokens>,
    /// The beginning of the last reading, if it is the one with evasive spellings undone.
    pub(super) undone: Option<String>,
    /// English name of the text's language, if the model was not trained for it.
    pub(super) foreign: Option<&'static str>,
}

impl Readings {
    /// The readings without the one in which evasive spellings are undone.
    pub(super) fn plain(&self) -> &[Tokens] {
        &self.all[..self.all.len() - usize::from(self.undone.is_some())]
    }

    /// Drops the reading in which evasive spellings are undone.
    fn drop_undone(&mut self) {
        self.all.truncate(self.plain().len());
        self.undone = None;
    }
}

impl<'r> IntoIterator for &'r Readings {
    type Item = &'r Tokens;
    type IntoIter = std::slice::Iter<'r, Tokens>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

/// Drops readings with evasive spellings undone whose windows would exceed [`MAX_ROWS`] together.
pub(super) fn drop_long_undone(texts: &mut [Readings]) {
    let mut rows = 0;
    for readings in texts.iter_mut().filter(|readings| readings.undone.is_some()) {
        let windows = readings.all.last().map_or(0, |tokens| tokens.windows.len());
        if rows + windows > MAX_ROWS {
            readings.drop_undone();
        } else {
            rows += windows;
        }
    }
}

/// Index and number of tokens of the first text of which only the beginning was read.
pub(super) fn truncated(texts: &[Readings]) -> Option<(usize, usize)> {
    let tokens = |readings: &Readings| readings.plain().iter().find(|it| it.is_truncated).map(|it| it.count);
    texts.iter().enumerate().find_map(|(index, readings)| Some((index, tokens(readings)?)))
}

/// Facts about the texts, and the number of their tokens.
pub(super) fn facts(texts: &[Readings]) -> (Metadata, TokenUsage) {
    let mut metadata = Metadata::default();
    for readings in texts {
        // Of two readings, the one with more known words says how much of the text was understood.
        let best = readings.plain().iter().max_by_key(|tokens| tokens.known);
        let best = best.filter(|tokens| tokens.known > 0).or(readings.all.last());
        metadata.tokens.push(best.map_or(0, |tokens| tokens.count));
        metadata.known.push(best.map_or(0, |tokens| tokens.known));
        metadata.windows.push(readings.into_iter().map(|tokens| tokens.windows.len()).sum());
        metadata.truncated.push(readings.plain().iter().any(|tokens| tokens.is_truncated));
        metadata.foreign.push(readings.foreign.unwrap_or_default());
    }
    if texts.iter().all(|readings| readings.foreign.is_none()) {
        metadata.foreign.clear();
    }
    let prompt_tokens = metadata.tokens.iter().sum();
    (metadata, TokenUsage { prompt_tokens, ..TokenUsage::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::tokenizer::Window;

    fn tokens(windows: usize, count: usize) -> Tokens {
        Tokens { windows: vec![Window::default(); windows], count, known: count, is_truncated: false }
    }

    #[test]
    fn undone_readings_beyond_the_bound_are_dropped() {
        let text = |windows| Readings {
            all: vec![tokens(1, 9), tokens(windows, 3)],
            undone: Some("you idiot".to_owned()),
            foreign: None,
        };
        let mut texts = vec![text(100), text(28), text(1)];
        drop_long_undone(&mut texts);
        let kept: Vec<_> =
            texts.iter().map(|readings| (readings.all.len(), readings.undone.is_some())).collect();
        assert_eq!(kept, [(2, true), (2, true), (1, false)]);
        assert!(texts.iter().all(|readings| readings.plain().len() == 1));
    }

    #[test]
    fn facts_are_those_of_the_plain_reading() {
        let undone = Some("you idiot".to_owned());
        let unknown = Tokens { known: 0, ..tokens(1, 4) };
        let (metadata, usage) = facts(&[
            Readings { all: vec![tokens(1, 9), tokens(2, 30)], undone: undone.clone(), foreign: None },
            Readings { all: vec![unknown, tokens(1, 3)], undone, foreign: None },
        ]);
        assert_eq!((metadata.tokens, metadata.known), (vec![9, 3], vec![9, 3]));
        assert_eq!((metadata.windows, usage.prompt_tokens), (vec![3, 2], 12));
    }
}
