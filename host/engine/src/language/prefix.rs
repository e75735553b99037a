//! What was computed before, found again by its tokens.
//!
//! One tree a component: what one component computes is never found by another, not even by how long an answer takes.
//! An edge is a block; only a leaf's may be half full. Siblings may begin alike, and the longest match wins. When blocks run
//! out, the leaf that was unused for longest is dropped first, except for those that are pinned.

use std::collections::HashMap;
use std::sync::Arc;

use infer_kernels::BLOCK_TOKENS;

use super::kv::{Block, Segment, Sequence};

/// The prefixes of every component.
#[derive(Default)]
pub(super) struct Prefixes {
    roots: HashMap<Arc<str>, Node>,
    /// Counts uses, so that edges can be ordered by their last.
    clock: u64,
}

#[derive(Default)]
struct Node {
    edges: Vec<Edge>,
}

struct Edge {
    tokens: Vec<u32>,
    block: Arc<Block>,
    used: u64,
    pinned: bool,
    below: Node,
}

impl Prefixes {
    /// The longest known beginning of `tokens`, at most `most` of them.
    pub(super) fn find(&mut self, component: &str, tokens: &[u32], most: usize) -> Sequence {
        self.clock += 1;
        let mut segments = Vec::new();
        let mut found = 0;
        let mut node = self.roots.get_mut(component);
        while let Some(here) = node.take() {
            let wanted = &tokens[found..most];
            let Some((edge, common)) = here.best(wanted) else { break };
            edge.used = self.clock;
            segments.push(Segment { block: edge.block.clone(), tokens: common });
            found += common;
            node = (common == BLOCK_TOKENS).then_some(&mut edge.below);
        }
        Sequence::from_prefix(tokens[..found].to_vec(), segments)
    }

    /// Remember the first `len` tokens of a sequence, and keep the first `pinned` of them as long as the component's pins
    /// hold at most `most_pinned` blocks.
    pub(super) fn insert(
        &mut self,
        component: &Arc<str>,
        sequence: &Sequence,
        len: usize,
        pinned: usize,
        most_pinned: usize,
    ) {
        self.clock += 1;
        let clock = self.clock;
        let root = self.roots.entry(component.clone()).or_default();
        let mut pins = if pinned > 0 { root.pinned() } else { 0 };
        let mut node = root;
        let mut begin = 0;
        for segment in sequence.segments() {
            let held = segment.tokens.min(len - begin);
            if held == 0 {
                break;
            }
            let tokens = &sequence.tokens()[begin..begin + held];
            let edge = node.edge(tokens, segment);
            edge.used = clock;
            if begin < pinned && !edge.pinned && pins < most_pinned {
                edge.pinned = true;
                pins += 1;
            }
            begin += held;
            node = &mut edge.below;
        }
    }

    /// Drop the edge that was unused for longest, with no edge below it and not pinned. False when there is none.
    ///
    /// Its block is free at once unless a sequence holds it too.
    pub(super) fn evict(&mut self) -> bool {
        let oldest = self.roots.values().filter_map(Node::oldest).min();
        let Some(oldest) = oldest else { return false };
        let removed = self.roots.values_mut().any(|root| root.remove(oldest));
        self.roots.retain(|_, root| !root.edges.is_empty());
        removed
    }

    /// How many tokens of `prompt` are known.
    pub(super) fn known(&self, component: &str, prompt: &[u32]) -> usize {
        let mut known = 0;
        let mut node = self.roots.get(component);
        while let Some(here) = node.take() {
            let common = here.edges.iter().map(|edge| (edge.common(&prompt[known..]), edge));
            let Some((common, edge)) = common.max_by_key(|(common, _)| *common) else { break };
            known += common;
            node = (common == BLOCK_TOKENS).then_some(&edge.below);
        }
        known
    }

    /// How many of the blocks that are known of `prompt` cannot be evicted as things stand.
    pub(super) fn held(&self, component: &str, prompt: &[u32]) -> usize {
        let (mut held, mut known) = (0, 0);
        let mut node = self.roots.get(component);
        while let Some(here) = node.take() {
            let whole = here.edges.iter().find(|edge| edge.common(&prompt[known..]) == BLOCK_TOKENS);
            let Some(edge) = whole else { break };
            held += usize::from(!edge.is_evictable());
            known += BLOCK_TOKENS;
            node = Some(&edge.below);
        }
        held
    }

    /// How many blocks `evict` could free, were it called until it gives up.
    pub(super) fn evictable(&self) -> usize {
        self.roots.values().map(Node::evictable).sum()
    }

    /// Blocks that the trees hold, each counted once.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> usize {
        fn collect(node: &Node, all: &mut std::collections::HashSet<*const Block>) {
            for edge in &node.edges {
                all.insert(Arc::as_ptr(&edge.block));
                collect(&edge.below, all);
            }
        }
        let mut all = std::collections::HashSet::new();
        self.roots.values().for_each(|root| collect(root, &mut all));
        all.len()
    }

    /// Take all pins back. False when there was none.
    pub(super) fn unpin(&mut self) -> bool {
        self.roots.values_mut().map(Node::unpin).fold(false, |any, one| any | one)
    }
}

impl Node {
    /// The edge that shares most tokens with `wanted`, and how many.
    fn best(&mut self, wanted: &[u32]) -> Option<(&mut Edge, usize)> {
        let rated = self.edges.iter_mut().map(|edge| (edge.common(wanted), edge));
        let best = rated.max_by_key(|(common, _)| *common);
        best.filter(|(common, _)| *common > 0).map(|(common, edge)| (edge, common))
    }

    /// The edge that begins with `tokens`, made from `segment` where there is none.
    fn edge(&mut self, tokens: &[u32], segment: &Segment) -> &mut Edge {
        let position = self.edges.iter().position(|edge| edge.tokens.starts_with(tokens));
        // A half-full block gives way to one that holds more of the same.
        let shorter = || self.edges.iter().position(|edge| tokens.starts_with(&edge.tokens));
        let block = segment.block.clone();
        let position = match position {
            Some(position) => position,
            None => match shorter() {
                Some(position) => {
                    (self.edges[position].tokens, self.edges[position].block) = (tokens.to_vec(), block);
                    position
                }
                None => {
                    let edge = Edge {
                        tokens: tokens.to_vec(),
                        block,
                        used: 0,
                        pinned: false,
                        below: Node::default(),
                    };
                    self.edges.push(edge);
                    self.edges.len() - 1
                }
            },
        };
        &mut self.edges[position]
    }

    fn pinned(&self) -> usize {
        self.edges.iter().map(|edge| usize::from(edge.pinned) + edge.below.pinned()).sum()
    }

    /// Blocks that nobody but this tree holds, and no pin.
    fn evictable(&self) -> usize {
        self.edges.iter().map(|edge| usize::from(edge.is_evictable()) + edge.below.evictable()).sum()
    }

    fn unpin(&mut self) -> bool {
        let unpin = |edge: &mut Edge| std::mem::take(&mut edge.pinned) | edge.below.unpin();
        self.edges.iter_mut().map(unpin).fold(false, |any, one| any | one)
    }

    /// When the least recently used edge was used, of those that can be dropped.
    fn oldest(&self) -> Option<u64> {
        let own = |edge: &Edge| match edge.below.edges.is_empty() {
            true => (!edge.pinned).then_some(edge.used),
            false => edge.below.oldest(),
        };
        self.edges.iter().filter_map(own).min()
    }

    fn remove(&mut self, used: u64) -> bool {
        let droppable = |edge: &Edge| edge.used == used && edge.below.edges.is_empty() && !edge.pinned;
        if let Some(position) = self.edges.iter().position(droppable) {
            self.edges.swap_remove(position);
            return true;
        }
        self.edges.iter_mut().any(|edge| edge.below.remove(used))
    }
}

impl Edge {
    /// Whether nobody but the tree holds the block, and no pin.
    fn is_evictable(&self) -> bool {
        !self.pinned && Arc::strong_count(&self.block) == 1
    }

    fn common(&self, wanted: &[u32]) -> usize {
        self.tokens.iter().zip(wanted).take_while(|(a, b)| a == b).count()
    }
}

#[cfg(test)]
mod tests {
    use super::super::kv::KvPool;
    use super::*;

    fn sequence(pool: &KvPool, tokens: &[u32]) -> Sequence {
        let mut sequence = Sequence::default();
        sequence.extend(pool, tokens).unwrap();
        sequence
    }

    fn tokens(n: usize, seed: u32) -> Vec<u32> {
        (0..n as u32).map(|i| i * 31 + seed).collect()
    }

    #[test]
    fn longest_beginning_is_found_to_the_token() {
        let pool = KvPool::new(1, 4, 1 << 20);
        let mut prefixes = Prefixes::default();
        let component = Arc::from("a");
        let policy = tokens(40, 0);
        let first = [&policy[..], &[901, 902]].concat();
        prefixes.insert(&component, &sequence(&pool, &first), 42, 0, 0);
        let second = [&policy[..], &[903]].concat();
        assert_eq!(prefixes.known("a", &second), 40);
        assert_eq!(prefixes.find("a", &second, 41).len(), 40);
        assert_eq!(prefixes.find("a", &second, 39).len(), 39);
        assert_eq!(prefixes.find("b", &second, 41).len(), 0);
        // A sibling that begins alike: the longer match wins.
        prefixes.insert(&component, &sequence(&pool, &second), 41, 0, 0);
        assert_eq!(prefixes.find("a", &first, 42).len(), 42);
        assert_eq!(prefixes.find("a", &second, 41).len(), 41);
    }

    #[test]
    fn leaf_unused_for_longest_goes_first_and_pins_stay() {
        let pool = KvPool::new(1, 4, 1 << 20);
        let mut prefixes = Prefixes::default();
        let component = Arc::from("a");
        let (old, new, pinned) = (tokens(20, 1), tokens(20, 2), tokens(40, 3));
        prefixes.insert(&component, &sequence(&pool, &pinned), 40, 20, 2);
        for tokens in [&old, &new] {
            prefixes.insert(&component, &sequence(&pool, tokens), 20, 0, 0);
        }
        prefixes.find("a", &old, 20);
        assert_eq!((pool.used(), prefixes.evictable()), (7, 5));
        assert!(prefixes.evict());
        assert_eq!(prefixes.known("a", &pinned), 32, "the part that is not pinned was the oldest");
        assert!(prefixes.evict() && prefixes.evict());
        assert_eq!((prefixes.known("a", &new), prefixes.known("a", &old)), (0, 20));
        assert!(prefixes.evict() && prefixes.evict());
        assert!(!prefixes.evict());
        assert_eq!((prefixes.known("a", &pinned), pool.used()), (32, 2));
        assert!(prefixes.unpin() && prefixes.evict() && prefixes.evict());
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn block_that_a_sequence_holds_is_not_counted_as_free() {
        let pool = KvPool::new(1, 4, 1 << 20);
        let mut prefixes = Prefixes::default();
        let all = tokens(40, 0);
        prefixes.insert(&Arc::from("a"), &sequence(&pool, &all), 40, 0, 0);
        assert_eq!((prefixes.evictable(), prefixes.held("a", &all)), (3, 0));
        let found = prefixes.find("a", &all, 20);
        assert_eq!((prefixes.evictable(), prefixes.held("a", &all)), (1, 2));
        while prefixes.evict() {}
        assert_eq!(pool.used(), 2);
        drop(found);
        assert_eq!(pool.used(), 0);
    }
}
