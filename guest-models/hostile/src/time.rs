//! Attacks on the host's time: guests that do not come back, or not in peace.

use std::hint::black_box;

use guest_sdk::settings::Settings;
use guest_sdk::{Fault, log};

/// Compute nothing, for ever.
pub(crate) fn spin(_: &Settings) -> Result<String, Fault> {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Use up the stack.
pub(crate) fn recurse(_: &Settings) -> Result<String, Fault> {
    #[expect(unconditional_recursion, reason = "the attack")]
    fn deeper(depth: u64) -> u64 {
        let kept = black_box([depth; 32]);
        deeper(depth + 1) + kept[31]
    }
    Ok(format!("came back from a depth of {}", deeper(0)))
}

/// Stop in the middle.
pub(crate) fn give_up(_: &Settings) -> Result<String, Fault> {
    panic!("a guest that panics on purpose")
}

/// Write more log than anyone reads: many lines, one of them of eight megabytes, some that forge others.
pub(crate) fn flood_log(_: &Settings) -> Result<String, Fault> {
    const LINES: usize = 100_000;
    log::error(&"x".repeat(8 << 20));
    for _ in 0..LINES {
        log::warn("a line\nand a forged one \u{1b}[31mERROR\u{1b}[0m request{id=0}");
    }
    Ok(format!("wrote {LINES} lines"))
}
