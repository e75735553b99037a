//! Combines the outputs of the models into the verdict.

use guest_sdk::settings::Settings;
use guest_sdk::{CategoryScore, Fault, Gap, Kinds, Tier, Verdict};

use crate::categories::{CATEGORIES, Rule};
use crate::judge::Judgement;

/// The classifier's output for the parts of one kind.
#[derive(Debug)]
pub(crate) enum Parts<'s> {
    /// The input has no such parts.
    Absent,
    /// No model is configured for them.
    NoModel,
    /// A model judged them.
    Judged(Judgement<'s>),
}

/// Finding for one category in the parts of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Finding {
    /// There are no such parts.
    Absent,
    /// Score of the worst part, and the tier that decided.
    Score(f32, Tier),
    /// Reason why no model judged it.
    Gap(&'static str),
}

impl Finding {
    /// The score, if there is one.
    pub(crate) fn score(self) -> Option<f32> {
        match self {
            Finding::Score(score, _) => Some(score),
            Finding::Absent | Finding::Gap(_) => None,
        }
    }
}

/// A category on its way to the verdict.
#[derive(Debug)]
pub(crate) struct Row<'n> {
    pub(crate) name: &'n str,
    /// Minimum score at which it is flagged.
    pub(crate) threshold: f32,
    pub(crate) text: Finding,
    /// Reasons why the score of the text is incomplete.
    pub(crate) text_gaps: Vec<&'static str>,
    pub(crate) image: Finding,
    /// Reason why the score of the images is incomplete.
    pub(crate) image_gap: Option<String>,
}

/// Findings of the classifiers for OpenAI's categories and those of `policy`, which a language
/// model decides. For the latter, a text without any word that the classifier knows is a gap, so
/// that the language model judges it.
///
/// # Errors
///
/// `internal` when a threshold is not a number.
pub(crate) fn rows<'n>(
    settings: &Settings,
    policy: &'n [String],
    text: &Parts<'_>,
    image: &Parts<'_>,
) -> Result<Vec<Row<'n>>, Fault> {
    let own = policy.iter().filter(|name| CATEGORIES.iter().all(|category| category.name != name.as_str()));
    let own = own.map(|name| (name.as_str(), 0.5, None, None));
    let blind = matches!(text, Parts::Judged(judgement) if judgement.blind);
    let all =
        CATEGORIES.iter().map(|known| (known.name, known.threshold, known.text, known.image)).chain(own);
    all.map(|(name, default, text_rule, image_rule)| {
        let judged = match find(text, text_rule, ["no text model is configured", "no text model judges it"]) {
            Finding::Score(..) if blind && policy.iter().any(|category| category == name) => {
                Finding::Gap("the text model knows no word of it")
            }
            finding => finding,
        };
        let seen = find(image, image_rule, ["no image model is configured", "no image model judges it"]);
        let image_gap = match (seen, image) {
            (Finding::Score(..), Parts::Judged(judgement)) => judgement.gap.clone(),
            _ => None,
        };
        Ok(Row {
            name,
            threshold: settings.get(&["threshold.", name].concat(), default)?,
            text: judged,
            text_gaps: Vec::new(),
            image: seen,
            image_gap,
        })
    })
    .collect()
}

/// Builds the verdict: for each category the worst part's score, or the reasons of its gaps.
pub(crate) fn verdict(rows: Vec<Row<'_>>) -> Verdict {
    let mut verdict = Verdict { flagged: false, scores: Vec::new(), gaps: Vec::new() };
    for Row { name, threshold, text, mut text_gaps, image, image_gap } in rows {
        let mut worst: Option<(f32, Tier)> = None;
        let (mut applied, mut unjudged) = (Kinds::empty(), Kinds::empty());
        let mut reasons: Vec<&str> = Vec::new();
        for (kind, finding) in [(Kinds::TEXT, text), (Kinds::IMAGE, image)] {
            match finding {
                Finding::Absent => {}
                Finding::Score(score, tier) => {
                    worst = Some(worst.filter(|(worst, _)| *worst >= score).unwrap_or((score, tier)));
                    applied = applied | kind;
                }
                Finding::Gap(reason) => {
                    unjudged = unjudged | kind;
                    reasons.push(reason);
                }
            }
        }
        if !text_gaps.is_empty() {
            unjudged = unjudged | Kinds::TEXT;
            reasons.append(&mut text_gaps);
        }
        if let Some(gap) = &image_gap {
            unjudged = unjudged | Kinds::IMAGE;
            reasons.push(gap);
        }
        if let Some((score, tier)) = worst {
            let flagged = score >= threshold;
            verdict.flagged |= flagged;
            verdict.scores.push(CategoryScore { category: name.to_owned(), score, flagged, applied, tier });
        }
        if !reasons.is_empty() {
            let (category, reason) = (name.to_owned(), reasons.join("; "));
            verdict.gaps.push(Gap { category, unjudged, reason });
        }
    }
    verdict
}

/// Finding of the parts by `rule`. `gaps` are the reasons for a missing model and for a model
/// without such labels.
fn find(parts: &Parts<'_>, rule: Option<Rule>, gaps: [&'static str; 2]) -> Finding {
    match parts {
        Parts::Absent => Finding::Absent,
        Parts::NoModel => Finding::Gap(gaps[0]),
        Parts::Judged(judgement) => {
            let score = |rule: Rule| {
                judgement.rows().filter_map(|row| rule.score(&judgement.labels, row)).reduce(f32::max)
            };
            let score = rule.and_then(score);
            score.map_or(Finding::Gap(gaps[1]), |score| Finding::Score(score, Tier::Classifier))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JIGSAW: [&str; 6] = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"];
    const NSFW: [&str; 5] = ["Drawing", "Hentai", "Neutral", "Porn", "Sexy"];

    fn judged(labels: &[&'static str], values: &[f32]) -> Parts<'static> {
        Parts::Judged(Judgement { labels: labels.to_vec(), values: values.to_vec(), blind: false, gap: None })
    }

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::from_pairs(pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    /// The verdict of the classifiers alone.
    fn judge(settings: &Settings, text: &Parts<'_>, image: &Parts<'_>) -> Result<Verdict, Fault> {
        rows(settings, &[], text, image).map(verdict)
    }

    fn score<'v>(verdict: &'v Verdict, category: &str) -> &'v CategoryScore {
        verdict.scores.iter().find(|score| score.category == category).unwrap()
    }

    #[test]
    fn worst_part_decides() {
        let rows = [0.1, 0.0, 0.2, 0.9, 0.3, 0.6, 0.7, 0.0, 0.1, 0.0, 0.0, 0.0];
        let found = judge(&settings(&[]), &judged(&JIGSAW, &rows), &Parts::Absent).unwrap();
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
            let found = judge(&settings(pairs), &judged(&JIGSAW, &row), &Parts::Absent).unwrap();
            (found.flagged, score(&found, "harassment").flagged)
        };
        assert_eq!(flagged(&[]), (false, false));
        assert_eq!(flagged(&[("threshold.harassment", "0.4")]), (true, true));
        let broken = settings(&[("threshold.harassment", "high")]);
        let broken = judge(&broken, &judged(&JIGSAW, &row), &Parts::Absent);
        assert!(
            matches!(broken, Err(Fault::Internal(message)) if message.contains("`threshold.harassment`"))
        );
    }

    #[test]
    fn category_has_score_and_gap_by_kind() {
        let text = judged(&JIGSAW, &[0.0; 6]);
        let image = judged(&NSFW, &[0.0, 0.25, 0.25, 0.5, 0.0]);
        let found = judge(&settings(&[]), &text, &image).unwrap();
        assert_eq!(score(&found, "sexual").score, 0.75);
        assert!(score(&found, "sexual").applied == Kinds::IMAGE);
        let gap = found.gaps.iter().find(|gap| gap.category == "sexual").unwrap();
        assert!(gap.unjudged == Kinds::TEXT);
        let gap = found.gaps.iter().find(|gap| gap.category == "violence").unwrap();
        assert!(gap.unjudged == Kinds::TEXT | Kinds::IMAGE);
        assert_eq!(gap.reason, "no text model judges it; no image model judges it");
    }

    #[test]
    fn image_judged_in_part_has_score_and_gap() {
        let gap = Some("image 1: the views show 5 of 60 frames".to_owned());
        let (labels, values) = (NSFW.to_vec(), vec![0.0, 0.25, 0.25, 0.5, 0.0]);
        let image = Parts::Judged(Judgement { labels, values, blind: false, gap });
        let found = judge(&settings(&[]), &Parts::Absent, &image).unwrap();
        assert_eq!(score(&found, "sexual").score, 0.75);
        let gap = |category| found.gaps.iter().find(|gap| gap.category == category).unwrap();
        assert_eq!(gap("sexual").reason, "image 1: the views show 5 of 60 frames");
        assert!(gap("sexual").unjudged == Kinds::IMAGE);
        assert_eq!(gap("violence").reason, "no image model judges it");
    }

    #[test]
    fn policy_adds_its_own_categories() {
        let policy = ["spoilers".to_owned(), "hate".to_owned()];
        let text = judged(&JIGSAW, &[0.0; 6]);
        let mut rows =
            rows(&settings(&[("threshold.spoilers", "0.9")]), &policy, &text, &Parts::NoModel).unwrap();
        assert_eq!(rows.len(), CATEGORIES.len() + 1);
        let last = rows.last_mut().unwrap();
        assert_eq!((last.name, last.threshold), ("spoilers", 0.9));
        assert_eq!(last.text, Finding::Gap("no text model judges it"));
        last.text = Finding::Score(0.95, Tier::Language);
        last.text_gaps.push("a part was not read");
        let found = verdict(rows);
        assert!(found.flagged && score(&found, "spoilers").flagged);
        assert!(score(&found, "spoilers").tier == Tier::Language);
        assert!(score(&found, "hate").tier == Tier::Classifier);
        let gap = found.gaps.iter().find(|gap| gap.category == "spoilers").unwrap();
        assert_eq!(gap.reason, "no image model is configured; a part was not read");
        assert!(gap.unjudged == Kinds::TEXT | Kinds::IMAGE);
    }

    #[test]
    fn unknown_words_are_left_to_the_policy() {
        let (labels, values) = (JIGSAW.to_vec(), vec![0.01; 6]);
        let text = Parts::Judged(Judgement { labels, values, blind: true, gap: None });
        let finding = |policy: &[String]| {
            let rows = rows(&settings(&[]), policy, &text, &Parts::Absent).unwrap();
            let finding = |name| rows.iter().find(|row| row.name == name).unwrap().text;
            [finding("harassment"), finding("hate")]
        };
        let score = Finding::Score(0.01, Tier::Classifier);
        assert_eq!(finding(&[]), [score, score]);
        let gap = Finding::Gap("the text model knows no word of it");
        assert_eq!(finding(&["harassment".to_owned()]), [gap, score]);
    }

    #[test]
    fn everything_is_a_gap_without_a_model() {
        let found = judge(&settings(&[]), &Parts::NoModel, &Parts::Absent).unwrap();
        assert!(!found.flagged && found.scores.is_empty());
        assert_eq!(found.gaps.len(), CATEGORIES.len());
        assert!(found.gaps.iter().all(|gap| gap.reason == "no text model is configured"));
    }
}
