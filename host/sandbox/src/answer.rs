//! Validation of guests' answers, which are as untrusted as requests.

use std::collections::BTreeSet;

use infer_engine::text::{QUOTE_BYTES, excerpt};

use crate::limits::{MAX_CATEGORIES, MAX_CATEGORY_BYTES, MAX_TEXT};
use crate::types::{CategoryScore, Fault, Gap, Kinds, Label, Verdict};

/// Checks a verdict against the rules of `wit/infer.wit`.
pub(crate) fn check_verdict(verdict: &Verdict) -> Result<(), String> {
    let Verdict { scores, gaps, .. } = verdict;
    MAX_CATEGORIES.check("`scores`", scores.len())?;
    MAX_CATEGORIES.check("`gaps`", gaps.len())?;
    let mut names = BTreeSet::new();
    for CategoryScore { category, score, applied, .. } in scores {
        check_category(category)?;
        if !(0.0..=1.0).contains(score) {
            return Err(format!("the score of `{category}` is {score}, expected 0 to 1"));
        }
        if *applied == Kinds::empty() {
            return Err(format!("the score of `{category}` applies to no kind of part"));
        }
        if !names.insert(category) {
            return Err(format!("`{category}` has two scores, expected one"));
        }
    }
    for Gap { category, reason, .. } in gaps {
        check_category(category)?;
        check_text("a gap's reason", reason)?;
    }
    Ok(())
}

/// Checks that there are at most `top` labels, with printable names and finite scores.
pub(crate) fn check_labels(labels: &[Label], top: u32) -> Result<(), String> {
    if labels.len() > top as usize {
        return Err(format!("{} labels, expected at most {top}", labels.len()));
    }
    for Label { name, score, .. } in labels {
        check_text("a label's name", name)?;
        if !score.is_finite() {
            return Err(format!("the score of `{name}` is {score}"));
        }
    }
    Ok(())
}

/// The fault with its texts cut to [`MAX_TEXT`] and escaped to one line.
pub(crate) fn presentable(fault: Fault) -> Fault {
    let cut = |text: String| excerpt(&text, MAX_TEXT.max()).into_owned();
    match fault {
        Fault::InvalidInput(text) => Fault::InvalidInput(cut(text)),
        Fault::UnsupportedMedia(text) => Fault::UnsupportedMedia(cut(text)),
        Fault::TooLarge(text) => Fault::TooLarge(cut(text)),
        Fault::Internal(text) => Fault::Internal(cut(text)),
        Fault::Model(mut failure) => {
            failure.model = cut(failure.model);
            failure.message = cut(failure.message);
            Fault::Model(failure)
        }
    }
}

fn check_category(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-/".contains(&byte);
    if (1..=MAX_CATEGORY_BYTES).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    let name = excerpt(name, QUOTE_BYTES);
    Err(format!(
        "invalid category name `{name}`, expected 1 to {MAX_CATEGORY_BYTES} lower-case letters, digits, `-` and `/`"
    ))
}

fn check_text(what: &str, text: &str) -> Result<(), String> {
    MAX_TEXT.check(what, text.len())?;
    if text.contains(char::is_control) {
        return Err(format!("{what} contains control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Tier;

    fn score(category: &str, score: f32, applied: Kinds) -> CategoryScore {
        CategoryScore {
            category: category.to_owned(),
            score,
            flagged: false,
            applied,
            tier: Tier::Classifier,
        }
    }

    fn gap(category: &str, reason: &str) -> Gap {
        Gap { category: category.to_owned(), unjudged: Kinds::TEXT, reason: reason.to_owned() }
    }

    #[test]
    fn verdicts_follow_the_rules() {
        let text = Kinds::TEXT;
        let cases = [
            (
                vec![score("hate", 0.0, text), score("hate/threatening", 1.0, text)],
                vec![gap("self-harm", "why")],
                "",
            ),
            (vec![score("hate", f32::NAN, text)], vec![], "the score of `hate` is NaN"),
            (vec![score("hate", 1.5, text)], vec![], "is 1.5, expected 0 to 1"),
            (vec![score("hate", 0.5, Kinds::empty())], vec![], "applies to no kind"),
            (vec![score("hate", 0.5, text), score("hate", 0.6, text)], vec![], "`hate` has two scores"),
            (vec![score("Hate\n", 0.5, text)], vec![], "invalid category name `Hate\\n`"),
            (vec![], vec![gap("", "why")], "invalid category name ``"),
            (vec![], vec![gap("hate", &"x".repeat(1000))], "a gap's reason has 1000 bytes"),
            (vec![], vec![gap("hate", "why"); 1000], "`gaps` has 1000 entries, expected at most 64"),
        ];
        for (scores, gaps, words) in cases {
            let verdict = Verdict { flagged: false, scores, gaps };
            match check_verdict(&verdict) {
                Ok(()) => assert_eq!(words, "", "{verdict:?}"),
                Err(message) => assert!(!words.is_empty() && message.contains(words), "{message}"),
            }
        }
    }

    #[test]
    fn labels_follow_the_rules() {
        let label = |name: &str, score| Label { index: 0, name: name.to_owned(), score };
        assert_eq!(check_labels(&[label("cat", 0.5)], 1), Ok(()));
        assert!(check_labels(&[label("cat", 0.5)], 0).is_err());
        assert!(check_labels(&[label("cat", f32::INFINITY)], 1).is_err());
        assert!(check_labels(&[label(&"x".repeat(1000), 0.5)], 1).is_err());
        assert!(check_labels(&[label("cat\u{1b}[2J", 0.5)], 1).is_err());
    }

    #[test]
    fn fault_text_is_one_short_line() {
        let Fault::TooLarge(text) = presentable(Fault::TooLarge("a\nb".repeat(1000))) else { unreachable!() };
        assert!(text.starts_with("a\\nba\\nb") && text.ends_with("… (3000 bytes)"), "{text}");
        assert!(text.len() <= MAX_TEXT.max(), "{text}");
    }
}
