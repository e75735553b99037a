//! Ranks a model's scores.

use guest_sdk::Label;

/// Returns the `top` highest of `scores`, or all if there are fewer, highest first; of equal scores
/// the one with the lower index comes first.
///
/// `names` contains the name of each score.
pub fn top(scores: &[f32], names: &[&str], top: u32) -> Vec<Label> {
    let mut ranked: Vec<_> = scores.iter().zip(names).enumerate().collect();
    let top = ranked.len().min(top as usize);
    if top == 0 {
        return Vec::new();
    }
    let order = |(one, (left, _)): &(usize, (&f32, _)), (other, (right, _)): &(usize, (&f32, _))| {
        right.total_cmp(left).then(one.cmp(other))
    };
    ranked.select_nth_unstable_by(top - 1, order);
    ranked.truncate(top);
    ranked.sort_unstable_by(order);
    let label = |(index, (&score, name)): (usize, (&f32, &&str))| Label {
        index: index as u32,
        name: (*name).to_owned(),
        score,
    };
    ranked.into_iter().map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_come_first_and_ties_by_index() {
        let scores = [0.1, 0.4, 0.1, 0.3, 0.1];
        let names = ["a", "b", "c", "d", "e"];
        for (requested, expected) in
            [(1, &[1][..]), (3, &[1, 3, 0]), (5, &[1, 3, 0, 2, 4]), (u32::MAX, &[1, 3, 0, 2, 4])]
        {
            let found = top(&scores, &names, requested);
            let indices: Vec<_> = found.iter().map(|label| label.index).collect();
            assert_eq!(indices, expected, "top {requested}");
            assert!(found.iter().all(|label| label.name == names[label.index as usize]));
            assert!(found.iter().all(|label| label.score == scores[label.index as usize]));
        }
    }

    #[test]
    fn model_without_classes_has_no_labels() {
        assert!(top(&[], &[], 5).is_empty());
    }
}
