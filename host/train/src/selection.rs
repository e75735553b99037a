//! The examples of a category, and facts about them that a reader should know.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::ensure;
use serde::Serialize;

use crate::dataset::{Dataset, Example, Split};
use crate::limits::{MAX_LISTED_LABELS, MIN_EXAMPLES};

/// The labelled examples of a category.
#[derive(Clone, Debug)]
pub struct Selection<'d> {
    /// The examples in the order of the lines.
    pub examples: Vec<&'d Example>,
    /// The label of each.
    pub truths: Vec<bool>,
    /// The key of each. Examples of one group and equal texts share a key.
    pub groups: Vec<String>,
    /// Indexes of those to train on.
    pub train: Vec<usize>,
    /// Indexes of those to report only, without those that share a key with one to train on.
    pub held_out: BTreeMap<Split, Vec<usize>>,
    /// Facts about the data.
    pub facts: Facts,
}

/// Facts about the data of a category.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Examples with a label of the category.
    pub labelled: usize,
    /// Of these, positive ones.
    pub positive: usize,
    /// Examples without a label of the category, which are not used.
    pub unlabelled: usize,
    /// Examples whose text stands in an earlier line.
    pub duplicates: usize,
    /// Distinct texts that are labelled both as positive and as negative.
    pub conflicting: usize,
    /// Lines of the first conflicting texts.
    pub conflicting_lines: Vec<usize>,
    /// Examples of the splits dev and test that share a group or a text with one to train on; they
    /// are not measured.
    pub leaked: usize,
    /// The first names of labels that counted as negative.
    pub other_labels: Vec<String>,
}

impl<'d> Selection<'d> {
    /// Selects the examples with a label of `category`.
    ///
    /// # Errors
    ///
    /// If too few of them are to train on, or all have the same label.
    pub fn new(data: &'d Dataset, category: &str) -> anyhow::Result<Selection<'d>> {
        let labelled = data.examples.iter().filter_map(|one| Some((one, *one.labels.get(category)?)));
        let (examples, truths): (Vec<_>, Vec<_>) = labelled.unzip();
        let groups = keys(&examples);
        let of_split = |split: Split| -> Vec<usize> {
            (0..examples.len())
                .filter(|&index| examples[index].split.unwrap_or(Split::Train) == split)
                .collect()
        };
        let train = of_split(Split::Train);
        let positive = train.iter().filter(|&&index| truths[index]).count();
        ensure!(
            train.len() >= MIN_EXAMPLES && positive > 0 && positive < train.len(),
            "`{}` has {} examples of `{category}` to train on, {positive} of them positive; expected at least \
             {MIN_EXAMPLES}, of both kinds",
            data.name,
            train.len(),
        );
        let trained: HashSet<_> = train.iter().map(|&index| groups[index].as_str()).collect();
        let mut held_out = BTreeMap::new();
        let mut leaked = 0;
        for split in [Split::Dev, Split::Test] {
            let mut of_split = of_split(split);
            let before = of_split.len();
            of_split.retain(|&index| !trained.contains(groups[index].as_str()));
            leaked += before - of_split.len();
            if !of_split.is_empty() {
                held_out.insert(split, of_split);
            }
        }
        let mut facts = Facts {
            labelled: examples.len(),
            positive: truths.iter().filter(|truth| **truth).count(),
            unlabelled: data.examples.len() - examples.len(),
            leaked,
            other_labels: data.other_labels.iter().take(MAX_LISTED_LABELS).cloned().collect(),
            ..Facts::default()
        };
        let mut seen: HashMap<&str, (bool, bool)> = HashMap::new();
        for (example, &truth) in examples.iter().zip(&truths) {
            let Some((first, conflicts)) = seen.get_mut(example.text.as_str()) else {
                seen.insert(&example.text, (truth, false));
                continue;
            };
            facts.duplicates += 1;
            if *first != truth && !*conflicts {
                *conflicts = true;
                facts.conflicting += 1;
                facts.conflicting_lines.push(example.line);
            }
        }
        facts.conflicting_lines.truncate(MAX_LISTED_LABELS);
        Ok(Selection { examples, truths, groups, train, held_out, facts })
    }
}

/// The key of each example: its group, or without one its text, and the same for all examples that
/// a chain of equal groups and equal texts connects.
fn keys(examples: &[&Example]) -> Vec<String> {
    let mut parents: Vec<usize> = (0..examples.len()).collect();
    let mut first: HashMap<(bool, &str), usize> = HashMap::new();
    for (index, example) in examples.iter().enumerate() {
        let group = example.group.as_deref().map(|group| (true, group));
        for key in [Some((false, example.text.as_str())), group].into_iter().flatten() {
            let other = *first.entry(key).or_insert(index);
            let (one, other) = (root(&mut parents, index), root(&mut parents, other));
            parents[one.max(other)] = one.min(other);
        }
    }
    let key = |index| {
        let example = examples[root(&mut parents, index)];
        example
            .group
            .as_ref()
            .map_or_else(|| format!("text {}", example.text), |group| format!("group {group}"))
    };
    (0..examples.len()).map(key).collect()
}

fn root(parents: &mut [usize], mut index: usize) -> usize {
    while parents[index] != index {
        parents[index] = parents[parents[index]];
        index = parents[index];
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(line: usize, text: &str, group: Option<&str>, label: bool, split: Split) -> Example {
        Example {
            line,
            text: text.to_owned(),
            labels: BTreeMap::from([("spam".to_owned(), label)]),
            group: group.map(str::to_owned),
            split: Some(split),
            language: None,
            answer: None,
        }
    }

    fn data(examples: Vec<Example>) -> Dataset {
        let (name, sha256) = ("posts.jsonl".to_owned(), String::new());
        Dataset { name, sha256, examples, other_labels: Default::default() }
    }

    #[test]
    fn equal_texts_and_groups_share_a_key() {
        let mut examples: Vec<_> =
            (0..16).map(|line| example(line, &line.to_string(), None, line < 8, Split::Train)).collect();
        examples.push(example(16, "0", Some("a"), false, Split::Train));
        examples.push(example(17, "x", Some("a"), false, Split::Train));
        examples.push(example(18, "0", Some("b"), false, Split::Test));
        examples.push(example(19, "y", None, false, Split::Test));
        examples.push(example(20, "z", Some("1"), false, Split::Dev));
        let data = data(examples);
        let selection = Selection::new(&data, "spam").unwrap();
        let Selection { groups, train, held_out, facts, .. } = &selection;
        assert!(groups[0] == groups[16] && groups[16] == groups[17] && groups[17] == groups[18]);
        assert!(groups[1] != groups[20], "a text is no group");
        assert_eq!(
            (train.len(), &held_out[&Split::Test], &held_out[&Split::Dev]),
            (18, &vec![19], &vec![20])
        );
        assert_eq!((facts.duplicates, facts.conflicting, facts.leaked), (2, 1, 1));
        assert_eq!(facts.conflicting_lines, [16]);
    }

    #[test]
    fn small_or_uniform_data_are_rejected() {
        let examples = |count, positive| {
            let one = |line| example(line, &line.to_string(), None, line < positive, Split::Train);
            data((0..count).map(one).collect())
        };
        for (count, positive, words) in
            [(15, 7, "15 examples"), (20, 20, "20 of them positive"), (20, 0, "0 of them positive")]
        {
            let data = examples(count, positive);
            let error = Selection::new(&data, "spam").unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("expected at least 16"), "{error}");
        }
        let data = examples(20, 10);
        assert!(Selection::new(&data, "ham").unwrap_err().to_string().contains("0 examples of `ham`"));
    }
}
