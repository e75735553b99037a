//! Scores of an attribute from those of categories: of the comment, and of its sentences.

use std::collections::BTreeMap;

use infer_sandbox::types::Sentence;

/// The score of `own`, or the highest of `wider`, with the categories that were judged for it;
/// `None` if there are none.
pub(super) fn combined<'c>(
    own: &'c str,
    wider: &'c [&'c str],
    score: impl Fn(&str) -> Option<f32>,
) -> Option<(f32, Vec<&'c str>)> {
    if let Some(value) = score(own) {
        return Some((value, vec![own]));
    }
    let judged = || wider.iter().copied().filter(|category| score(category).is_some());
    let highest = judged().filter_map(&score).reduce(f32::max)?;
    Some((highest, judged().collect()))
}

/// The sentences in the order of the comment: first character, character behind the last one, and
/// the highest score of `categories`.
pub(super) fn sentences(scores: &[Sentence], categories: &[&str]) -> Vec<(usize, usize, f32)> {
    let mut highest: BTreeMap<(u32, u32), f32> = BTreeMap::new();
    for sentence in scores.iter().filter(|sentence| categories.contains(&sentence.category.as_str())) {
        let value = highest.entry((sentence.start, sentence.end)).or_default();
        *value = value.max(sentence.score);
    }
    highest.into_iter().map(|((start, end), value)| (start as usize, end as usize, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_category_precedes_wider_ones() {
        let score = |category: &str| match category {
            "toxicity" => Some(0.25),
            "hate" => Some(0.5),
            "harassment" => Some(0.75),
            _ => None,
        };
        let wider = ["hate", "threat", "harassment"];
        assert_eq!(combined("toxicity", &wider, score), Some((0.25, vec!["toxicity"])));
        assert_eq!(combined("insult", &wider, score), Some((0.75, vec!["hate", "harassment"])));
        assert_eq!(combined("insult", &["threat"], score), None);
    }

    #[test]
    fn sentences_have_highest_score_in_order() {
        let sentence = |category: &str, score: f32, start: u32, end: u32| Sentence {
            part: 0,
            category: category.to_owned(),
            score,
            start,
            end,
        };
        let scores = [
            sentence("hate", 0.5, 7, 20),
            sentence("hate", 0.25, 0, 6),
            sentence("sexual", 1.0, 0, 6),
            sentence("harassment", 0.75, 7, 20),
        ];
        assert_eq!(sentences(&scores, &["hate", "harassment"]), [(0, 6, 0.25), (7, 20, 0.75)]);
        assert!(sentences(&scores, &["insult"]).is_empty());
    }
}
