//! Combines the outputs of the models into the verdict.

use guest_sdk::{CategoryScore, Gap, Kinds, Tier, Verdict};

use crate::categories::Advised;
use crate::classifiers::{Assignment, Judge};
use crate::judge::Judgement;
use crate::odds::aligned;
use crate::reading::Reading;
use crate::scores::mean;

/// The outputs of the classifiers, by their index; `None` for those that were not run.
pub(crate) type Judgements<'s> = Vec<Option<Judgement<'s>>>;

/// Parts of one kind in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    /// The input has no such parts.
    Absent,
    /// No model is configured for them.
    NoModel,
    /// Models judge them.
    Judged,
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
    /// Minimum score at which it is flagged; `None` if it is only reported.
    pub(crate) threshold: Option<f32>,
    pub(crate) text: Finding,
    /// Reasons why the score of the text is incomplete.
    pub(crate) text_gaps: Vec<String>,
    /// Scores of the other classifiers that were run, on the scale of the first.
    pub(crate) others: Vec<f32>,
    /// Signs in the first classifier's reading that its score may be wrong.
    pub(crate) reading: Reading,
    pub(crate) image: Finding,
    /// Reasons why the score of the images is incomplete.
    pub(crate) image_gaps: Vec<String>,
}

#[cfg(test)]
impl<'n> Row<'n> {
    /// A category with the finding on the texts alone.
    pub(crate) fn of_texts(name: &'n str, threshold: f32, text: Finding) -> Self {
        Row {
            name,
            threshold: Some(threshold),
            text,
            text_gaps: Vec::new(),
            others: Vec::new(),
            reading: Reading::default(),
            image: Finding::Absent,
            image_gaps: Vec::new(),
        }
    }
}

/// Reason of a gap for a text that a classifier cannot read.
const BLIND: &str = "the text model knows no word of it";

/// Findings of the classifiers for the assigned categories. A text without any word that the
/// classifier knows is a gap. For the categories that are `advised` it replaces the score, so that
/// the language model judges the text.
pub(crate) fn rows<'n>(
    assignments: &'n [Assignment],
    advised: &[Advised],
    judgements: &Judgements<'_>,
    [texts, images]: [Parts; 2],
) -> Vec<Row<'n>> {
    let row = |assignment: &'n Assignment| {
        let Assignment { name, threshold, scale, text, others, images: seers, .. } = assignment;
        let of = |judge: &Judge| judgements.get(judge.index)?.as_ref();
        let read = text.as_ref().and_then(of);
        let missing = ["no text model is configured", "no text model judges it"];
        let mut text_gaps: Vec<_> =
            assignment.of_texts().filter_map(|judge| of(judge)?.gap.clone()).collect();
        let score = |judge: &Judge| Some(aligned(judge.score(of(judge)?)?, judge.threshold, *scale));
        let mut judged = find(texts, mean(assignment, of), missing);
        if matches!(judged, Finding::Score(..)) && read.is_some_and(|judgement| judgement.blind) {
            if advised.iter().any(|own| own.name == *name) {
                judged = Finding::Gap(BLIND);
            } else {
                text_gaps.push(BLIND.to_owned());
            }
        }
        let missing = ["no image model is configured", "no image model judges it"];
        let mut image_gaps: Vec<_> = seers.iter().filter_map(|judge| of(judge)?.gap.clone()).collect();
        image_gaps.dedup();
        Row {
            name,
            threshold: *threshold,
            text: judged,
            text_gaps,
            others: others.iter().filter_map(score).collect(),
            reading: read.map_or_else(Reading::default, |judgement| judgement.reading),
            image: find(images, seers.iter().filter_map(score).reduce(f32::max), missing),
            image_gaps,
        }
    };
    assignments.iter().map(row).collect()
}

/// Builds the verdict: for each category the worst part's score, or the reasons of its gaps. A
/// category beyond OpenAI's that is only reported has no gaps.
pub(crate) fn verdict(rows: Vec<Row<'_>>) -> Verdict {
    let mut verdict = Verdict { flagged: false, scores: Vec::new(), gaps: Vec::new() };
    for Row { name, threshold, text, text_gaps, image, image_gaps, .. } in rows {
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
        for (kind, gaps) in [(Kinds::TEXT, &text_gaps), (Kinds::IMAGE, &image_gaps)] {
            if !gaps.is_empty() {
                unjudged = unjudged | kind;
                reasons.extend(gaps.iter().map(String::as_str));
            }
        }
        if let Some((score, tier)) = worst {
            let flagged = threshold.is_some_and(|threshold| score >= threshold);
            verdict.flagged |= flagged;
            verdict.scores.push(CategoryScore { category: name.to_owned(), score, flagged, applied, tier });
        }
        if !reasons.is_empty() && threshold.is_some() {
            let (category, reason) = (name.to_owned(), reasons.join("; "));
            verdict.gaps.push(Gap { category, unjudged, reason });
        }
    }
    verdict
}

/// Finding in the parts by their score. `gaps` are the reasons for a missing model and for a
/// category that no model judges.
fn find(parts: Parts, score: Option<f32>, gaps: [&'static str; 2]) -> Finding {
    match (parts, score) {
        (Parts::Absent, _) => Finding::Absent,
        (Parts::NoModel, _) => Finding::Gap(gaps[0]),
        (Parts::Judged, Some(score)) => Finding::Score(score, Tier::Classifier),
        (Parts::Judged, None) => Finding::Gap(gaps[1]),
    }
}

#[cfg(test)]
mod tests {
    use guest_sdk::settings::Settings;

    use super::*;
    use crate::classifiers::{assign, read};

    const SETTINGS: [(&str, &str); 6] = [
        ("models.image.task", "image-classification"),
        ("models.image.labels", "Hentai\nPorn\nNeutral"),
        (
            "models.image.categories",
            r#"{"sexual":{"rule":"sum","labels":["Porn","Hentai"],"threshold":0.5}}"#,
        ),
        ("models.text.task", "text-classification"),
        ("models.text.labels", "toxic\nthreat\nhate"),
        (
            "models.text.categories",
            r#"{"harassment":{"rule":"max","labels":["toxic"],"threshold":0.7},"harassment/threatening":{"rule":"max","labels":["threat"],"threshold":0.2},"hate/threatening":{"rule":"min","labels":["threat","hate"]},"toxicity":{"rule":"max","labels":["toxic"]}}"#,
        ),
    ];

    /// Values of the image model and of the text model.
    struct Values<'v> {
        image: Option<&'v [f32]>,
        text: Option<&'v [f32]>,
        blind: bool,
        image_gap: Option<&'v str>,
    }

    const NONE: Values<'static> = Values { image: None, text: None, blind: false, image_gap: None };

    fn judge_with(pairs: &[(&str, &str)], policy: &[&str], values: &Values<'_>) -> Verdict {
        let pairs = SETTINGS.iter().chain(pairs).map(|&(key, value)| (key.to_owned(), value.to_owned()));
        let settings = Settings::from_pairs(pairs.collect());
        let classifiers = read(&settings).unwrap();
        let advised = |&name: &&str| Advised { name: name.to_owned(), threshold: None };
        let policy: Vec<_> = policy.iter().map(advised).collect();
        let assignments = assign(&settings, &classifiers, &policy).unwrap();
        let judgement = |index: usize, values: Option<&[f32]>, blind, gap: Option<&str>| {
            let labels = classifiers[index].labels.clone();
            let (values, gap) = (values?.to_vec(), gap.map(str::to_owned));
            Some(Judgement { labels, values, blind, gap, ..Judgement::default() })
        };
        let judgements = vec![
            judgement(0, values.image, false, values.image_gap),
            judgement(1, values.text, values.blind, None),
        ];
        let parts = [values.text, values.image]
            .map(|values| if values.is_some() { Parts::Judged } else { Parts::Absent });
        verdict(rows(&assignments, &policy, &judgements, parts))
    }

    fn score<'v>(verdict: &'v Verdict, category: &str) -> &'v CategoryScore {
        verdict.scores.iter().find(|score| score.category == category).unwrap()
    }

    fn gap<'v>(verdict: &'v Verdict, category: &str) -> &'v Gap {
        verdict.gaps.iter().find(|gap| gap.category == category).unwrap()
    }

    #[test]
    fn worst_part_decides() {
        let text = Some(&[0.1, 0.9, 0.6, 0.7, 0.0, 0.0][..]);
        let found = judge_with(&[], &[], &Values { text, ..NONE });
        assert!(found.flagged);
        assert_eq!(score(&found, "harassment").score, 0.7);
        assert_eq!(score(&found, "harassment/threatening").score, 0.9);
        assert_eq!(score(&found, "hate/threatening").score, 0.6);
        assert!(score(&found, "harassment").applied == Kinds::TEXT);
        assert!(gap(&found, "violence").unjudged == Kinds::TEXT);
        assert_eq!(gap(&found, "violence").reason, "no text model judges it");
    }

    #[test]
    fn thresholds_come_from_the_settings() {
        let text = Some(&[0.4, 0.0, 0.0][..]);
        let flagged = |pairs| {
            let found = judge_with(pairs, &[], &Values { text, ..NONE });
            (found.flagged, score(&found, "harassment").flagged, score(&found, "toxicity").flagged)
        };
        assert_eq!(flagged(&[]), (false, false, false));
        assert_eq!(flagged(&[("threshold.harassment", "0.4")]), (true, true, false));
        assert_eq!(flagged(&[("threshold.toxicity", "0.4")]), (true, false, true));
    }

    #[test]
    fn category_has_score_and_gap_by_kind() {
        let (text, image) = (Some(&[0.0; 3][..]), Some(&[0.25, 0.5, 0.25][..]));
        let found = judge_with(&[], &[], &Values { text, image, ..NONE });
        assert_eq!(score(&found, "sexual").score, 0.75);
        assert!(score(&found, "sexual").applied == Kinds::IMAGE);
        assert!(gap(&found, "sexual").unjudged == Kinds::TEXT);
        assert!(gap(&found, "violence").unjudged == Kinds::TEXT | Kinds::IMAGE);
        assert_eq!(gap(&found, "violence").reason, "no text model judges it; no image model judges it");
        assert!(found.gaps.iter().all(|gap| gap.category != "toxicity"), "it is only reported");
    }

    #[test]
    fn image_judged_in_part_has_score_and_gap() {
        let image = Some(&[0.25, 0.5, 0.25][..]);
        let image_gap = Some("image 1: the views show 5 of 60 frames");
        let found = judge_with(&[], &[], &Values { image, image_gap, ..NONE });
        assert_eq!(score(&found, "sexual").score, 0.75);
        assert_eq!(gap(&found, "sexual").reason, "image 1: the views show 5 of 60 frames");
        assert!(gap(&found, "sexual").unjudged == Kinds::IMAGE);
        assert_eq!(gap(&found, "violence").reason, "no image model judges it");
    }

    #[test]
    fn mean_of_text_models_counts_if_combined() {
        let second = r#"{"harassment":{"rule":"max","labels":["rude"],"threshold":0.5}}"#;
        let pairs = SETTINGS.iter().copied().chain([
            ("models.text2.task", "text-classification"),
            ("models.text2.labels", "rude"),
            ("models.text2.categories", second),
            ("combine", "mean"),
        ]);
        let pairs: Vec<_> = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let settings = Settings::from_pairs(pairs);
        let classifiers = read(&settings).unwrap();
        let assignments = assign(&settings, &classifiers, &[]).unwrap();
        // Two texts each. The first card's threshold is 0.7, odds of 7 to 3; the second's is 0.5.
        for (one, two, expected) in [
            ([0.7, 0.0], [0.5, 0.0], 0.7),
            // Odds of 9 and of 9 · 7 / 3: their geometric mean is 13.75.
            ([0.9, 0.1], [0.9, 0.1], 0.932_19),
            // The worst text is one that both find bad, not one of each.
            ([0.7, 0.3], [0.1, 0.5], 0.5),
        ] {
            let judgement = |index: usize, values: Vec<f32>| {
                let labels = classifiers[index].labels.clone();
                Some(Judgement { labels, values, ..Judgement::default() })
            };
            let first = one.iter().flat_map(|&score| [score, 0.0, 0.0]).collect();
            let judgements = vec![None, judgement(1, first), judgement(2, two.to_vec())];
            let found = verdict(rows(&assignments, &[], &judgements, [Parts::Judged, Parts::Absent]));
            let found = score(&found, "harassment").score;
            assert!((found - expected).abs() < 1e-4, "{one:?} {two:?}: {found}");
        }
    }

    #[test]
    fn highest_score_of_image_models_counts() {
        let second = r#"{"sexual":{"rule":"max","labels":["NSFW"],"threshold":0.9}}"#;
        let pairs = [
            ("models.image.task", "image-classification"),
            ("models.image.labels", "Porn"),
            ("models.image.categories", r#"{"sexual":{"rule":"max","labels":["Porn"],"threshold":0.5}}"#),
            ("models.second.task", "image-classification"),
            ("models.second.labels", "NSFW"),
            ("models.second.categories", second),
        ];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let settings = Settings::from_pairs(pairs.to_vec());
        let classifiers = read(&settings).unwrap();
        let assignments = assign(&settings, &classifiers, &[]).unwrap();
        for (scores, expected, gaps) in [
            ([0.2, 0.3], 0.2, ["of 60", "of 60"]),
            // Odds of 1 to 9 below the threshold of the second card.
            ([0.05, 0.5], 0.1, ["of 60", "of 60"]),
            ([0.05, 0.95], 0.678_571, ["of 60", "of 20"]),
        ] {
            let judgement = |index: usize| {
                let (values, gap) = (vec![scores[index]], Some(gaps[index].to_owned()));
                let labels = classifiers[index].labels.clone();
                Some(Judgement { labels, values, gap, ..Judgement::default() })
            };
            let judgements = vec![judgement(0), judgement(1)];
            let found = verdict(rows(&assignments, &[], &judgements, [Parts::Absent, Parts::Judged]));
            let sexual = score(&found, "sexual");
            assert!((sexual.score - expected).abs() < 1e-5, "{scores:?}: {}", sexual.score);
            assert_eq!(sexual.flagged, expected >= 0.5);
            let reason = if gaps[0] == gaps[1] { "of 60" } else { "of 60; of 20" };
            assert_eq!(gap(&found, "sexual").reason, reason);
        }
    }

    #[test]
    fn unknown_words_are_left_to_the_policy() {
        let text = Some(&[0.01; 3][..]);
        let found = judge_with(&[], &["harassment"], &Values { text, blind: true, ..NONE });
        assert_eq!(gap(&found, "harassment").reason, "the text model knows no word of it");
        assert_eq!(score(&found, "harassment/threatening").score, 0.01);
        let found = judge_with(&[], &[], &Values { text, blind: true, ..NONE });
        assert_eq!(score(&found, "harassment").score, 0.01);
        assert_eq!(gap(&found, "harassment").reason, "the text model knows no word of it");
    }

    #[test]
    fn everything_is_a_gap_without_a_model() {
        let settings = Settings::from_pairs(Vec::new());
        let assignments = assign(&settings, &[], &[]).unwrap();
        let found = verdict(rows(&assignments, &[], &Vec::new(), [Parts::NoModel, Parts::Absent]));
        assert!(!found.flagged && found.scores.is_empty());
        assert_eq!(found.gaps.len(), crate::categories::OPENAI.len());
        assert!(found.gaps.iter().all(|gap| gap.reason == "no text model is configured"));
    }
}
