//! From what the models said to the verdict.

use guest_sdk::settings::Settings;
use guest_sdk::{CategoryScore, Fault, Gap, Kinds, Verdict};

use crate::categories::{CATEGORIES, Rule};
use crate::judge::Judgement;

/// What is known about the parts of one kind.
#[derive(Debug)]
pub(crate) enum Parts<'s> {
    /// The input holds none.
    Absent,
    /// No model is configured for them.
    NoModel,
    /// A model judged them.
    Judged(Judgement<'s>),
}

/// What one kind of part says about one category.
enum Finding {
    /// Nothing: there is no such part.
    Nothing,
    /// The worst part's score.
    Score(f32),
    /// Nobody looked, and why.
    Gap(&'static str),
}

/// Put the verdict together: for each category the worst part's score, or why there is none.
///
/// # Errors
///
/// `internal` when a threshold is no number.
pub(crate) fn verdict(settings: &Settings, text: &Parts<'_>, image: &Parts<'_>) -> Result<Verdict, Fault> {
    let mut verdict = Verdict { flagged: false, scores: Vec::new(), gaps: Vec::new() };
    for category in &CATEGORIES {
        let findings = [
            (
                Kinds::TEXT,
                find(text, category.text, "no text model is configured", "no text model judges it"),
            ),
            (
                Kinds::IMAGE,
                find(image, category.image, "no image model is configured", "no image model judges it"),
            ),
        ];
        let mut worst: Option<f32> = None;
        let (mut applied, mut unjudged) = (Kinds::empty(), Kinds::empty());
        let mut reasons = Vec::new();
        for (kind, finding) in findings {
            match finding {
                Finding::Nothing => {}
                Finding::Score(score) => {
                    worst = Some(worst.map_or(score, |worst| worst.max(score)));
                    applied = applied | kind;
                }
                Finding::Gap(reason) => {
                    unjudged = unjudged | kind;
                    reasons.push(reason);
                }
            }
        }
        if let Some(score) = worst {
            let threshold = settings.get(&["threshold.", category.name].concat(), category.threshold)?;
            let flagged = score >= threshold;
            verdict.flagged |= flagged;
            verdict.scores.push(CategoryScore {
                category: category.name.to_owned(),
                score,
                flagged,
                applied,
            });
        }
        if !reasons.is_empty() {
            let (category, reason) = (category.name.to_owned(), reasons.join("; "));
            verdict.gaps.push(Gap { category, unjudged, reason });
        }
    }
    Ok(verdict)
}

fn find(parts: &Parts<'_>, rule: Option<Rule>, no_model: &'static str, no_rule: &'static str) -> Finding {
    match parts {
        Parts::Absent => Finding::Nothing,
        Parts::NoModel => Finding::Gap(no_model),
        Parts::Judged(judgement) => {
            let score = |rule: Rule| {
                judgement.rows().filter_map(|row| rule.score(&judgement.labels, row)).reduce(f32::max)
            };
            rule.and_then(score).map_or(Finding::Gap(no_rule), Finding::Score)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JIGSAW: [&str; 6] = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"];
    const NSFW: [&str; 5] = ["Drawing", "Hentai", "Neutral", "Porn", "Sexy"];

    fn judged(labels: &[&'static str], values: &[f32]) -> Parts<'static> {
        Parts::Judged(Judgement { labels: labels.to_vec(), values: values.to_vec() })
    }

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::from_pairs(pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    fn score<'v>(verdict: &'v Verdict, category: &str) -> &'v CategoryScore {
        verdict.scores.iter().find(|score| score.category == category).unwrap()
    }

    #[test]
    fn the_worst_part_decides_and_its_reason_is_named() {
        let rows = [0.1, 0.0, 0.2, 0.9, 0.3, 0.6, 0.7, 0.0, 0.1, 0.0, 0.0, 0.0];
        let found = verdict(&settings(&[]), &judged(&JIGSAW, &rows), &Parts::Absent).unwrap();
        assert!(found.flagged);
        assert_eq!(score(&found, "harassment").score, 0.7);
        assert_eq!(score(&found, "harassment/threatening").score, 0.9);
        assert_eq!(score(&found, "hate/threatening").score, 0.6);
        assert!(score(&found, "hate").applied == Kinds::TEXT);
        assert_eq!(found.scores.len() + found.gaps.len(), CATEGORIES.len());
        let gap = found.gaps.iter().find(|gap| gap.category == "violence").unwrap();
        assert!(gap.unjudged == Kinds::TEXT);
        assert_eq!(gap.reason, "no text model judges it");
    }

    #[test]
    fn thresholds_come_from_the_settings() {
        let row = [0.4, 0.0, 0.0, 0.0, 0.0, 0.0];
        let flagged = |pairs| {
            let found = verdict(&settings(pairs), &judged(&JIGSAW, &row), &Parts::Absent).unwrap();
            (found.flagged, score(&found, "harassment").flagged)
        };
        assert_eq!(flagged(&[]), (false, false));
        assert_eq!(flagged(&[("threshold.harassment", "0.4")]), (true, true));
        let broken = settings(&[("threshold.harassment", "high")]);
        let broken = verdict(&broken, &judged(&JIGSAW, &row), &Parts::Absent);
        assert!(
            matches!(broken, Err(Fault::Internal(message)) if message.contains("`threshold.harassment`"))
        );
    }

    #[test]
    fn a_category_is_scored_for_one_kind_and_a_gap_for_the_other() {
        let text = judged(&JIGSAW, &[0.0; 6]);
        let image = judged(&NSFW, &[0.0, 0.25, 0.25, 0.5, 0.0]);
        let found = verdict(&settings(&[]), &text, &image).unwrap();
        assert_eq!(score(&found, "sexual").score, 0.75);
        assert!(score(&found, "sexual").applied == Kinds::IMAGE);
        let gap = found.gaps.iter().find(|gap| gap.category == "sexual").unwrap();
        assert!(gap.unjudged == Kinds::TEXT);
        let gap = found.gaps.iter().find(|gap| gap.category == "violence").unwrap();
        assert!(gap.unjudged == Kinds::TEXT | Kinds::IMAGE);
        assert_eq!(gap.reason, "no text model judges it; no image model judges it");
    }

    #[test]
    fn without_a_model_everything_is_a_gap() {
        let found = verdict(&settings(&[]), &Parts::NoModel, &Parts::Absent).unwrap();
        assert!(!found.flagged && found.scores.is_empty());
        assert_eq!(found.gaps.len(), CATEGORIES.len());
        assert!(found.gaps.iter().all(|gap| gap.reason == "no text model is configured"));
    }
}
