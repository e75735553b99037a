//! A moderator with a list instead of a model: it flags texts that contain one of its phrases.
//!
//! Settings: `phrases`, one per line, in any case; `category`, the category of a flag (default
//! `phrases`). Images are reported as not judged.

use guest_sdk::settings::Settings;
use guest_sdk::{CategoryScore, Fault, Gap, Kinds, Moderator, Part, Tier, Verdict};

struct Phrases;

impl Moderator for Phrases {
    fn moderate(input: Vec<Part>) -> Result<Verdict, Fault> {
        let settings = Settings::read()?;
        let phrases: String = settings.get("phrases", String::new())?;
        let category: String = settings.get("category", "phrases".to_owned())?;
        Ok(judge(&input, &phrases, &category))
    }
}

guest_sdk::export_moderator!(Phrases);

/// Judges the texts of `input` together. Each line of `phrases` is a phrase.
fn judge(input: &[Part], phrases: &str, category: &str) -> Verdict {
    let phrases: Vec<_> =
        phrases.lines().map(|line| line.trim().to_lowercase()).filter(|line| !line.is_empty()).collect();
    let texts = input.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.to_lowercase()),
        Part::Image(_) => None,
    });
    let mut texts = texts.peekable();
    let category = || category.to_owned();
    let mut verdict = Verdict { flagged: false, scores: Vec::new(), gaps: Vec::new() };
    if texts.peek().is_some() {
        verdict.flagged = texts.any(|text| phrases.iter().any(|phrase| text.contains(phrase)));
        let (score, flagged) = (f32::from(u8::from(verdict.flagged)), verdict.flagged);
        let (applied, tier) = (Kinds::TEXT, Tier::Classifier);
        verdict.scores.push(CategoryScore { category: category(), score, flagged, applied, tier });
    }
    if input.iter().any(|part| matches!(part, Part::Image(_))) {
        let reason = "a list of phrases judges texts only".to_owned();
        verdict.gaps.push(Gap { category: category(), unjudged: Kinds::IMAGE, reason });
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_found_in_any_case() {
        let text = |text: &str| [Part::Text(text.to_owned())];
        let flagged = |phrases: &str, input: &[Part]| judge(input, phrases, "words").flagged;
        assert!(flagged("Red Ship\n\n", &text("a RED shIp.")));
        assert!(!flagged("red ship", &text("a red  ship")));
        assert!(!flagged(" \n", &text("anything")));
        let verdict = judge(&[Part::Image(Vec::new())], "a", "words");
        assert!(verdict.scores.is_empty() && verdict.gaps[0].unjudged == Kinds::IMAGE);
    }
}
