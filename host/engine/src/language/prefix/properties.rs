//! Random operations on the prefix cache, compared with a search through everything that was
//! cached.

use proptest::prelude::*;

use super::*;
use crate::language::kv::KvPool;
use crate::language::kv::properties::{is_intact, references, write};

const BLOCKS: usize = 24;

/// Maximum pinned blocks of a component.
const PINNED_LIMIT: usize = 6;

#[derive(Clone, Debug)]
enum Operation {
    /// Computes a prompt after its cached prefix, and caches it.
    Compute {
        owner: usize,
        prompt: Vec<u32>,
        declared: usize,
        pin: bool,
        whole: bool,
    },
    /// Holds a cached prefix.
    Find {
        owner: usize,
        prompt: Vec<u32>,
    },
    Release(prop::sample::Index),
    Evict,
    Unpin,
}

/// Prompts of which many begin alike: groups of tokens of two kinds.
fn prompt() -> impl Strategy<Value = Vec<u32>> {
    (prop::collection::vec(0..2u32, 1..9), 0..8usize).prop_map(|(kinds, cut)| {
        let mut tokens: Vec<u32> = kinds.iter().flat_map(|&kind| [kind; 8]).collect();
        tokens.truncate(tokens.len() - cut);
        tokens
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let compute = (0..4usize, prompt(), 0..72usize, any::<bool>(), any::<bool>());
    prop_oneof![
        5 => compute.prop_map(|(owner, prompt, declared, pin, whole)| {
            let declared = if declared > 64 { 0 } else { declared.min(prompt.len()) };
            Operation::Compute { owner, prompt, declared, pin, whole }
        }),
        2 => (0..4usize, prompt()).prop_map(|(owner, prompt)| Operation::Find { owner, prompt }),
        4 => any::<prop::sample::Index>().prop_map(Operation::Release),
        2 => Just(Operation::Evict),
        1 => Just(Operation::Unpin),
    ]
}

/// A prefix that was cached at some time.
struct Record {
    owner: CacheOwner,
    tokens: Vec<u32>,
    declared: usize,
}

/// Length of the longest prefix of `tokens` that `owner` may find among `records`.
fn allowed(records: &[Record], owner: &CacheOwner, tokens: &[u32]) -> usize {
    let lengths = records.iter().filter(|record| record.owner.component == owner.component).map(|record| {
        let visible = match record.owner.session == owner.session {
            true => record.tokens.len(),
            false => record.declared.min(record.tokens.len()),
        };
        record.tokens[..visible].iter().zip(tokens).take_while(|(a, b)| a == b).count()
    });
    lengths.max().unwrap_or(0)
}

fn edges(prefixes: &Prefixes) -> Vec<&Edge> {
    fn collect<'p>(node: &'p Node, all: &mut Vec<&'p Edge>) {
        for edge in &node.edges {
            all.push(edge);
            collect(&edge.children, all);
        }
    }
    let mut all = Vec::new();
    prefixes.roots.values().for_each(|root| collect(root, &mut all));
    all
}

/// Checks what holds after each operation.
fn check(prefixes: &Prefixes, held: &[Sequence], pool: &KvPool) {
    assert!(pool.used() <= BLOCKS);
    assert!(held.iter().all(is_intact), "a block was overwritten or freed");
    let edges = edges(prefixes);
    let mut references = references(held);
    for edge in &edges {
        assert!(!edge.tokens.is_empty() && edge.shared <= edge.tokens.len());
        assert!(edge.children.edges.is_empty() || edge.tokens.len() == BLOCK_TOKENS, "children of a part");
        references.entry(Arc::as_ptr(&edge.block)).or_insert((0, &edge.block)).0 += 1;
    }
    assert_eq!(prefixes.blocks(), edges.len(), "a block that two edges own");
    assert_eq!(pool.used(), references.len(), "blocks in use, and those that have an owner");
    for (count, block) in references.into_values() {
        assert_eq!(Arc::strong_count(block), count);
    }
    for root in prefixes.roots.values() {
        assert!(root.pinned() <= PINNED_LIMIT, "{} pins", root.pinned());
    }
}

/// Evicts an edge and checks that it was the least recently used of those that can be.
fn evict(prefixes: &mut Prefixes) -> bool {
    let all = edges(prefixes);
    let leaves = all.iter().filter(|edge| edge.children.edges.is_empty() && !edge.pinned);
    let (oldest, before) = (leaves.map(|edge| edge.used).min(), all.len());
    let pinned = all.iter().filter(|edge| edge.pinned).count();
    let count = |prefixes: &Prefixes| edges(prefixes).iter().filter(|edge| Some(edge.used) == oldest).count();
    let of_that_age = count(prefixes);
    let is_evicted = prefixes.evict();
    assert_eq!(is_evicted, oldest.is_some());
    assert_eq!(edges(prefixes).len(), before - usize::from(is_evicted));
    assert_eq!(count(prefixes), of_that_age - usize::from(is_evicted));
    assert_eq!(edges(prefixes).iter().filter(|edge| edge.pinned).count(), pinned);
    is_evicted
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn prefix_cache_equals_linear_search(operations in prop::collection::vec(operation(), 1..60)) {
        let pool = KvPool::new(1, 2 * BLOCK_TOKENS, BLOCKS * BLOCK_TOKENS * 2);
        let mut prefixes = Prefixes::default();
        let owners: Vec<_> =
            ["a", "a", "a", "b"].iter().map(|&component| CacheOwner::new(&Arc::from(component))).collect();
        let (mut held, mut records, mut is_complete) = (Vec::<Sequence>::new(), Vec::new(), true);
        for operation in operations {
            match operation {
                Operation::Compute { owner, prompt, declared, pin, whole } => {
                    let owner = &owners[owner];
                    let mut sequence = prefixes.find(owner, &prompt, prompt.len() - 1);
                    let start = sequence.len();
                    while sequence.extend(&pool, &prompt[start..]).is_err() {
                        is_complete = false;
                        if !evict(&mut prefixes) {
                            break;
                        }
                    }
                    if sequence.len() == prompt.len() {
                        write(&mut sequence, start);
                        let len = if whole { prompt.len() } else { prompt.len() / BLOCK_TOKENS * BLOCK_TOKENS };
                        prefixes.insert(owner, &sequence, len, declared, if pin { PINNED_LIMIT } else { 0 });
                        let tokens = prompt[..len].to_vec();
                        records.push(Record { owner: owner.clone(), tokens, declared });
                        held.push(sequence);
                    }
                }
                Operation::Find { owner, prompt } => {
                    let owner = &owners[owner];
                    let allowed = allowed(&records, owner, &prompt);
                    let cached = prefixes.cached(owner, &prompt);
                    let found = prefixes.find(owner, &prompt, prompt.len());
                    prop_assert_eq!(found.len(), cached);
                    prop_assert!(cached <= allowed, "{} found, {} allowed", cached, allowed);
                    prop_assert!(!is_complete || cached == allowed, "{} found of {}", cached, allowed);
                    prop_assert_eq!(found.tokens(), &prompt[..cached]);
                    held.push(found);
                }
                Operation::Release(index) if !held.is_empty() => {
                    held.swap_remove(index.index(held.len()));
                }
                Operation::Release(_) => {}
                Operation::Evict => is_complete &= !evict(&mut prefixes),
                Operation::Unpin => {
                    let pins = |prefixes: &Prefixes| edges(prefixes).iter().filter(|edge| edge.pinned).count();
                    let before = pins(&prefixes);
                    prop_assert_eq!(prefixes.unpin(), before > 0);
                    prop_assert_eq!(pins(&prefixes), before.saturating_sub(1));
                }
            }
            check(&prefixes, &held, &pool);
        }
        let (used, evictable) = (pool.used(), prefixes.evictable());
        while evict(&mut prefixes) {}
        prop_assert_eq!(pool.used(), used - evictable);
        check(&prefixes, &held, &pool);
        while prefixes.unpin() {}
        while evict(&mut prefixes) {}
        held.clear();
        prop_assert_eq!(pool.used(), 0);
    }
}
