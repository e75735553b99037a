//! Attempts to take more resources than an instance may have.

use guest_sdk::bindings::handler::wasi::cli::stdout;
use guest_sdk::bindings::handler::wasi::clocks::monotonic_clock;
use guest_sdk::bindings::handler::wasi::random::random;
use guest_sdk::http::{HttpError, Request, Respond};

use crate::exchange::say;

/// A gigabyte of random bytes.
pub(crate) fn random_bytes(_: &mut Request, respond: Respond) -> Result<(), HttpError> {
    let bytes = random::get_random_bytes(1 << 30);
    say(respond, &bytes.len().to_string())
}

/// A million timers.
pub(crate) fn pollables(_: &mut Request, respond: Respond) -> Result<(), HttpError> {
    let pollables: Vec<_> = (0..1_000_000).map(|_| monotonic_clock::subscribe_duration(u64::MAX)).collect();
    say(respond, &pollables.len().to_string())
}

/// A thousand lines, and an endless one.
pub(crate) fn print(_: &mut Request, respond: Respond) -> Result<(), HttpError> {
    let stream = stdout::get_stdout();
    for line in 0..1_000 {
        let _ = stream.blocking_write_and_flush(format!("line {line}\n").as_bytes());
    }
    for _ in 0..1_000 {
        let _ = stream.blocking_write_and_flush(&[b'x'; 4096]);
    }
    say(respond, "printed")
}

/// An endless loop.
pub(crate) fn spin(_: &mut Request, _: Respond) -> Result<(), HttpError> {
    let mut count = 0_u64;
    loop {
        count = std::hint::black_box(count + 1);
    }
}
