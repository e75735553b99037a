//! The categories of OpenAI's moderation API, and the rules that compute their scores from models'
//! labels.

/// Rule that combines the probabilities of labels into one score.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// The maximum: any label is enough.
    Max(&'static [&'static str]),
    /// The minimum: all labels are needed.
    Min(&'static [&'static str]),
    /// The sum: the labels exclude each other.
    Sum(&'static [&'static str]),
}

/// One category.
#[derive(Clone, Copy, Debug)]
pub struct Category {
    /// OpenAI's name.
    pub name: &'static str,
    /// Default of `threshold.NAME`, the minimum score of a flagged category.
    pub threshold: f32,
    /// Rule for the text model's labels.
    pub text: Option<Rule>,
    /// Rule for the image model's labels.
    pub image: Option<Rule>,
}

/// A category that no model judges. It is reported as a gap, so that no client takes it for judged.
const fn unjudged(name: &'static str) -> Category {
    Category { name, threshold: 0.5, text: None, image: None }
}

/// All categories, in the order of the verdict.
///
/// The text labels are those of the Jigsaw toxic comment challenge, each an independent
/// probability; the image labels are those of NSFWJS, which sum to 1. Its `Sexy` (suggestive, not
/// explicit) is not `sexual` in OpenAI's sense.
///
/// The thresholds of the text are for the shipped model, from rows 4,000 to 8,000 of Davidson's
/// labelled tweets. From 0.7, 98 of 100 tweets that harassment flags are hate or offence. At 0.25,
/// hate flags 35 % of the hate, 8 % of the merely offensive and 0.7 % of the rest. Those tweets
/// have no label for threats, which the model scores low: 0.2 is a judgement.
pub const CATEGORIES: [Category; 13] = [
    Category {
        name: "harassment",
        threshold: 0.7,
        text: Some(Rule::Max(&["toxic", "severe_toxic", "insult", "obscene"])),
        image: None,
    },
    Category {
        name: "harassment/threatening",
        threshold: 0.2,
        text: Some(Rule::Max(&["threat"])),
        image: None,
    },
    Category { name: "hate", threshold: 0.25, text: Some(Rule::Max(&["identity_hate"])), image: None },
    Category {
        name: "hate/threatening",
        threshold: 0.2,
        text: Some(Rule::Min(&["identity_hate", "threat"])),
        image: None,
    },
    unjudged("illicit"),
    unjudged("illicit/violent"),
    unjudged("self-harm"),
    unjudged("self-harm/instructions"),
    unjudged("self-harm/intent"),
    Category { name: "sexual", threshold: 0.5, text: None, image: Some(Rule::Sum(&["Porn", "Hentai"])) },
    unjudged("sexual/minors"),
    unjudged("violence"),
    unjudged("violence/graphic"),
];

/// Known labels without a category.
const HARMLESS: [&str; 3] = ["Drawing", "Neutral", "Sexy"];

impl Rule {
    /// Returns the score of one row of a model's output, if the model has the labels: all of them
    /// for a `Min`, any for the others. `labels` names the values of `row`.
    pub fn score(self, labels: &[&str], row: &[f32]) -> Option<f32> {
        let value = |label: &&str| row.get(labels.iter().position(|candidate| candidate == label)?).copied();
        match self {
            Rule::Max(names) => names.iter().filter_map(value).reduce(f32::max),
            Rule::Min(names) => names.iter().map(value).reduce(|one, other| Some(one?.min(other?)))?,
            Rule::Sum(names) => names.iter().filter_map(value).reduce(|one, other| (one + other).min(1.0)),
        }
    }

    fn labels(self) -> &'static [&'static str] {
        let (Rule::Max(labels) | Rule::Min(labels) | Rule::Sum(labels)) = self;
        labels
    }
}

/// Returns those of `labels` that are not known.
pub fn unknown<'l>(labels: &[&'l str]) -> Vec<&'l str> {
    let known = |label: &&str| {
        let mut rules = CATEGORIES.iter().flat_map(|category| [category.text, category.image]).flatten();
        HARMLESS.contains(label) || rules.any(|rule| rule.labels().contains(label))
    };
    labels.iter().copied().filter(|label| !known(label)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_the_rules() {
        let labels = ["a", "b", "c"];
        let row = [0.2, 0.7, 0.6];
        let cases: [(Rule, Option<f32>); 8] = [
            (Rule::Max(&["a", "b"]), Some(0.7)),
            (Rule::Max(&["c", "absent"]), Some(0.6)),
            (Rule::Max(&["absent"]), None),
            (Rule::Min(&["b", "c"]), Some(0.6)),
            (Rule::Min(&["b", "absent"]), None),
            (Rule::Sum(&["a", "c"]), Some(0.8)),
            (Rule::Sum(&["b", "c"]), Some(1.0)),
            (Rule::Sum(&["absent"]), None),
        ];
        for (rule, expected) in cases {
            assert_eq!(rule.score(&labels, &row), expected, "{rule:?}");
        }
    }

    #[test]
    fn shipped_models_judge_five_categories() {
        let text: Vec<_> = include_str!("../../../weights/toxic-bilstm/labels.txt").lines().collect();
        let image: Vec<_> =
            include_str!("../../../weights/nsfwjs-mobilenet_v2-int8/labels.txt").lines().collect();
        assert!(unknown(&text).is_empty());
        assert!(unknown(&image).is_empty());
        assert_eq!(unknown(&["toxic", "sarcasm", "Neutral"]), ["sarcasm"]);
        let row = [0.5; 6];
        let judged = |category: &&Category| {
            let by_text = category.text.and_then(|rule| rule.score(&text, &row));
            let by_image = category.image.and_then(|rule| rule.score(&image, &row));
            by_text.or(by_image).is_some()
        };
        let judged: Vec<_> = CATEGORIES.iter().filter(judged).map(|category| category.name).collect();
        assert_eq!(judged, ["harassment", "harassment/threatening", "hate", "hate/threatening", "sexual"]);
    }

    #[test]
    fn categories_are_openais() {
        let mut names = CATEGORIES.map(|category| category.name);
        names.sort_unstable();
        let openai = [
            "harassment",
            "harassment/threatening",
            "hate",
            "hate/threatening",
            "illicit",
            "illicit/violent",
            "self-harm",
            "self-harm/instructions",
            "self-harm/intent",
            "sexual",
            "sexual/minors",
            "violence",
            "violence/graphic",
        ];
        assert_eq!(names, openai);
    }
}
