//! Folds of cross-validation that keep groups together and classes in proportion.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

/// Examples that belong together.
struct Group {
    /// Pseudo-random order that depends on the group alone.
    order: [u8; 32],
    examples: Vec<usize>,
    /// Number of negatives and of positives.
    counts: [usize; 2],
}

/// Assigns each of `examples` to one of `folds` folds; returns the fold of each, in their order.
/// Examples with the same key in `groups` share a fold. The largest groups come first, groups of
/// one size in the order of their keys' hashes, and each goes to the fold that is shortest of its
/// classes. Nothing else decides, so equal data give equal folds.
pub(crate) fn assign(examples: &[usize], groups: &[String], truths: &[bool], folds: usize) -> Vec<usize> {
    let mut by_key: BTreeMap<&str, Group> = BTreeMap::new();
    for (index, &example) in examples.iter().enumerate() {
        let key = groups[example].as_str();
        let group = by_key.entry(key).or_insert_with(|| Group {
            order: Sha256::digest(key).into(),
            examples: Vec::new(),
            counts: [0; 2],
        });
        group.examples.push(index);
        group.counts[usize::from(truths[example])] += 1;
    }
    let mut sorted: Vec<_> = by_key.into_values().collect();
    sorted.sort_by(|one, other| {
        other.examples.len().cmp(&one.examples.len()).then_with(|| one.order.cmp(&other.order))
    });
    let of_class = |class: bool| examples.iter().filter(|&&example| truths[example] == class).count().max(1);
    let totals = [of_class(false) as f64, of_class(true) as f64];
    let mut filled = vec![[0usize; 2]; folds];
    let mut fold_of = vec![0; examples.len()];
    for group in sorted {
        let load = |fold: &usize| {
            let share = |class: usize| filled[*fold][class] as f64 / totals[class];
            let own: f64 = (0..2).map(|class| share(class) * group.counts[class] as f64).sum();
            (own, share(0) + share(1))
        };
        let shortest = (0..folds).min_by(|one, other| {
            let (one, other) = (load(one), load(other));
            one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1))
        });
        let fold = shortest.unwrap_or_default();
        filled[fold].iter_mut().zip(group.counts).for_each(|(filled, count)| *filled += count);
        group.examples.iter().for_each(|&index| fold_of[index] = fold);
    }
    fold_of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_together_and_classes_balanced() {
        let truths: Vec<_> = (0..103).map(|index| index % 4 == 0).collect();
        let groups: Vec<_> = (0..103).map(|index| format!("author {}", index / 3)).collect();
        let examples: Vec<_> = (0..103).collect();
        let folds = assign(&examples, &groups, &truths, 5);
        for one in 0..103 {
            for other in 0..103 {
                assert!(groups[one] != groups[other] || folds[one] == folds[other]);
            }
        }
        for fold in 0..5 {
            let inside: Vec<_> = examples.iter().filter(|&&example| folds[example] == fold).collect();
            let positives = inside.iter().filter(|&&&example| truths[example]).count();
            assert!((18..=24).contains(&inside.len()), "fold {fold} has {}", inside.len());
            assert!((4..=7).contains(&positives), "fold {fold} has {positives} positives");
        }
        assert_eq!(folds, assign(&examples, &groups, &truths, 5));
    }

    #[test]
    fn single_examples_fill_every_fold_with_both_classes() {
        let truths: Vec<_> = (0..16).map(|index| index < 5).collect();
        let groups: Vec<_> = (0..16).map(|index| index.to_string()).collect();
        let examples: Vec<_> = (0..16).collect();
        let folds = &assign(&examples, &groups, &truths, 5);
        let truths = &truths;
        for fold in 0..5 {
            let of =
                |class: bool| (0..16).filter(move |&index| folds[index] == fold && truths[index] == class);
            assert_eq!(of(true).count(), 1, "{folds:?}");
            assert!((2..=3).contains(&of(false).count()), "{folds:?}");
        }
    }
}
