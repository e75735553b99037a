//! Categories that the names of labels suggest. An operator has to confirm them.

/// A proposed category.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    /// Name of the category.
    pub(super) category: &'static str,
    /// Rule of the card: `max`, `min`, `sum` or `not`.
    pub(super) rule: &'static str,
    /// Labels of the rule.
    pub(super) labels: Vec<String>,
}

/// Threshold of proposed categories.
pub(super) const THRESHOLD: f32 = 0.5;

/// Categories with the labels of well-known sets that mean them: Jigsaw's comments and their
/// variants, hate speech, OpenAI's categories, pictures and stories for adults, injected prompts,
/// and spam. Labels are in lower case with `_` between words.
const MEANINGS: [(&str, &[&str]); 21] = [
    (
        "harassment",
        &[
            "toxic",
            "toxicity",
            "severe_toxic",
            "severe_toxicity",
            "insult",
            "obscene",
            "obscenity",
            "harassment",
            "offensive",
            "offensive_language",
            "abusive",
            "bullying",
            "cyberbullying",
        ],
    ),
    ("harassment/threatening", &["threat", "harassment_threatening"]),
    ("hate", &["identity_hate", "identity_attack", "hate", "hateful", "hate_speech", "hatespeech"]),
    ("hate/threatening", &["hate_threatening"]),
    ("illicit", &["illicit"]),
    ("illicit/violent", &["illicit_violent"]),
    ("self-harm", &["self_harm", "selfharm", "suicide", "suicidal"]),
    ("self-harm/instructions", &["self_harm_instructions"]),
    ("self-harm/intent", &["self_harm_intent"]),
    (
        "sexual",
        &["sexual", "sexual_explicit", "sexually_explicit", "nsfw", "porn", "hentai", "sexy", "explicit"],
    ),
    ("sexual/minors", &["sexual_minors"]),
    ("violence", &["violence", "violent"]),
    ("violence/graphic", &["violence_graphic", "gore"]),
    ("toxicity", &["toxic", "toxicity"]),
    ("severe-toxicity", &["severe_toxic", "severe_toxicity"]),
    ("insult", &["insult"]),
    ("profanity", &["obscene", "obscenity", "profanity"]),
    ("prompt-injection", &["injection", "prompt_injection", "jailbreak", "indirect_injection"]),
    ("spam", &["spam"]),
    ("unsafe", &["unsafe"]),
    (
        "pii",
        &[
            "email",
            "phone",
            "phone_number",
            "telephone",
            "ssn",
            "social_security_number",
            "credit_card",
            "credit_card_number",
            "iban",
            "passport",
            "passport_number",
            "street_address",
            "ip_address",
            "password",
            "username",
        ],
    ),
];

/// Categories with the labels that mean their absence.
const ABSENCES: [(&str, &[&str]); 7] = [
    ("harassment", &["non_toxic", "not_toxic", "nontoxic", "not_offensive", "non_offensive"]),
    ("toxicity", &["non_toxic", "not_toxic", "nontoxic"]),
    ("hate", &["nothate", "not_hate", "non_hate", "no_hate", "non_hate_speech"]),
    ("sexual", &["sfw"]),
    ("prompt-injection", &["no_injection", "not_injection", "non_injection"]),
    ("spam", &["ham", "not_spam", "no_spam", "non_spam"]),
    ("unsafe", &["safe", "benign"]),
];

/// Proposes categories for `labels`. `exclusive` is true if their scores sum to 1, `spans` if they
/// label tokens.
pub(super) fn propose(labels: &[String], exclusive: bool, spans: bool) -> Vec<Proposal> {
    let plain: Vec<_> = labels.iter().map(|label| plain(label, spans)).collect();
    let matching = |meanings: &[&str]| {
        let matches = labels.iter().zip(&plain).filter(|(_, plain)| meanings.contains(&plain.as_str()));
        matches.map(|(label, _)| label.clone()).collect::<Vec<_>>()
    };
    let mut proposals = Vec::new();
    for (category, meanings) in MEANINGS {
        let labels = matching(meanings);
        // The score of a label of spans is that of its best token, so several do not sum to 1.
        let rule = if exclusive && !spans && labels.len() > 1 { "sum" } else { "max" };
        if !labels.is_empty() {
            proposals.push(Proposal { category, rule, labels });
        }
    }
    let threats: Vec<_> = [&["identity_hate", "identity_attack"][..], &["threat"]].map(matching).concat();
    if threats.len() == 2 && !exclusive {
        proposals.push(Proposal { category: "hate/threatening", rule: "min", labels: threats });
    }
    if proposals.is_empty() {
        for (category, absences) in ABSENCES {
            if let Some(label) = matching(absences).into_iter().next() {
                proposals.push(Proposal { category, rule: "not", labels: vec![label] });
            }
        }
    }
    proposals.sort_by_key(|proposal| proposal.category);
    proposals
}

/// A label in lower case with `_` between words, without the position of a token's label.
fn plain(label: &str, spans: bool) -> String {
    let is_tag = |tag: &str| spans && tag.len() == 1 && "BIESLU".contains(tag);
    let label = label.split_once('-').filter(|(tag, _)| is_tag(tag)).map_or(label, |(_, label)| label);
    let words = label.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposed(labels: &[&str], exclusive: bool, spans: bool) -> Vec<String> {
        let labels: Vec<_> = labels.iter().map(|label| (*label).to_owned()).collect();
        let proposals = propose(&labels, exclusive, spans).into_iter();
        proposals.map(|p| format!("{}={}({})", p.category, p.rule, p.labels.join(","))).collect()
    }

    #[test]
    fn well_known_label_sets_are_mapped() {
        let jigsaw = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"];
        let expected = [
            "harassment=max(toxic,severe_toxic,obscene,insult)",
            "harassment/threatening=max(threat)",
            "hate=max(identity_hate)",
            "hate/threatening=min(identity_hate,threat)",
            "insult=max(insult)",
            "profanity=max(obscene)",
            "severe-toxicity=max(severe_toxic)",
            "toxicity=max(toxic)",
        ];
        assert_eq!(proposed(&jigsaw, false, false), expected);
        let cases: [(&[&str], bool, &[&str]); 9] = [
            (&["non-toxic", "toxic"], true, &["harassment=max(toxic)", "toxicity=max(toxic)"]),
            (&["SAFE", "INJECTION"], true, &["prompt-injection=max(INJECTION)"]),
            (&["BENIGN", "INJECTION", "JAILBREAK"], true, &["prompt-injection=sum(INJECTION,JAILBREAK)"]),
            (&["ham", "spam"], true, &["spam=max(spam)"]),
            (&["nothate", "hate"], true, &["hate=max(hate)"]),
            (
                &["hate speech", "normal", "offensive"],
                true,
                &["harassment=max(offensive)", "hate=max(hate speech)"],
            ),
            (&["SFW", "NSFW"], true, &["sexual=max(NSFW)"]),
            (&["SAFE", "LABEL_1"], true, &["unsafe=not(SAFE)"]),
            (&["LABEL_0", "LABEL_1"], true, &[]),
        ];
        for (labels, exclusive, expected) in cases {
            assert_eq!(proposed(labels, exclusive, false), expected, "{labels:?}");
        }
        let spans = ["O", "B-PER", "I-PER", "B-EMAIL", "I-EMAIL"];
        assert_eq!(proposed(&spans, true, true), ["pii=max(B-EMAIL,I-EMAIL)"]);
    }
}
