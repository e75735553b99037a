//! Attacks on the host's time: endless loops, recursion, floods of log lines.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};

use guest_sdk::nn::{Tensor, TensorType};
use guest_sdk::settings::Settings;
use guest_sdk::{Fault, log};

use crate::models;

/// Loops for ever.
pub(crate) fn spin(_: &Settings) -> Result<String, Fault> {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Overflows the stack.
pub(crate) fn recurse(_: &Settings) -> Result<String, Fault> {
    #[expect(unconditional_recursion, reason = "the attack")]
    fn deeper(depth: u64) -> u64 {
        let frame = black_box([depth; 32]);
        deeper(depth + 1) + frame[31]
    }
    Ok(format!("came back from a depth of {}", deeper(0)))
}

/// Panics.
pub(crate) fn give_up(_: &Settings) -> Result<String, Fault> {
    panic!("a guest that panics on purpose")
}

/// Floods the log: many lines, one of eight megabytes, some that imitate other lines.
pub(crate) fn flood_log(_: &Settings) -> Result<String, Fault> {
    const LINES: usize = 100_000;
    log::error(&"x".repeat(8 << 20));
    for _ in 0..LINES {
        log::warn("a line\nand a forged one \u{1b}[31mERROR\u{1b}[0m request{id=0}");
    }
    Ok(format!("wrote {LINES} lines"))
}

/// Runs the model again and again.
pub(crate) fn drip(settings: &Settings) -> Result<String, Fault> {
    let (context, input) = models::open(settings)?;
    let ids = vec![0; 100 * size_of::<i32>()];
    let mut drops = 0_u64;
    loop {
        let tensor = Tensor::new(&[1, 100], TensorType::I32, &ids);
        match context.compute(vec![(input.clone(), tensor)]) {
            Ok(_) => drops += 1,
            Err(error) => {
                return Ok(format!("after {drops} computations {}", models::refusal::<()>(Err(error))));
            }
        }
    }
}

/// Tries to keep state between calls.
pub(crate) fn remember(_: &Settings) -> Result<String, Fault> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    Ok(format!("called {} times before", CALLS.fetch_add(1, Ordering::Relaxed)))
}
