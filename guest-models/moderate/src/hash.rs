//! Hash table layout of the vocabulary. The guest and its build script share it, since they must
//! agree.

/// Number of slots: a power of two, three fifths of them in use.
pub(crate) const SLOTS: usize = 1 << ID_BITS;

/// Bits of a slot that hold the word's id; the rest hold the upper part of its hash.
pub(crate) const ID_BITS: u32 = 15;

/// Hash of a word: FNV-1a with a final mix, so that both ends have good bits.
pub(crate) fn hash(word: &[u8]) -> u32 {
    let hash =
        word.iter().fold(0x811c_9dc5_u32, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let hash = (hash ^ (hash >> 15)).wrapping_mul(0x2c1b_3c6d);
    hash ^ (hash >> 16)
}

/// Slot where the search for a word begins.
pub(crate) fn first_slot(hash: u32) -> usize {
    hash as usize & (SLOTS - 1)
}

/// Content of a used slot: never 0, since ids begin at 1.
pub(crate) fn slot(hash: u32, id: u16) -> u32 {
    hash >> ID_BITS << ID_BITS | u32::from(id)
}
