use super::*;
use crate::language::kv::KvPool;

fn sequence(pool: &KvPool, tokens: &[u32]) -> Sequence {
    let mut sequence = Sequence::default();
    sequence.extend(pool, tokens).unwrap();
    sequence
}

fn tokens(n: usize, seed: u32) -> Vec<u32> {
    (0..n as u32).map(|i| i * 31 + seed).collect()
}

#[test]
fn longest_prefix_is_found_to_the_token() {
    let pool = KvPool::new(1, 4, 1 << 20);
    let mut prefixes = Prefixes::default();
    let a = CacheOwner::new(&Arc::from("a"));
    let b = CacheOwner::new(&Arc::from("b"));
    let policy = tokens(40, 0);
    let first = [&policy[..], &[901, 902]].concat();
    prefixes.insert(&a, &sequence(&pool, &first), 42, 0, 0);
    let second = [&policy[..], &[903]].concat();
    assert_eq!(prefixes.cached(&a, &second), 40);
    assert_eq!(prefixes.find(&a, &second, 41).len(), 40);
    assert_eq!(prefixes.find(&a, &second, 39).len(), 39);
    assert_eq!(prefixes.find(&b, &second, 41).len(), 0);
    // A sibling with a common beginning: the longer match wins.
    prefixes.insert(&a, &sequence(&pool, &second), 41, 0, 0);
    assert_eq!(prefixes.find(&a, &first, 42).len(), 42);
    assert_eq!(prefixes.find(&a, &second, 41).len(), 41);
}

#[test]
fn least_recently_used_leaf_is_evicted_pins_stay() {
    let pool = KvPool::new(1, 4, 1 << 20);
    let mut prefixes = Prefixes::default();
    let a = CacheOwner::new(&Arc::from("a"));
    let (old, new, pinned) = (tokens(20, 1), tokens(20, 2), tokens(40, 3));
    prefixes.insert(&a, &sequence(&pool, &pinned), 40, 20, 2);
    for tokens in [&old, &new] {
        prefixes.insert(&a, &sequence(&pool, tokens), 20, 0, 0);
    }
    prefixes.find(&a, &old, 20);
    assert_eq!((pool.used(), prefixes.evictable()), (7, 5));
    assert!(prefixes.evict());
    assert_eq!(prefixes.cached(&a, &pinned), 32, "the part that is not pinned was the oldest");
    assert!(prefixes.evict() && prefixes.evict());
    assert_eq!((prefixes.cached(&a, &new), prefixes.cached(&a, &old)), (0, 20));
    assert!(prefixes.evict() && prefixes.evict());
    assert!(!prefixes.evict());
    assert_eq!((prefixes.cached(&a, &pinned), pool.used()), (32, 2));
    assert!(prefixes.unpin() && prefixes.evict() && !prefixes.evict());
    assert!(prefixes.unpin() && prefixes.evict() && !prefixes.unpin());
    assert_eq!(pool.used(), 0);
}

#[test]
fn block_in_use_is_not_evictable() {
    let pool = KvPool::new(1, 4, 1 << 20);
    let mut prefixes = Prefixes::default();
    let a = CacheOwner::new(&Arc::from("a"));
    let all = tokens(40, 0);
    prefixes.insert(&a, &sequence(&pool, &all), 40, 0, 0);
    assert_eq!((prefixes.evictable(), prefixes.unevictable(&a, &all)), (3, 0));
    let found = prefixes.find(&a, &all, 20);
    assert_eq!((prefixes.evictable(), prefixes.unevictable(&a, &all)), (1, 2));
    while prefixes.evict() {}
    assert_eq!(pool.used(), 2);
    drop(found);
    assert_eq!(pool.used(), 0);
}

#[test]
fn session_finds_declared_prefixes_of_others() {
    let pool = KvPool::new(1, 4, 1 << 20);
    let mut prefixes = Prefixes::default();
    let component = Arc::from("a");
    let (one, two) = (CacheOwner::new(&component), CacheOwner::new(&component));
    for declared in [0, 1, 15, 16, 17, 20, 32, 39, 40] {
        let all = tokens(40, declared as u32 * 1_000);
        prefixes.insert(&one, &sequence(&pool, &all), 40, declared, 0);
        assert_eq!((prefixes.cached(&one, &all), prefixes.cached(&two, &all)), (40, declared));
        assert_eq!(
            (prefixes.find(&one, &all, 40).len(), prefixes.find(&two, &all, 40).len()),
            (40, declared)
        );
        // The other session computes the same tokens. Both find all of them, and others find no
        // more than before.
        prefixes.insert(&two, &sequence(&pool, &all), 40, declared, 0);
        assert_eq!((prefixes.cached(&one, &all), prefixes.cached(&two, &all)), (40, 40), "{declared}");
        assert_eq!(prefixes.cached(&CacheOwner::new(&component), &all), declared);
    }
}

#[test]
fn partly_declared_block_is_pinned_once() {
    let pool = KvPool::new(1, 4, 1 << 20);
    let mut prefixes = Prefixes::default();
    let component = Arc::from("a");
    let policy = tokens(20, 0);
    for post in 0..5 {
        let owner = CacheOwner::new(&component);
        let all = [&policy[..], &tokens(10, 500 + post)].concat();
        prefixes.insert(&owner, &sequence(&pool, &all), 30, 20, 8);
    }
    assert_eq!(prefixes.roots["a"].pinned(), 2);
    while prefixes.evict() {}
    assert_eq!((pool.used(), prefixes.cached(&CacheOwner::new(&component), &policy)), (2, 20));
}

#[test]
fn oldest_pins_are_removed_from_their_ends() {
    let pool = KvPool::new(1, 4, 1 << 20);
    let mut prefixes = Prefixes::default();
    let a = CacheOwner::new(&Arc::from("a"));
    let (old, new) = (tokens(48, 1), tokens(48, 2_000));
    prefixes.insert(&a, &sequence(&pool, &old), 48, 48, 4);
    prefixes.insert(&a, &sequence(&pool, &new), 48, 48, 4);
    while prefixes.evict() {}
    assert_eq!((prefixes.cached(&a, &old), prefixes.cached(&a, &new)), (16, 48));
    // A prefix longer than the limit is pinned at its beginning. Repeating this changes nothing.
    let long = tokens(96, 5_000);
    for _ in 0..2 {
        prefixes.insert(&a, &sequence(&pool, &long), 96, 96, 4);
        while prefixes.evict() {}
        assert_eq!((prefixes.cached(&a, &new), prefixes.cached(&a, &long)), (0, 64));
    }
}
