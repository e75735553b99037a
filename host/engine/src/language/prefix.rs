//! What was computed before, found again by its tokens.
//!
//! One tree a component: what one component computes is never found by another, not even by how
//! long an answer takes. Within a component a session finds what it computed itself, and of others'
//! what their requests declared to be a prefix of many: the rest is some user's text, and whether
//! it is known would tell another user that it was sent. An edge is a block; only a leaf's may be
//! half full. Siblings may begin alike, and the longest match wins. When blocks run out, the leaf
//! that was unused for longest is dropped first, except for those that are pinned.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use infer_kernels::BLOCK_TOKENS;

use super::kv::{Block, Segment, Sequence};

/// Who computes, and finds.
#[derive(Clone, Debug)]
pub(super) struct CacheOwner {
    pub(super) component: Arc<str>,
    /// No two sessions of the process have the same number.
    pub(super) session: u64,
}

impl CacheOwner {
    /// A new session of `component`.
    pub(super) fn new(component: &Arc<str>) -> Self {
        static SESSIONS: AtomicU64 = AtomicU64::new(0);
        CacheOwner { component: component.clone(), session: SESSIONS.fetch_add(1, Ordering::Relaxed) }
    }
}

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
    /// How many of the tokens every session of the component finds; the others are `session`'s.
    shared: usize,
    session: u64,
    used: u64,
    pinned: bool,
    below: Node,
}

impl Prefixes {
    /// The longest beginning of `tokens` that `owner` may find, at most `most` of them.
    pub(super) fn find(&mut self, owner: &CacheOwner, tokens: &[u32], most: usize) -> Sequence {
        self.clock += 1;
        let mut segments = Vec::new();
        let mut found = 0;
        let mut node = self.roots.get_mut(&owner.component);
        while let Some(here) = node.take() {
            let wanted = &tokens[found..most];
            let Some((edge, common)) = here.best(wanted, owner.session) else { break };
            edge.used = self.clock;
            segments.push(Segment { block: edge.block.clone(), tokens: common });
            found += common;
            node = (common == BLOCK_TOKENS).then_some(&mut edge.below);
        }
        Sequence::from_prefix(tokens[..found].to_vec(), segments)
    }

    /// Remember the first `len` tokens of a sequence, the first `declared` of them for every
    /// session of the component. These are pinned if `most_pinned` is above 0: the component's pins
    /// hold at most so many blocks, and those that were unused for longest give way.
    pub(super) fn insert(
        &mut self,
        owner: &CacheOwner,
        sequence: &Sequence,
        len: usize,
        declared: usize,
        most_pinned: usize,
    ) {
        self.clock += 1;
        let clock = self.clock;
        let root = self.roots.entry(owner.component.clone()).or_default();
        let mut room = match most_pinned {
            0 => 0,
            _ => root.room_for_pins(&sequence.tokens()[..len.min(declared)], clock, most_pinned),
        };
        let mut node = root;
        let mut begin = 0;
        for segment in sequence.segments() {
            let held = segment.tokens.min(len - begin);
            if held == 0 {
                break;
            }
            let tokens = &sequence.tokens()[begin..begin + held];
            let shared = declared.saturating_sub(begin).min(held);
            let pin = room > 0 && shared > 0 && node.pinned_edge(&tokens[..shared]).is_none();
            let edge = node.edge(tokens, segment, shared, owner.session);
            edge.used = clock;
            if pin && !edge.pinned {
                edge.pinned = true;
                room -= 1;
            }
            begin += held;
            node = &mut edge.below;
        }
    }

    /// Drop the edge that was unused for longest, with no edge below it and not pinned. False when
    /// there is none.
    ///
    /// Its block is free at once unless a sequence holds it too.
    pub(super) fn evict(&mut self) -> bool {
        let oldest = self.roots.values().filter_map(Node::oldest).min();
        let Some(oldest) = oldest else { return false };
        let removed = self.roots.values_mut().any(|root| root.remove(oldest));
        self.roots.retain(|_, root| !root.edges.is_empty());
        removed
    }

    /// How many tokens of `prompt` are known to `owner`.
    pub(super) fn known(&self, owner: &CacheOwner, prompt: &[u32]) -> usize {
        let mut known = 0;
        let mut node = self.roots.get(&owner.component);
        while let Some(here) = node.take() {
            let common = here.edges.iter().map(|edge| (edge.common(&prompt[known..], owner.session), edge));
            let Some((common, edge)) = common.max_by_key(|(common, _)| *common) else { break };
            known += common;
            node = (common == BLOCK_TOKENS).then_some(&edge.below);
        }
        known
    }

    /// How many of the blocks that are known of `prompt` cannot be evicted as things stand.
    pub(super) fn held(&self, owner: &CacheOwner, prompt: &[u32]) -> usize {
        let (mut held, mut known) = (0, 0);
        let mut node = self.roots.get(&owner.component);
        while let Some(here) = node.take() {
            let whole =
                here.edges.iter().find(|edge| edge.common(&prompt[known..], owner.session) == BLOCK_TOKENS);
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

    /// Take the pin back that was unused for longest. False when there is none.
    pub(super) fn unpin(&mut self) -> bool {
        let oldest = self.roots.values().filter_map(Node::oldest_pin).min();
        oldest.is_some_and(|oldest| self.roots.values_mut().any(|root| root.unpin(oldest)))
    }
}

impl Node {
    /// The edge that shares most tokens with `wanted` for `session`, and how many.
    fn best(&mut self, wanted: &[u32], session: u64) -> Option<(&mut Edge, usize)> {
        let rated = self.edges.iter_mut().map(|edge| (edge.common(wanted, session), edge));
        let best = rated.max_by_key(|(common, _)| *common);
        best.filter(|(common, _)| *common > 0).map(|(common, edge)| (edge, common))
    }

    /// The edge that begins with `tokens` for `session`, made from `segment` where there is none.
    /// Its first `shared` are for all.
    fn edge(&mut self, tokens: &[u32], segment: &Segment, shared: usize, session: u64) -> &mut Edge {
        let found = self.edges.iter().position(|edge| edge.common(tokens, session) == tokens.len());
        // A half-full block gives way to one that holds more of the same, if no one loses by it.
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
                        below: Node::default(),
                    });
                    self.edges.len() - 1
                }
            },
        };
        let edge = &mut self.edges[position];
        edge.shared = edge.shared.max(shared);
        edge
    }

    /// The pinned edge that every session finds `tokens` by.
    fn pinned_edge(&mut self, tokens: &[u32]) -> Option<&mut Edge> {
        let holds = |edge: &&mut Edge| edge.pinned && edge.tokens[..edge.shared].starts_with(tokens);
        self.edges.iter_mut().find(holds)
    }

    /// How many further blocks of `tokens` may be pinned, after older pins have given way.
    fn room_for_pins(&mut self, tokens: &[u32], clock: u64, most: usize) -> usize {
        let mut kept = 0;
        let mut node = &mut *self;
        for part in tokens.chunks(BLOCK_TOKENS) {
            let Some(edge) = node.pinned_edge(part) else { break };
            edge.used = clock;
            kept += 1;
            node = &mut edge.below;
        }
        let wanted = tokens.len().div_ceil(BLOCK_TOKENS).min(most) - kept.min(most);
        let mut pins = self.pinned();
        while pins + wanted > most {
            let Some(oldest) = self.oldest_pin().filter(|used| *used < clock) else { break };
            self.unpin(oldest);
            pins -= 1;
        }
        most.saturating_sub(pins).min(wanted)
    }

    fn pinned(&self) -> usize {
        self.edges.iter().map(|edge| usize::from(edge.pinned) + edge.below.pinned()).sum()
    }

    /// Blocks that nobody but this tree holds, and no pin.
    fn evictable(&self) -> usize {
        self.edges.iter().map(|edge| usize::from(edge.is_evictable()) + edge.below.evictable()).sum()
    }

    /// When the least recently used pin was used, of those with no pin below.
    fn oldest_pin(&self) -> Option<u64> {
        let own = |edge: &Edge| edge.below.oldest_pin().or(edge.pinned.then_some(edge.used));
        self.edges.iter().filter_map(own).min()
    }

    /// Take the pin back, with none below it, that was used at `used`.
    fn unpin(&mut self, used: u64) -> bool {
        self.edges.iter_mut().any(|edge| {
            let last = edge.pinned && edge.used == used && edge.below.oldest_pin().is_none();
            if last {
                edge.pinned = false;
            }
            last || edge.below.unpin(used)
        })
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

    /// How many tokens it shares with `wanted`, of those that `session` finds.
    fn common(&self, wanted: &[u32], session: u64) -> usize {
        let found = if self.session == session { self.tokens.len() } else { self.shared };
        self.tokens[..found].iter().zip(wanted).take_while(|(a, b)| a == b).count()
    }
}
