//! Explains scores of texts to callers who ask: the words behind them, or the score of each
//! sentence. Only classifiers are explained.

use std::collections::BTreeMap;
use std::ops::Range;

use guest_sdk::nn::{ErrorCode, ModelError};
use guest_sdk::settings::Settings;
use guest_sdk::texts::TextFacts;
use guest_sdk::{Contribution, Sentence, Tier, log, note, report_contributions, report_sentences};

use crate::classifiers::{Assignment, Classifier, Judge};
use crate::limits::{MAX_EXPLAINED, MAX_SENTENCES};
use crate::occlusion::{self, Scored, Scorer, Variant, odds};
use crate::part::Text;
use crate::variants::{Budget, ModelScorer, Rows, scored};
use crate::verdict::{Finding, Judgements, Row};
use crate::words::{characters, groups, sentences, words};

/// A verdict on texts, and what it was made of.
#[derive(Clone, Copy)]
pub(crate) struct Judged<'j> {
    pub(crate) settings: &'j Settings,
    pub(crate) classifiers: &'j [Classifier<'j>],
    pub(crate) assignments: &'j [Assignment],
    pub(crate) judgements: &'j Judgements<'j>,
    pub(crate) rows: &'j [Row<'j>],
    pub(crate) texts: &'j [Text],
}

/// Reports what the caller asks for. The verdict stands without it, so a model that fails is noted,
/// and is no fault.
pub(crate) fn explain(judged: &Judged<'_>) {
    match judged.settings.text("request.explain") {
        Some("spans") => judged.contributions(),
        Some("sentences") => judged.sentences(),
        _ => {}
    }
}

/// A text whose score in a category is to be explained.
struct Target<'j> {
    category: &'j str,
    judge: &'j Judge,
    /// Index of the text.
    text: usize,
    score: f32,
    is_flagged: bool,
    /// Log-odds of the score above its threshold.
    margin: f32,
}

impl<'j> Judged<'j> {
    fn contributions(&self) {
        let by_language: Vec<_> =
            self.rows.iter().filter(|row| matches!(row.text, Finding::Score(_, Tier::Language))).collect();
        if !by_language.is_empty() {
            let names: Vec<_> = by_language.iter().map(|row| format!("`{}`", row.name)).collect();
            note(&format!(
                "no spans for {}: a language model took part, and spans explain classifiers only",
                names.join(", ")
            ));
        }
        let is_flagged = |row: &&Row<'_>| {
            let threshold = self.threshold(row.name, row.threshold);
            row.text.score().zip(threshold).is_some_and(|(score, threshold)| score >= threshold)
        };
        let targets = self.targets(by_language.into_iter().any(|row| is_flagged(&row)));
        let mut budget = Budget::new();
        let mut cache = BTreeMap::new();
        let mut found = Vec::new();
        let mut failed = false;
        for target in &targets {
            match self.occlude(target, &mut budget, &mut cache) {
                Ok(contributions) => found.extend(contributions),
                Err(error) => {
                    failed = true;
                    log::warn(&format!("spans are incomplete: {error}"));
                    note(match error.code {
                        ErrorCode::Timeout => "spans are incomplete: the model did not answer in time",
                        _ => "spans are incomplete: the model did not answer",
                    });
                    break;
                }
            }
        }
        if budget.is_spent() {
            note("spans are incomplete: the texts are too long to try all words");
        } else if found.is_empty() && !targets.is_empty() && !failed {
            note("no words alone raise the score");
        }
        found.sort_by(|one, other| other.log_odds.total_cmp(&one.log_odds));
        report_contributions(&found);
    }

    /// The caller's threshold of a category, or `own`.
    fn threshold(&self, category: &str, own: Option<f32>) -> Option<f32> {
        let asked = self.settings.text(&["request.threshold.", category].concat());
        asked.and_then(|threshold| threshold.parse().ok()).or(own)
    }

    /// The texts and categories to explain: the flagged ones. If none is flagged, here or by a
    /// language model (`is_flagged`), the one nearest to its threshold.
    fn targets(&self, is_flagged: bool) -> Vec<Target<'j>> {
        let mut targets = Vec::new();
        for (assignment, row) in self.assignments.iter().zip(self.rows) {
            if !matches!(row.text, Finding::Score(_, Tier::Classifier)) {
                continue;
            }
            let Some(judge) = &assignment.text else { continue };
            let Some(Some(judgement)) = self.judgements.get(judge.index) else { continue };
            let Some(threshold) = self.threshold(&assignment.name, assignment.threshold) else { continue };
            for (text, scores) in judgement.rows().enumerate() {
                let Some(score) = judge.rule.score(&judgement.labels, scores) else { continue };
                // Clients do not have the texts of images.
                if self.texts.get(text).is_none_or(|text| text.is_read) {
                    continue;
                }
                let (is_flagged, margin) = (score >= threshold, odds(score) - odds(threshold));
                let category = assignment.name.as_str();
                targets.push(Target { category, judge, text, score, is_flagged, margin });
            }
        }
        targets.sort_by(|one, other| {
            (other.is_flagged.cmp(&one.is_flagged)).then(other.margin.total_cmp(&one.margin))
        });
        let flagged = targets.iter().filter(|target| target.is_flagged).count();
        targets.truncate(if flagged == 0 && !is_flagged { 1 } else { flagged.min(MAX_EXPLAINED) });
        targets
    }

    /// The words behind the score of `target`.
    fn occlude(
        &self,
        target: &Target<'_>,
        budget: &mut Budget,
        cache: &mut BTreeMap<(usize, usize), Rows>,
    ) -> Result<Vec<Contribution>, ModelError> {
        let Target { category, judge, text, score, .. } = *target;
        let classifier = &self.classifiers[judge.index];
        let facts = self.facts(judge, text);
        let Text { text: content, part, .. } = &self.texts[text];
        let rows = cache.entry((judge.index, text)).or_default();
        let (rule, base) = (&judge.rule, scored(score, &facts));
        let windows = base.windows;
        let mut scorer = ModelScorer { classifier, rule, text: content, windows, rows, budget };
        let found = occlusion::explain(&mut scorer, content.len(), &words(content), base)?;
        let contribution = |found: occlusion::Found| {
            let Range { start, end } = characters(content, &found.range);
            Contribution {
                part: *part,
                category: category.to_owned(),
                text: content[found.range].to_owned(),
                start,
                end,
                score_without: found.score_without,
                log_odds: found.log_odds,
            }
        };
        Ok(found.into_iter().map(contribution).collect())
    }

    /// Facts of the model of `judge` about a text.
    fn facts(&self, judge: &Judge, text: usize) -> TextFacts {
        let judgement = self.judgements[judge.index].as_ref();
        judgement.and_then(|judgement| judgement.facts.get(text)).cloned().unwrap_or_default()
    }

    fn sentences(&self) {
        let judged = self.assignments.iter().zip(self.rows).filter_map(|(assignment, row)| {
            let is_explained = matches!(row.text, Finding::Score(_, Tier::Classifier));
            Some((assignment.name.as_str(), assignment.text.as_ref().filter(|_| is_explained)?))
        });
        let judged: Vec<_> = judged.collect();
        let mut budget = Budget::new();
        for (index, text) in self.texts.iter().enumerate().filter(|(_, text)| !text.is_read) {
            let all = sentences(&text.text);
            let spans: Vec<Range<usize>> = groups(0..all.len(), MAX_SENTENCES)
                .into_iter()
                .map(|group| all[group.start].start..all[group.end - 1].end)
                .collect();
            let mut caches: BTreeMap<usize, Rows> = BTreeMap::new();
            for &(category, judge) in &judged {
                let rows = caches.entry(judge.index).or_default();
                let classifier = &self.classifiers[judge.index];
                let mut scorer = ModelScorer {
                    classifier,
                    rule: &judge.rule,
                    text: &text.text,
                    windows: self.facts(judge, index).windows as usize,
                    rows,
                    budget: &mut budget,
                };
                let variants: Vec<_> = spans.iter().cloned().map(Variant::whole).collect();
                let scored = match scorer.score(&variants) {
                    Ok(scored) => scored,
                    Err(error) => {
                        return log::warn(&format!("text {index}: sentences without a score: {error}"));
                    }
                };
                let sentence = |(span, scored): (&Range<usize>, Option<Scored>)| {
                    let Range { start, end } = characters(&text.text, span);
                    let (part, category, score) = (text.part, category.to_owned(), scored?.score);
                    Some(Sentence { part, category, score, start, end })
                };
                report_sentences(&spans.iter().zip(scored).filter_map(sentence).collect::<Vec<_>>());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classifiers::{assign, read};
    use crate::judge::Judgement;
    use crate::verdict::{Parts, rows};

    const CATEGORIES: &str = r#"{"harassment":{"rule":"max","labels":["toxic"],"threshold":0.7},"hate":{"rule":"max","labels":["hate"],"threshold":0.5},"insult":{"rule":"max","labels":["toxic"]}}"#;

    /// Categories and texts to explain, for the scores `toxic` and `hate` of each text. The second
    /// text was read in an image. A language model took part in the categories `by_language`.
    fn targets(pairs: &[(&str, &str)], values: &[f32], by_language: &[&str]) -> Vec<(String, usize)> {
        let base = [
            ("models.text.task", "text-classification"),
            ("models.text.labels", "toxic\nhate"),
            ("models.text.categories", CATEGORIES),
        ];
        let all = base.iter().chain(pairs).map(|&(key, value)| (key.to_owned(), value.to_owned()));
        let settings = Settings::from_pairs(all.collect());
        let classifiers = read(&settings).unwrap();
        let assignments = assign(&settings, &classifiers, &[]).unwrap();
        let labels = classifiers[0].labels.clone();
        let judgements = vec![Some(Judgement { labels, values: values.to_vec(), ..Judgement::default() })];
        let mut rows = rows(&assignments, &[], &judgements, [Parts::Judged, Parts::Absent]);
        let mut is_flagged = false;
        for row in rows.iter_mut().filter(|row| by_language.contains(&row.name)) {
            row.text = Finding::Score(0.9, Tier::Language);
            is_flagged = true;
        }
        let text = |part: u32| Text { part, text: "a".to_owned(), is_read: part == 1 };
        let texts: Vec<_> = (0..values.len() as u32 / 2).map(text).collect();
        let judged = Judged {
            settings: &settings,
            classifiers: &classifiers,
            assignments: &assignments,
            judgements: &judgements,
            rows: &rows,
            texts: &texts,
        };
        let targets = judged.targets(is_flagged);
        targets.into_iter().map(|target| (target.category.to_owned(), target.text)).collect()
    }

    fn pairs(pairs: &[(&str, usize)]) -> Vec<(String, usize)> {
        pairs.iter().map(|&(category, text)| (category.to_owned(), text)).collect()
    }

    #[test]
    fn flagged_pairs_are_explained_by_margin() {
        let found = targets(&[], &[0.75, 0.9, 0.99, 0.99, 0.8, 0.1], &[]);
        assert_eq!(found, pairs(&[("hate", 0), ("harassment", 2), ("harassment", 0)]));
        let many: Vec<f32> = (0..100).flat_map(|_| [0.9, 0.9]).collect();
        assert_eq!(targets(&[], &many, &[]).len(), MAX_EXPLAINED);
    }

    #[test]
    fn nearest_pair_is_explained_if_none_is_flagged() {
        assert_eq!(targets(&[], &[0.2, 0.1, 0.69, 0.49, 0.3, 0.05], &[]), pairs(&[("harassment", 2)]));
        assert_eq!(targets(&[], &[0.2, 0.1], &["harassment"]), []);
    }

    #[test]
    fn thresholds_of_the_request_count() {
        let asked = [("request.threshold.insult", "0.5"), ("request.threshold.harassment", "0.9")];
        assert_eq!(targets(&asked, &[0.8, 0.1], &[]), pairs(&[("insult", 0)]));
        let zero = [("request.threshold.hate", "0")];
        assert_eq!(targets(&zero, &[0.1, 0.0], &[]), pairs(&[("hate", 0)]));
    }

    #[test]
    fn categories_of_a_language_model_are_left_out() {
        assert_eq!(targets(&[], &[0.9, 0.9], &["hate"]), pairs(&[("harassment", 0)]));
    }
}
