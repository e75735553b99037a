//! Seeded random numbers for texts, tokens and arrival times.

use fastrand::Rng;

/// Returns the generator of `seed` for one `stream`; each stream is a different sequence.
pub(super) fn seeded(seed: u64, stream: u64) -> Rng {
    Rng::with_seed(Rng::with_seed(seed).u64(..) ^ stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_streams_select_sequences() {
        let first = |seed, stream| seeded(seed, stream).u64(..);
        assert_eq!(first(7, 1), first(7, 1));
        assert_ne!(first(7, 0), first(7, 1));
        assert_ne!(first(7, 1), first(8, 1));
        assert_ne!(first(7, 8), first(8, 7));
    }
}
