//! Keys and values of tokens, in blocks that sequences share.
//!
//! A block holds the keys and values of up to [`BLOCK_TOKENS`] consecutive tokens, for all layers.
//! A [`Sequence`] is a list of blocks, of which only the last may be partly filled. Two sequences
//! with a common prefix share its blocks. A block is written only by a sequence that holds its only
//! reference; a sequence that continues from the middle of a shared block continues in a copy. A
//! block is freed when its last reference, from a sequence or from the prefix cache, is dropped.

#[cfg(test)]
pub(in crate::language) mod properties;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use infer_kernels::{BLOCK_TOKENS, Destination, Span};

/// A pool of blocks. Clones share the same pool.
#[derive(Clone)]
pub(super) struct KvPool {
    shared: Arc<Shared>,
}

struct Shared {
    layers: usize,
    layer_bytes: usize,
    /// Maximum number of blocks in use.
    capacity: usize,
    used: AtomicUsize,
    /// Memory of free blocks. The lock is held for a push or a pop: the model's thread allocates
    /// and frees blocks, the thread that writes prefixes to disk frees some, and the thread that
    /// drops the model the rest.
    free: Mutex<Vec<Box<[u8]>>>,
}

/// Error of a pool that has no free block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

pub(super) struct Block {
    data: Box<[u8]>,
    home: Arc<Shared>,
}

/// A block, or the first tokens of one.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) block: Arc<Block>,
    pub(super) tokens: usize,
}

/// Tokens in order, and the blocks that hold their keys and values.
#[derive(Default)]
pub(super) struct Sequence {
    tokens: Vec<u32>,
    segments: Vec<Segment>,
}

impl KvPool {
    /// A pool of at most `bytes`, for blocks of `layers` times `layer_bytes`.
    pub(super) fn new(layers: usize, layer_bytes: usize, bytes: usize) -> Self {
        let capacity = bytes / (layers * layer_bytes).max(1);
        let (used, free) = (AtomicUsize::new(0), Mutex::default());
        KvPool { shared: Arc::new(Shared { layers, layer_bytes, capacity, used, free }) }
    }

    pub(super) fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// Number of blocks that a sequence or the prefix cache holds.
    pub(super) fn used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }

    pub(super) fn block_bytes(&self) -> usize {
        self.shared.layers * self.shared.layer_bytes
    }

    /// Allocates a block. Its contents are left over from earlier use; a slot is always written
    /// before it is read.
    fn take(&self) -> Result<Arc<Block>, Full> {
        let shared = &self.shared;
        // Only the model's own thread allocates, so the count cannot exceed the capacity between
        // these two lines.
        if shared.used.load(Ordering::Relaxed) >= shared.capacity {
            return Err(Full);
        }
        shared.used.fetch_add(1, Ordering::Relaxed);
        let free = shared.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let new = || vec![0; shared.layers * shared.layer_bytes].into_boxed_slice();
        Ok(Arc::new(Block { data: free.unwrap_or_else(new), home: shared.clone() }))
    }
}

impl Block {
    fn layer(&self, layer: usize) -> &[u8] {
        let bytes = self.home.layer_bytes;
        &self.data[layer * bytes..][..bytes]
    }

    fn layer_mut(&mut self, layer: usize) -> &mut [u8] {
        let bytes = self.home.layer_bytes;
        &mut self.data[layer * bytes..][..bytes]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut data = std::mem::take(&mut self.data);
        // In tests, reading a slot that was not rewritten results in NaN, in each type.
        if cfg!(test) {
            data.fill(0xff);
        }
        self.home.free.lock().unwrap_or_else(PoisonError::into_inner).push(data);
        self.home.used.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sequence {
    /// A sequence that begins with a cached prefix: `segments` hold exactly `tokens`.
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

    /// The bytes of each block.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &[u8]> {
        self.segments.iter().map(|segment| &*segment.block.data)
    }

    /// The bytes of each block of a sequence that shares none.
    pub(super) fn blocks_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.segments.iter_mut().map(|segment| {
            let block = Arc::get_mut(&mut segment.block);
            &mut *block.expect("blocks of a new sequence have a single reference").data
        })
    }

    /// Number of full blocks.
    pub(super) fn whole_blocks(&self) -> usize {
        self.len() / BLOCK_TOKENS
    }

    /// A copy of the first `len` tokens that shares their blocks.
    pub(super) fn fork_at(&self, len: usize) -> Sequence {
        let mut segments = self.segments[..len.div_ceil(BLOCK_TOKENS)].to_vec();
        if let (Some(last), rest @ 1..) = (segments.last_mut(), len % BLOCK_TOKENS) {
            last.tokens = rest;
        }
        Sequence { tokens: self.tokens[..len].to_vec(), segments }
    }

    /// Reserves slots for `tokens` at the end; the next forward pass writes their keys and values.
    ///
    /// # Errors
    ///
    /// If the pool does not have enough blocks. The sequence is then unchanged.
    pub(super) fn extend(&mut self, pool: &KvPool, tokens: &[u32]) -> Result<(), Full> {
        if tokens.is_empty() {
            return Ok(());
        }
        let needed = self.blocks_for(tokens.len());
        let mut blocks = (0..needed).map(|_| pool.take()).collect::<Result<Vec<_>, _>>()?.into_iter();
        let mut left = tokens.len();
        if let Some(last) = self.segments.last_mut().filter(|last| last.tokens < BLOCK_TOKENS) {
            if Arc::get_mut(&mut last.block).is_none() {
                let mut copy = blocks.next().expect("`blocks_for` counts the copy of a shared block");
                let own = Arc::get_mut(&mut copy).expect("a new block has a single reference");
                own.data.copy_from_slice(&last.block.data);
                last.block = copy;
            }
            let fits = left.min(BLOCK_TOKENS - last.tokens);
            last.tokens += fits;
            left -= fits;
        }
        for block in blocks {
            // The copy was not needed if another thread dropped its reference in the meantime.
            if left == 0 {
                break;
            }
            let tokens = left.min(BLOCK_TOKENS);
            self.segments.push(Segment { block, tokens });
            left -= tokens;
        }
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// Number of blocks that `more` tokens need from the pool.
    fn blocks_for(&self, more: usize) -> usize {
        let half_full = self.segments.last().filter(|last| last.tokens < BLOCK_TOKENS);
        let (room, copies) = half_full.map_or((0, 0), |last| {
            (BLOCK_TOKENS - last.tokens, usize::from(Arc::strong_count(&last.block) > 1))
        });
        copies + more.saturating_sub(room).div_ceil(BLOCK_TOKENS)
    }

    /// Keys and values of the whole sequence, for one layer.
    pub(super) fn spans(&self, layer: usize) -> impl Iterator<Item = Span<'_>> {
        self.segments
            .iter()
            .map(move |segment| Span { tokens: segment.tokens, block: segment.block.layer(layer) })
    }

    /// Destinations of one layer's keys and values for the tokens from position `start`. They
    /// correspond to the rows from `first_row`.
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
                block.expect("tokens are only added to blocks with a single reference").layer_mut(layer);
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
        KvPool::new(2, 8, blocks * 2 * 8)
    }

    fn tokens(n: usize) -> Vec<u32> {
        (0..n as u32).collect()
    }

    fn parts(sequence: &Sequence) -> Vec<usize> {
        sequence.segments().iter().map(|segment| segment.tokens).collect()
    }

    #[test]
    fn blocks_fill_in_order() {
        let pool = pool(8);
        let mut sequence = Sequence::default();
        sequence.extend(&pool, &tokens(5)).unwrap();
        sequence.extend(&pool, &tokens(20)).unwrap();
        assert_eq!((parts(&sequence), sequence.len(), pool.used()), (vec![16, 9], 25, 2));
        drop(sequence);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn fork_continues_in_a_copy() {
        let pool = pool(8);
        let mut one = Sequence::default();
        one.extend(&pool, &tokens(21)).unwrap();
        one.destinations(1, 16, 0).for_each(|to| to.block.fill(1));
        let mut two = one.fork_at(one.len());
        two.extend(&pool, &tokens(2)).unwrap();
        assert_eq!((parts(&one), parts(&two), pool.used()), (vec![16, 5], vec![16, 7], 3));
        let written: Vec<_> =
            two.destinations(1, 21, 3).map(|to| (to.rows.clone(), to.position, to.slot)).collect();
        assert_eq!(written, [(3..5, 21, 5)]);
        assert!(two.spans(1).last().unwrap().block.iter().all(|&value| value == 1));
        // Each sequence has its own block now, so neither copies again.
        one.extend(&pool, &tokens(1)).unwrap();
        assert_eq!((parts(&one), pool.used()), (vec![16, 6], 3));
    }

    #[test]
    fn full_pool_leaves_sequence_unchanged() {
        let pool = pool(2);
        let mut sequence = Sequence::default();
        sequence.extend(&pool, &tokens(20)).unwrap();
        assert_eq!(sequence.extend(&pool, &tokens(13)), Err(Full));
        assert_eq!((parts(&sequence), sequence.len(), pool.used()), (vec![16, 4], 20, 2));
        sequence.extend(&pool, &tokens(12)).unwrap();
        assert_eq!(parts(&sequence), [16, 16]);
    }
}
