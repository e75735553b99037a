//! Random operations on sequences, compared with plain lists of tokens.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const BLOCKS: usize = 12;

#[derive(Clone, Debug)]
enum Operation {
    New(usize),
    Extend(prop::sample::Index, usize),
    Fork(prop::sample::Index, prop::sample::Index),
    Drop(prop::sample::Index),
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::{Drop, Extend, Fork, New};
    prop_oneof![
        2 => (1..50usize).prop_map(New),
        4 => (any::<prop::sample::Index>(), 0..40usize).prop_map(|(index, count)| Extend(index, count)),
        2 => any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(index, at)| Fork(index, at)),
        3 => any::<prop::sample::Index>().prop_map(Drop),
    ]
}

/// A number that depends on all tokens up to each position.
fn hashes(tokens: &[u32]) -> Vec<u16> {
    let next = |state: &mut u16, &token: &u32| {
        *state = state.wrapping_mul(31).wrapping_add(token as u16).wrapping_add(7);
        Some(*state)
    };
    tokens.iter().scan(0, next).collect()
}

/// Writes keys and values from position `start`, like a pass.
pub(in crate::language) fn write(sequence: &mut Sequence, start: usize) {
    let hashes = hashes(&sequence.tokens);
    for to in sequence.destinations(0, start, 0) {
        let (slots, _) = to.block.as_chunks_mut::<2>();
        let slots = slots[to.slot..].iter_mut().take(to.rows.len());
        slots.zip(&hashes[to.position..]).for_each(|(slot, &hash)| *slot = hash.to_le_bytes());
    }
}

/// True if the blocks hold what was written for these tokens.
pub(in crate::language) fn is_intact(sequence: &Sequence) -> bool {
    let stored = sequence.spans(0).flat_map(|span| &span.block.as_chunks::<2>().0[..span.tokens]);
    stored.map(|slot| u16::from_le_bytes(*slot)).eq(hashes(&sequence.tokens))
}

/// Number of times that each block is held by `sequences`.
pub(in crate::language) fn references<'s>(
    sequences: impl IntoIterator<Item = &'s Sequence>,
) -> HashMap<*const Block, (usize, &'s Arc<Block>)> {
    let mut references = HashMap::new();
    for segment in sequences.into_iter().flat_map(Sequence::segments) {
        references.entry(Arc::as_ptr(&segment.block)).or_insert((0, &segment.block)).0 += 1;
    }
    references
}

/// Blocks that `more` tokens need, from the lengths alone.
fn needed(sequence: &Sequence, more: usize) -> usize {
    let blocks = |tokens: usize| tokens.div_ceil(BLOCK_TOKENS);
    let last = sequence.segments().last().filter(|last| last.tokens < BLOCK_TOKENS && more > 0);
    let is_copied = last.is_some_and(|last| Arc::strong_count(&last.block) > 1);
    blocks(sequence.len() + more) - blocks(sequence.len()) + usize::from(is_copied)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sequences_behave_like_lists(operations in prop::collection::vec(operation(), 1..80)) {
        let pool = KvPool::new(1, 2 * BLOCK_TOKENS, BLOCKS * BLOCK_TOKENS * 2);
        let mut sequences: Vec<Sequence> = Vec::new();
        let mut lists: Vec<Vec<u32>> = Vec::new();
        let mut token = 0;
        for operation in operations {
            let (index, more) = match operation {
                Operation::New(count) => {
                    sequences.push(Sequence::default());
                    lists.push(Vec::new());
                    (sequences.len() - 1, count)
                }
                _ if sequences.is_empty() => continue,
                Operation::Extend(index, count) => (index.index(sequences.len()), count),
                Operation::Fork(index, at) => {
                    let index = index.index(sequences.len());
                    let at = at.index(lists[index].len() + 1);
                    sequences.push(sequences[index].fork_at(at));
                    lists.push(lists[index][..at].to_vec());
                    (index, 0)
                }
                Operation::Drop(index) => {
                    let index = index.index(sequences.len());
                    sequences.swap_remove(index);
                    lists.swap_remove(index);
                    (0, 0)
                }
            };
            if more > 0 {
                let tokens: Vec<u32> = (token..).take(more).collect();
                token += more as u32;
                let start = lists[index].len();
                let (used, needed) = (pool.used(), needed(&sequences[index], more));
                let room = sequences[index].extend(&pool, &tokens);
                prop_assert_eq!(room.is_ok(), used + needed <= BLOCKS, "{} used, {} needed", used, needed);
                prop_assert_eq!(pool.used(), used + if room.is_ok() { needed } else { 0 });
                if room.is_ok() {
                    write(&mut sequences[index], start);
                    lists[index].extend(tokens);
                }
            }
            for (sequence, list) in sequences.iter().zip(&lists) {
                prop_assert_eq!(sequence.tokens(), &list[..]);
                prop_assert!(is_intact(sequence), "a block was overwritten");
            }
            let references = references(&sequences);
            prop_assert_eq!(pool.used(), references.len());
            for (count, block) in references.into_values() {
                prop_assert_eq!(Arc::strong_count(block), count);
            }
        }
        drop(sequences);
        prop_assert_eq!(pool.used(), 0);
    }
}
