//! Finds the words behind a score: the text is scored again with some of them left out (occlusion;
//! Zeiler and Fergus 2014).
//!
//! Each word is left out once; of a text with more words than variants, each group of neighbouring
//! words, and the groups that matter are divided until they are single words. If no word matters
//! alone, larger blocks are tried. Neighbours that matter more together become one span. A text of
//! many windows is first narrowed down to its worst piece. Each span that is returned was left out
//! of the whole text.

use std::ops::Range;

use guest_sdk::nn::ModelError;

use crate::limits::{
    MAX_CONTRIBUTIONS, MAX_DIVISIONS, MAX_RUNS, MAX_VARIANTS, MIN_LOG_ODDS, MIN_VARIANTS, PIECE_WORDS,
};
use crate::words::groups;

/// Share of the strongest contribution that a word needs to become part of a longer span.
const STRONG: f32 = 0.25;

/// A part of a text with some of it left out, as ranges of bytes. `without` lies in `part`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) part: Range<usize>,
    pub(crate) without: Range<usize>,
}

impl Variant {
    /// The part itself.
    pub(crate) fn whole(part: Range<usize>) -> Self {
        Variant { without: part.end..part.end, part }
    }

    /// The text of the variant.
    pub(crate) fn of(&self, text: &str) -> String {
        [&text[self.part.start..self.without.start], &text[self.without.end..self.part.end]].concat()
    }
}

/// Score of a variant, and its size for the model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Scored {
    pub(crate) score: f32,
    pub(crate) windows: usize,
    pub(crate) tokens: usize,
}

/// Scores variants of one text in one category.
pub(crate) trait Scorer {
    /// Scores the variants of a step; `None` for those that the model does not take.
    ///
    /// # Errors
    ///
    /// When the model fails.
    fn score(&mut self, variants: &[Variant]) -> Result<Vec<Option<Scored>>, ModelError>;

    /// Maximum number of variants of a step, if each is like `one` of `bytes` bytes.
    fn room(&self, one: Scored, bytes: usize) -> usize;
}

/// Words that raise the score of a text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// Their bytes.
    pub(crate) range: Range<usize>,
    /// Log-odds by which the score is higher with them.
    pub(crate) log_odds: f32,
    /// Score of the text without them.
    pub(crate) score_without: f32,
}

/// Finds the words of a text of `bytes` bytes that raise its score, which is `base`. The highest
/// contribution comes first.
///
/// # Errors
///
/// When the model fails.
pub(crate) fn explain(
    scorer: &mut dyn Scorer,
    bytes: usize,
    words: &[Range<usize>],
    base: Scored,
) -> Result<Vec<Found>, ModelError> {
    let whole = 0..bytes;
    let room = scorer.room(base, bytes);
    let mut text = Occlusion { scorer, words, part: whole.clone(), base, room };
    let mut found =
        if room >= MIN_VARIANTS.min(words.len()) { text.found()? } else { text.in_worst_piece()? };
    found.sort_by(|one, other| other.log_odds.total_cmp(&one.log_odds));
    found.truncate(MAX_CONTRIBUTIONS);
    Ok(found)
}

/// A part of a text whose words are left out.
struct Occlusion<'s> {
    scorer: &'s mut dyn Scorer,
    words: &'s [Range<usize>],
    part: Range<usize>,
    /// Score of the part.
    base: Scored,
    /// Maximum number of variants of a step.
    room: usize,
}

/// Neighbouring words, by their indices, and the effect of leaving them out.
#[derive(Clone, Debug)]
struct Group {
    words: Range<usize>,
    log_odds: f32,
    score_without: f32,
}

impl Occlusion<'_> {
    /// The bytes of neighbouring words.
    fn bytes(&self, words: &Range<usize>) -> Range<usize> {
        self.words[words.start].start..self.words[words.end - 1].end
    }

    /// Leaves each group out, and returns those whose contributions count.
    fn leave_out(&mut self, groups: &[Range<usize>]) -> Result<Vec<Group>, ModelError> {
        let ranges: Vec<_> = groups.iter().map(|words| self.bytes(words)).collect();
        let effects = self.effects(&ranges)?;
        let group = |(words, found): (&Range<usize>, Option<Found>)| {
            let Found { log_odds, score_without, .. } = found?;
            Some(Group { words: words.clone(), log_odds, score_without })
        };
        Ok(groups.iter().zip(effects).filter_map(group).collect())
    }

    /// Leaves each of `ranges` out; `None` for those whose contribution does not count.
    fn effects(&mut self, ranges: &[Range<usize>]) -> Result<Vec<Option<Found>>, ModelError> {
        let variant = |range: &Range<usize>| Variant { part: self.part.clone(), without: range.clone() };
        let variants: Vec<_> = ranges.iter().map(variant).collect();
        let scored = self.scorer.score(&variants)?;
        let effect = |(range, scored): (&Range<usize>, Option<Scored>)| {
            let score_without = scored?.score;
            let log_odds = odds(self.base.score) - odds(score_without);
            (log_odds >= MIN_LOG_ODDS).then(|| Found { range: range.clone(), log_odds, score_without })
        };
        Ok(ranges.iter().zip(scored).map(effect).collect())
    }

    /// The words of the part that raise its score.
    fn found(&mut self) -> Result<Vec<Found>, ModelError> {
        if self.words.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = self.leave_out(&groups(0..self.words.len(), self.room))?;
        for _ in 0..MAX_DIVISIONS {
            if !self.divide(&mut found)? {
                break;
            }
        }
        if found.is_empty() {
            found = self.block()?.into_iter().collect();
        }
        self.join(&mut found)?;
        let found = found.iter().map(|group| Found {
            range: self.bytes(&group.words),
            log_odds: group.log_odds,
            score_without: group.score_without,
        });
        Ok(found.collect())
    }

    /// Replaces the strongest groups by their parts, as many as one step takes. Returns false if
    /// all groups are single words.
    fn divide(&mut self, found: &mut Vec<Group>) -> Result<bool, ModelError> {
        found.sort_by(|one, other| other.log_odds.total_cmp(&one.log_odds));
        let (mut parts, mut divided) = (Vec::new(), Vec::new());
        for (index, group) in found.iter().enumerate().filter(|(_, group)| group.words.len() > 1) {
            let room = self.room - parts.len();
            if parts.is_empty() || group.words.len() <= room {
                parts.extend(groups(group.words.clone(), room));
                divided.push(index);
            }
        }
        if divided.is_empty() || self.room < 2 {
            return Ok(false);
        }
        let strong = self.leave_out(&parts)?;
        // A group stays if its effect is that of no part alone.
        let is_in = |part: &Group, group: &Group| {
            group.words.start <= part.words.start && part.words.end <= group.words.end
        };
        let mut index = 0;
        found.retain(|group| {
            index += 1;
            !divided.contains(&(index - 1)) || !strong.iter().any(|part| is_in(part, group))
        });
        let progress = !strong.is_empty();
        found.extend(strong);
        Ok(progress)
    }

    /// The smallest block of words that matters, of those that overlap by half.
    fn block(&mut self) -> Result<Option<Group>, ModelError> {
        let count = self.words.len();
        let mut blocks = Vec::new();
        let mut length = if count < 4 { count } else { count.div_ceil(2) };
        while length > 1 {
            let step = length.div_ceil(2);
            let level = (0..count.saturating_sub(length) + step).step_by(step);
            let level: Vec<_> =
                level.map(|start| start.min(count - length)..(start + length).min(count)).collect();
            if blocks.len() + level.len() > self.room {
                break;
            }
            blocks.extend(level);
            length /= 2;
        }
        let strong = self.leave_out(&blocks)?;
        let best = strong.into_iter().min_by(|one, other| {
            (one.words.len().cmp(&other.words.len())).then(other.log_odds.total_cmp(&one.log_odds))
        });
        Ok(best)
    }

    /// Joins neighbours that matter more together.
    fn join(&mut self, found: &mut Vec<Group>) -> Result<(), ModelError> {
        let best = found.iter().map(|group| group.log_odds).fold(0.0, f32::max);
        let mut strong: Vec<_> =
            found.iter().filter(|group| group.log_odds >= best * STRONG).cloned().collect();
        strong.sort_by_key(|group| group.words.start);
        // Words of each run, and the highest contribution of its parts.
        let mut runs: Vec<(Range<usize>, f32)> = Vec::new();
        for group in strong {
            match runs.last_mut().filter(|(run, _)| run.end == group.words.start) {
                Some((run, highest)) => {
                    run.end = group.words.end;
                    *highest = highest.max(group.log_odds);
                }
                None => runs.push((group.words, group.log_odds)),
            }
        }
        runs.retain(|(run, _)| !found.iter().any(|group| group.words == *run));
        runs.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        runs.truncate(MAX_RUNS.min(self.room));
        let words: Vec<_> = runs.iter().map(|(run, _)| run.clone()).collect();
        for joined in self.leave_out(&words)? {
            let highest =
                runs.iter().find(|(run, _)| *run == joined.words).map_or(0.0, |(_, highest)| *highest);
            if joined.log_odds >= highest + MIN_LOG_ODDS {
                found.retain(|group| {
                    group.words.end <= joined.words.start || joined.words.end <= group.words.start
                });
                found.push(joined);
            }
        }
        Ok(())
    }

    /// The words of the worst piece that raise the score of the whole part, or that piece.
    fn in_worst_piece(&mut self) -> Result<Vec<Found>, ModelError> {
        let pieces = groups(0..self.words.len(), self.words.len().div_ceil(PIECE_WORDS).min(MAX_VARIANTS));
        let variants: Vec<_> = pieces.iter().map(|piece| Variant::whole(self.bytes(piece))).collect();
        let scored = self.scorer.score(&variants)?;
        let scored = pieces.into_iter().zip(scored).filter_map(|(piece, scored)| Some((piece, scored?)));
        let worst = scored.max_by(|(_, one), (_, other)| one.score.total_cmp(&other.score));
        let Some((piece, base)) = worst else { return Ok(Vec::new()) };
        let part = self.bytes(&piece);
        let room = self.scorer.room(base, part.len());
        let words = &self.words[piece.clone()];
        let mut inner = Occlusion { scorer: self.scorer, words, part: part.clone(), base, room };
        let mut found = inner.found()?;
        found.sort_by(|one, other| other.log_odds.total_cmp(&one.log_odds));
        found.truncate(self.room.min(MAX_CONTRIBUTIONS));
        let ranges: Vec<_> = found.into_iter().map(|found| found.range).collect();
        let mut found: Vec<_> = self.effects(&ranges)?.into_iter().flatten().collect();
        if found.is_empty() {
            found.extend(self.effects(&[part])?.into_iter().flatten());
        }
        Ok(found)
    }
}

/// Log-odds of a score, limited to ten million to one: scores are rounded to that.
pub(crate) fn odds(score: f32) -> f32 {
    let score = f64::from(score).clamp(1e-7, 1.0 - 1e-7);
    (score / (1.0 - score)).ln() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::words;

    /// A model that adds up the log-odds of the words of a text.
    struct Sum<'t> {
        text: &'t str,
        weights: &'t [(&'t str, f32)],
        room: usize,
        /// Number of variants of each call.
        calls: Vec<usize>,
        /// Words of a window. Each window has a score, and the highest counts.
        window: usize,
    }

    impl Sum<'_> {
        fn scored(&self, text: &str) -> Scored {
            let words: Vec<_> = text.split_whitespace().collect();
            let weight = |word: &&str| {
                self.weights.iter().find(|(known, _)| word.contains(known)).map_or(0.0, |it| it.1)
            };
            let windows =
                words.chunks(self.window).map(|window| window.iter().map(weight).sum::<f32>() - 2.0);
            let highest = windows.reduce(f32::max).unwrap_or(-2.0);
            let score = 1.0 / (1.0 + (-highest).exp());
            Scored { score, windows: words.len().div_ceil(self.window), tokens: words.len() }
        }
    }

    impl Scorer for Sum<'_> {
        fn score(&mut self, variants: &[Variant]) -> Result<Vec<Option<Scored>>, ModelError> {
            if !variants.is_empty() {
                self.calls.push(variants.len());
            }
            Ok(variants.iter().map(|variant| Some(self.scored(&variant.of(self.text)))).collect())
        }

        fn room(&self, one: Scored, _: usize) -> usize {
            (self.room / one.windows.max(1)).max(1)
        }
    }

    /// The spans of `text` with their contributions, and the sizes of the calls.
    fn found(text: &str, weights: &[(&str, f32)], window: usize) -> (Vec<(String, f32)>, Vec<usize>) {
        let mut scorer = Sum { text, weights, room: 64, calls: Vec::new(), window };
        let base = scorer.scored(text);
        let found = explain(&mut scorer, text.len(), &words(text), base).unwrap();
        let rounded = |log_odds: f32| (log_odds * 100.0).round() / 100.0;
        let spans = found.into_iter().map(|it| (text[it.range].to_owned(), rounded(it.log_odds)));
        (spans.collect(), scorer.calls)
    }

    fn span(text: &str, log_odds: f32) -> (String, f32) {
        (text.to_owned(), log_odds)
    }

    #[test]
    fn heaviest_word_is_first() {
        let weights = [("idiot", 5.0), ("dumb", 1.5), ("thanks", -2.0)];
        let (spans, calls) = found("Thanks, 🐷 you (idiot)! So dumb.", &weights, 100);
        assert_eq!(spans, [span("idiot", 5.0), span("dumb", 1.5)]);
        assert_eq!(calls, [6], "all words in one step");
    }

    #[test]
    fn neighbours_that_add_up_are_one_span() {
        let (spans, calls) = found("what a stupid idiot he is", &[("stupid", 2.0), ("idiot", 3.0)], 100);
        assert_eq!((spans, calls), (vec![span("stupid idiot", 5.0)], vec![6, 1]));
        // The weaker neighbour is too weak to be part of the span.
        let (spans, _) = found("what a silly idiot he is", &[("silly", 0.5), ("idiot", 3.0)], 100);
        assert_eq!(spans, [span("idiot", 3.0), span("silly", 0.5)]);
    }

    #[test]
    fn groups_of_long_texts_are_divided() {
        let mut text = vec!["é"; 1_000];
        text[700] = "idiot";
        text[10] = "dumb";
        let (spans, calls) = found(&text.join(" "), &[("idiot", 5.0), ("dumb", 3.0)], 10_000);
        assert_eq!(spans, [span("idiot", 5.0), span("dumb", 3.0)]);
        assert_eq!(calls, [64, 31], "the words of two groups");
    }

    #[test]
    fn worst_piece_of_many_windows_is_explained() {
        let mut text = vec!["🐷"; 2_000];
        text[700] = "idiot";
        text[1_900] = "dumb";
        let (spans, calls) = found(&text.join(" "), &[("idiot", 5.0), ("dumb", 3.0)], 100);
        // Without it the score is that of the window with the other word.
        assert_eq!(spans, [span("idiot", 2.0)]);
        assert_eq!(calls, [42, 48, 1]);
    }

    #[test]
    fn words_that_count_once_are_left_out_together() {
        // The highest window counts, so no word alone lowers the score.
        let (spans, _) = found("idiot a idiot b c d e f", &[("idiot", 5.0)], 1);
        assert_eq!(spans, [span("idiot a idiot b", 5.0)]);
        let text = "idiot ".repeat(200);
        assert_eq!(found(&text, &[("idiot", 5.0)], 1).0, []);
    }

    #[test]
    fn texts_without_words_have_no_spans() {
        for text in ["", " \n", "!!!", "nice day"] {
            assert_eq!(found(text, &[("idiot", 5.0)], 100).0, [], "{text:?}");
        }
        let (spans, _) = found("idiot", &[("idiot", 5.0)], 100);
        assert_eq!(spans, [span("idiot", 5.0)]);
    }
}
