//! The prefix cache: computed keys and values, found again by their tokens.
//!
//! There is one tree for each component, so that a component never reuses another's prefixes, and
//! cannot detect them by measuring time. Within a component, a session finds its own prefixes, and
//! those that other sessions declared as shared. The rest is text of some user; a cache hit on it
//! would reveal to another user that it was sent. An edge is a block; only a leaf's block may be
//! partly filled. Siblings may have a common beginning, and the longest match wins. If blocks run
//! out, the least recently used leaf is evicted first, unless it is pinned.

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use infer_kernels::BLOCK_TOKENS;

use super::kv::{Block, Segment, Sequence};

/// The session that computes and finds prefixes, and its component.
#[derive(Clone, Debug)]
pub(super) struct CacheOwner {
    pub(super) component: Arc<str>,
    /// Unique in this process.
    pub(super) session: u64,
}

impl CacheOwner {
    /// A new session of `component`.
    pub(super) fn new(component: &Arc<str>) -> Self {
        static SESSIONS: AtomicU64 = AtomicU64::new(0);
        CacheOwner { component: component.clone(), session: SESSIONS.fetch_add(1, Ordering::Relaxed) }
    }
}

/// The cached prefixes of every component.
#[derive(Default)]
pub(super) struct Prefixes {
    roots: HashMap<Arc<str>, Node>,
    /// Counter of uses, for the order of eviction.
    clock: u64,
}

#[derive(Default)]
struct Node {
    edges: Vec<Edge>,
}

struct Edge {
    tokens: Vec<u32>,
    block: Arc<Block>,
    /// Number of leading tokens that every session of the component may find. The others belong to
    /// `session`.
    shared: usize,
    session: u64,
    used: u64,
    pinned: bool,
    children: Node,
}

impl Prefixes {
    /// The longest cached prefix of `tokens` that `owner` may find, of at most `max` tokens.
    pub(super) fn find(&mut self, owner: &CacheOwner, tokens: &[u32], max: usize) -> Sequence {
        self.clock += 1;
        let mut segments = Vec::new();
        let Some(mut node) = self.roots.get_mut(&owner.component) else { return Sequence::default() };
        let (path, found) = node.longest(&tokens[..max], owner.session);
        for (index, begin) in path.into_iter().zip((0..).step_by(BLOCK_TOKENS)) {
            let edge = &mut node.edges[index];
            edge.used = self.clock;
            segments.push(Segment { block: edge.block.clone(), tokens: BLOCK_TOKENS.min(found - begin) });
            node = &mut edge.children;
        }
        Sequence::from_prefix(tokens[..found].to_vec(), segments)
    }

    /// Caches the first `len` tokens of a sequence, of which the first `declared` are shared with
    /// every session of the component. The shared ones are pinned if `max_pinned` is above 0. It
    /// limits the pinned blocks of the component: the least recently used pins are removed first.
    pub(super) fn insert(
        &mut self,
        owner: &CacheOwner,
        sequence: &Sequence,
        len: usize,
        declared: usize,
        max_pinned: usize,
    ) {
        self.clock += 1;
        let clock = self.clock;
        let root = self.roots.entry(owner.component.clone()).or_default();
        let mut room = match max_pinned {
            0 => 0,
            _ => root.available_pins(&sequence.tokens()[..len.min(declared)], clock, max_pinned),
        };
        let mut node = root;
        let mut begin = 0;
        for segment in sequence.segments() {
            let count = segment.tokens.min(len - begin);
            if count == 0 {
                break;
            }
            let tokens = &sequence.tokens()[begin..begin + count];
            let shared = declared.saturating_sub(begin).min(count);
            let pin = room > 0 && shared > 0 && node.pinned_edge(&tokens[..shared]).is_none();
            let edge = node.edge(tokens, segment, shared, owner.session);
            edge.used = clock;
            if pin && !edge.pinned {
                edge.pinned = true;
                room -= 1;
            }
            begin += count;
            node = &mut edge.children;
        }
    }

    /// Evicts the least recently used edge that is a leaf and not pinned. Returns false if there is
    /// none.
    ///
    /// Its block is freed at once, unless a sequence holds it too.
    pub(super) fn evict(&mut self) -> bool {
        let oldest = self.roots.values().filter_map(Node::oldest).min();
        let Some(oldest) = oldest else { return false };
        let removed = self.roots.values_mut().any(|root| root.remove(oldest));
        self.roots.retain(|_, root| !root.edges.is_empty());
        removed
    }

    /// Number of tokens of `prompt` that `owner` finds in the cache.
    pub(super) fn cached(&self, owner: &CacheOwner, prompt: &[u32]) -> usize {
        self.roots.get(&owner.component).map_or(0, |root| root.longest(prompt, owner.session).1)
    }

    /// Number of cached blocks of `prompt` that cannot be evicted at present.
    pub(super) fn unevictable(&self, owner: &CacheOwner, prompt: &[u32]) -> usize {
        let Some(mut node) = self.roots.get(&owner.component) else { return 0 };
        let (path, cached) = node.longest(prompt, owner.session);
        let mut unevictable = 0;
        for index in path.into_iter().take(cached / BLOCK_TOKENS) {
            unevictable += usize::from(!node.edges[index].is_evictable());
            node = &node.edges[index].children;
        }
        unevictable
    }

    /// Number of blocks that repeated calls of `evict` could free.
    pub(super) fn evictable(&self) -> usize {
        self.roots.values().map(|root| root.evictable().0).sum()
    }

    /// Number of distinct blocks in the trees.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> usize {
        self.block_set().len()
    }

    /// The distinct blocks in the trees.
    #[cfg(test)]
    pub(super) fn block_set(&self) -> std::collections::HashSet<*const Block> {
        fn collect(node: &Node, all: &mut std::collections::HashSet<*const Block>) {
            for edge in &node.edges {
                all.insert(Arc::as_ptr(&edge.block));
                collect(&edge.children, all);
            }
        }
        let mut all = std::collections::HashSet::new();
        self.roots.values().for_each(|root| collect(root, &mut all));
        all
    }

    /// Removes the least recently used pin. Returns false if nothing is pinned.
    pub(super) fn unpin(&mut self) -> bool {
        let oldest = self.roots.values().filter_map(Node::oldest_pin).min();
        oldest.is_some_and(|oldest| self.roots.values_mut().any(|root| root.unpin(oldest)))
    }
}

impl Node {
    /// The longest path that begins like `tokens` for `session`: the index of the edge in each
    /// node, and the number of tokens in common. The search goes down all edges that match as a
    /// whole, since two sessions may each have an edge for the same tokens.
    fn longest(&self, tokens: &[u32], session: u64) -> (Vec<usize>, usize) {
        // Index of an edge, and position of the one above it in this list.
        let mut steps: Vec<(usize, Option<usize>)> = Vec::new();
        let mut nodes = vec![(self, None)];
        let mut longest = 0;
        for begin in (0..tokens.len()).step_by(BLOCK_TOKENS) {
            for (node, above) in std::mem::take(&mut nodes) {
                for (index, edge) in node.edges.iter().enumerate() {
                    let common = edge.common(&tokens[begin..], session);
                    if common > 0 && begin + common >= longest {
                        longest = begin + common;
                        steps.push((index, above));
                        if common == BLOCK_TOKENS {
                            nodes.push((&edge.children, Some(steps.len() - 1)));
                        }
                    }
                }
            }
        }
        let up = |&(_, above): &(usize, Option<usize>)| above.map(|above| steps[above]);
        let mut path: Vec<usize> =
            std::iter::successors(steps.last().copied(), up).map(|(index, _)| index).collect();
        path.reverse();
        (path, longest)
    }

    /// The edge that starts with `tokens` for `session`, created from `segment` if it does not
    /// exist. Its first `shared` tokens are shared.
    fn edge(&mut self, tokens: &[u32], segment: &Segment, shared: usize, session: u64) -> &mut Edge {
        let matches = |edge: &Edge| edge.common(tokens, session) == tokens.len();
        // The edge that the sequence was found through comes first, so that no block gets a second.
        let is_own = |edge: &Edge| matches(edge) && Arc::ptr_eq(&edge.block, &segment.block);
        let found = self.edges.iter().position(is_own).or_else(|| self.edges.iter().position(matches));
        // A partly filled block is replaced by one with more of the same tokens, if no session
        // loses any.
        let shorter = || {
            let gives_way = |edge: &Edge| {
                edge.common(tokens, session) == edge.tokens.len() && edge.tokens.len() < tokens.len()
            };
            self.edges.iter().position(gives_way)
        };
        let block = segment.block.clone();
        let position = match found {
            Some(position) => position,
            None => match shorter() {
                Some(position) => {
                    let edge = &mut self.edges[position];
                    (edge.tokens, edge.block, edge.session) = (tokens.to_vec(), block, session);
                    position
                }
                None => {
                    self.edges.push(Edge {
                        tokens: tokens.to_vec(),
                        block,
                        shared,
                        session,
                        used: 0,
                        pinned: false,
                        children: Node::default(),
                    });
                    self.edges.len() - 1
                }
            },
        };
        let edge = &mut self.edges[position];
        edge.shared = edge.shared.max(shared);
        edge
    }

    /// The pinned edge with `tokens` that every session finds.
    fn pinned_edge(&mut self, tokens: &[u32]) -> Option<&mut Edge> {
        let holds = |edge: &&mut Edge| edge.pinned && edge.tokens[..edge.shared].starts_with(tokens);
        self.edges.iter_mut().find(holds)
    }

    /// Number of additional blocks of `tokens` that may be pinned, after older pins were removed.
    fn available_pins(&mut self, tokens: &[u32], clock: u64, max: usize) -> usize {
        let mut already = 0;
        let mut node = &mut *self;
        for part in tokens.chunks(BLOCK_TOKENS) {
            let Some(edge) = node.pinned_edge(part) else { break };
            edge.used = clock;
            already += 1;
            node = &mut edge.children;
        }
        let additional = tokens.len().div_ceil(BLOCK_TOKENS).min(max) - already.min(max);
        let mut pins = self.pinned();
        while pins + additional > max {
            let Some(oldest) = self.oldest_pin().filter(|used| *used < clock) else { break };
            self.unpin(oldest);
            pins -= 1;
        }
        max.saturating_sub(pins).min(additional)
    }

    fn pinned(&self) -> usize {
        self.edges.iter().map(|edge| usize::from(edge.pinned) + edge.children.pinned()).sum()
    }

    /// Number of blocks that eviction can free, and true if a block is pinned. Only this tree holds
    /// the former, and nothing below them is pinned.
    fn evictable(&self) -> (usize, bool) {
        self.edges.iter().fold((0, false), |(evictable, is_pinned), edge| {
            let (below, is_pinned_below) = edge.children.evictable();
            let own = usize::from(edge.is_evictable() && !is_pinned_below);
            (evictable + below + own, is_pinned || edge.pinned || is_pinned_below)
        })
    }

    /// Time of use of the least recently used pin that has no pin below it.
    fn oldest_pin(&self) -> Option<u64> {
        let own = |edge: &Edge| edge.children.oldest_pin().or(edge.pinned.then_some(edge.used));
        self.edges.iter().filter_map(own).min()
    }

    /// Removes the pin that was last used at `used` and has no pin below it.
    fn unpin(&mut self, used: u64) -> bool {
        self.edges.iter_mut().any(|edge| {
            let last = edge.pinned && edge.used == used && edge.children.oldest_pin().is_none();
            if last {
                edge.pinned = false;
            }
            last || edge.children.unpin(used)
        })
    }

    /// Time of use of the least recently used edge that can be evicted.
    fn oldest(&self) -> Option<u64> {
        let own = |edge: &Edge| match edge.children.edges.is_empty() {
            true => (!edge.pinned).then_some(edge.used),
            false => edge.children.oldest(),
        };
        self.edges.iter().filter_map(own).min()
    }

    fn remove(&mut self, used: u64) -> bool {
        let droppable = |edge: &Edge| edge.used == used && edge.children.edges.is_empty() && !edge.pinned;
        if let Some(position) = self.edges.iter().position(droppable) {
            self.edges.swap_remove(position);
            return true;
        }
        self.edges.iter_mut().any(|edge| edge.children.remove(used))
    }
}

impl Edge {
    /// True if only the tree holds the block, and it is not pinned.
    fn is_evictable(&self) -> bool {
        !self.pinned && Arc::strong_count(&self.block) == 1
    }

    /// Length of the common prefix with `tokens`, within the tokens that `session` may find.
    fn common(&self, tokens: &[u32], session: u64) -> usize {
        let found = if self.session == session { self.tokens.len() } else { self.shared };
        self.tokens[..found].iter().zip(tokens).take_while(|(a, b)| a == b).count()
    }
}
