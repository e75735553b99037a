use std::path::PathBuf;

use crate::harness::repository;

#[path = "../fuzz/bodies.rs"]
mod bodies;

/// Runs a fuzz target on each of its seeds.
fn replay(target: &str, body: fn(&[u8])) {
    let folder = repository().join("fuzz/seeds").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut seeds: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!(seeds.len() >= 4, "{target} has {} seeds", seeds.len());
    for seed in seeds {
        println!("{}", seed.display());
        let bytes = std::fs::read(&seed).unwrap();
        body(&bytes);
        // Also on the first half, and with one byte changed.
        body(&bytes[..bytes.len() / 2]);
        let mut changed = bytes;
        if let Some(byte) = changed.get_mut(7) {
            *byte ^= 0x55;
        }
        body(&changed);
    }
}

#[test]
fn configurations_are_rejected_or_resolved() {
    replay("config", bodies::config);
}

#[test]
fn cards_are_rejected_or_complete() {
    replay("card", bodies::card);
}

#[test]
fn images_are_rejected_or_decoded() {
    replay("image", bodies::image);
}

#[test]
fn tensors_are_rejected_or_consistent() {
    replay("tensor", bodies::tensor);
}

#[test]
fn calls_in_any_order_harm_no_other() {
    replay("nn", bodies::nn);
}
