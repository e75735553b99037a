//! Keys and values of tokens, in blocks that sequences share.
//!
//! A block holds the keys and values of up to [`BLOCK_TOKENS`] consecutive tokens, for all layers.
//! A [`Sequence`] is a list of blocks, full but for the last; two sequences with a common prefix
//! hold the same blocks for it. A block is written only by the one sequence that holds it alone:
//! one that goes on from the middle of a shared block goes on in a copy. What no sequence and no
//! prefix holds is free again when its last reference is dropped.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use infer_kernels::{BLOCK_TOKENS, Destination, Span};

/// Where blocks come from and go back to. Clones are the same pool.
#[derive(Clone)]
pub(super) struct KvPool {
    shared: Arc<Shared>,
}

struct Shared {
    layers: usize,
    layer_elements: usize,
    /// The most blocks that may be in use at once.
    capacity: usize,
    used: AtomicUsize,
    /// Memory of blocks that were dropped. A lock held for a push or a pop: the model's thread
    /// takes and drops blocks, and whichever thread drops the model drops the rest.
    free: Mutex<Vec<Box<[f16]>>>,
}

/// The pool is at its capacity.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

pub(super) struct Block {
    data: Box<[f16]>,
    home: Arc<Shared>,
}

/// A block, or the first tokens of one.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) block: Arc<Block>,
    pub(super) tokens: usize,
}

/// Tokens in order, and where their keys and values are.
#[derive(Default)]
pub(super) struct Sequence {
    tokens: Vec<u32>,
    segments: Vec<Segment>,
}

impl KvPool {
    /// A pool of at most `bytes`, for blocks of `layers` times `layer_elements` half-precision
    /// numbers.
    pub(super) fn new(layers: usize, layer_elements: usize, bytes: usize) -> Self {
        let capacity = bytes / (layers * layer_elements * size_of::<f16>()).max(1);
        let (used, free) = (AtomicUsize::new(0), Mutex::default());
        KvPool { shared: Arc::new(Shared { layers, layer_elements, capacity, used, free }) }
    }

    pub(super) fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// Blocks that some sequence or prefix holds.
    pub(super) fn used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }

    pub(super) fn block_bytes(&self) -> usize {
        self.shared.layers * self.shared.layer_elements * size_of::<f16>()
    }

    /// A block whose content is left over from earlier use: nothing reads a slot before it is
    /// written.
    fn take(&self) -> Result<Arc<Block>, Full> {
        let shared = &self.shared;
        // Only the model's own thread takes, so the count cannot pass the capacity between these
        // two lines.
        if shared.used.load(Ordering::Relaxed) >= shared.capacity {
            return Err(Full);
        }
        shared.used.fetch_add(1, Ordering::Relaxed);
        let free = shared.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let new = || vec![f16::ZERO; shared.layers * shared.layer_elements].into_boxed_slice();
        Ok(Arc::new(Block { data: free.unwrap_or_else(new), home: shared.clone() }))
    }
}

impl Block {
    fn layer(&self, layer: usize) -> &[f16] {
        let elements = self.home.layer_elements;
        &self.data[layer * elements..][..elements]
    }

    fn layer_mut(&mut self, layer: usize) -> &mut [f16] {
        let elements = self.home.layer_elements;
        &mut self.data[layer * elements..][..elements]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut data = std::mem::take(&mut self.data);
        // In tests, whoever reads a slot that was not written since, computes NaN.
        if cfg!(test) {
            data.fill(f16::NAN);
        }
        self.home.free.lock().unwrap_or_else(PoisonError::into_inner).push(data);
        self.home.used.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sequence {
    /// A sequence that begins with what others have computed: `segments` hold exactly `tokens`.
    pub(super) fn from_prefix(tokens: Vec<u32>, segments: Vec<Segment>) -> Self {
        debug_assert_eq!(tokens.len(), segments.iter().map(|segment| segment.tokens).sum::<usize>());
        debug_assert_eq!(segments.len(), tokens.len().div_ceil(BLOCK_TOKENS));
        Sequence { tokens, segments }
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Blocks that are full.
    pub(super) fn whole_blocks(&self) -> usize {
        self.len() / BLOCK_TOKENS
    }

    /// Another sequence that begins as this one does.
    pub(super) fn fork(&self) -> Sequence {
        Sequence { tokens: self.tokens.clone(), segments: self.segments.clone() }
    }

    /// Make room for `tokens` after what there is; their keys and values are the next forward
    /// pass's to write.
    ///
    /// # Errors
    ///
    /// When the pool has not enough blocks; the sequence is then as it was.
    pub(super) fn extend(&mut self, pool: &KvPool, tokens: &[u32]) -> Result<(), Full> {
        if tokens.is_empty() {
            return Ok(());
        }
        let needed = self.blocks_for(tokens.len());
        let mut blocks = (0..needed).map(|_| pool.take()).collect::<Result<Vec<_>, _>>()?.into_iter();
        let mut left = tokens.len();
        if let Some(last) = self.segments.last_mut().filter(|last| last.tokens < BLOCK_TOKENS) {
            if Arc::get_mut(&mut last.block).is_none() {
                let mut copy = blocks.next().expect("a shared, half-full block counts as one that is needed");
                let own = Arc::get_mut(&mut copy).expect("a block that was just taken is no one else's");
                own.data.copy_from_slice(&last.block.data);
                last.block = copy;
            }
            let fits = left.min(BLOCK_TOKENS - last.tokens);
            last.tokens += fits;
            left -= fits;
        }
        for block in blocks {
            let tokens = left.min(BLOCK_TOKENS);
            self.segments.push(Segment { block, tokens });
            left -= tokens;
        }
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// Blocks that `more` further tokens need from the pool.
    fn blocks_for(&self, more: usize) -> usize {
        let half_full = self.segments.last().filter(|last| last.tokens < BLOCK_TOKENS);
        let (room, copies) = half_full.map_or((0, 0), |last| {
            (BLOCK_TOKENS - last.tokens, usize::from(Arc::strong_count(&last.block) > 1))
        });
        copies + more.saturating_sub(room).div_ceil(BLOCK_TOKENS)
    }

    /// The whole sequence's keys and values of one layer.
    pub(super) fn spans(&self, layer: usize) -> impl Iterator<Item = Span<'_>> {
        self.segments
            .iter()
            .map(move |segment| Span { tokens: segment.tokens, block: segment.block.layer(layer) })
    }

    /// Where one layer's keys and values of the tokens from position `start` on are written, which
    /// are the rows from `first_row` on.
    pub(super) fn destinations(
        &mut self,
        layer: usize,
        start: usize,
        first_row: usize,
    ) -> impl Iterator<Item = Destination<'_>> {
        let mut end = 0;
        self.segments.iter_mut().filter_map(move |segment| {
            let begin = end;
            end += segment.tokens;
            let fresh: Range<usize> = begin.max(start)..end;
            if fresh.is_empty() {
                return None;
            }
            let block = Arc::get_mut(&mut segment.block);
            let block =
                block.expect("tokens are added only to blocks that no one else holds").layer_mut(layer);
            let row = first_row + fresh.start - start;
            Some(Destination {
                rows: row..row + fresh.len(),
                position: fresh.start,
                slot: fresh.start - begin,
                block,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(blocks: usize) -> KvPool {
        KvPool::new(2, 8, blocks * 2 * 8 * 2)
    }

    fn tokens(n: usize) -> Vec<u32> {
        (0..n as u32).collect()
    }

    fn parts(sequence: &Sequence) -> Vec<usize> {
        sequence.segments().iter().map(|segment| segment.tokens).collect()
    }

    #[test]
    fn blocks_are_filled_one_after_the_other() {
        let pool = pool(8);
        let mut sequence = Sequence::default();
        sequence.extend(&pool, &tokens(5)).unwrap();
        sequence.extend(&pool, &tokens(20)).unwrap();
        assert_eq!((parts(&sequence), sequence.len(), pool.used()), (vec![16, 9], 25, 2));
        drop(sequence);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn fork_goes_on_in_a_copy() {
        let pool = pool(8);
        let mut one = Sequence::default();
        one.extend(&pool, &tokens(21)).unwrap();
        one.destinations(1, 16, 0).for_each(|to| to.block.fill(f16::ONE));
        let mut two = one.fork();
        two.extend(&pool, &tokens(2)).unwrap();
        assert_eq!((parts(&one), parts(&two), pool.used()), (vec![16, 5], vec![16, 7], 3));
        let written: Vec<_> =
            two.destinations(1, 21, 3).map(|to| (to.rows.clone(), to.position, to.slot)).collect();
        assert_eq!(written, [(3..5, 21, 5)]);
        assert!(two.spans(1).last().unwrap().block.iter().all(|&value| value == f16::ONE));
        // Now that each has its own, neither copies again.
        one.extend(&pool, &tokens(1)).unwrap();
        assert_eq!((parts(&one), pool.used()), (vec![16, 6], 3));
    }

    #[test]
    fn full_pool_leaves_the_sequence_as_it_was() {
        let pool = pool(2);
        let mut sequence = Sequence::default();
        sequence.extend(&pool, &tokens(20)).unwrap();
        assert_eq!(sequence.extend(&pool, &tokens(13)), Err(Full));
        assert_eq!((parts(&sequence), sequence.len(), pool.used()), (vec![16, 4], 20, 2));
        sequence.extend(&pool, &tokens(12)).unwrap();
        assert_eq!(parts(&sequence), [16, 16]);
    }
}
