//! Logging to standard error, as text or as JSON.
//!
//! Logging never blocks: a line goes into a bounded queue, and a dedicated thread writes it. If
//! standard error is slower than the log, lines are dropped and counted.
//!
//! # Layout
//!
//! - `queue`: the queue and its thread; `lines`: the format of a line, and the limit of each field

mod lines;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::panic;
use std::sync::OnceLock;

use anyhow::Context as _;
use lines::{Bounded, Json};
use queue::Queue;
use tracing::error;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::cli::LogFormat;
use crate::limits::MAX_FLUSH_TIME;

/// The queue of this process, after `init`.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Installs the subscriber of this process and a panic hook that logs; later calls change nothing.
///
/// # Errors
///
/// If `filter` is not a list of levels and `target=level` pairs, or the thread cannot be started.
pub(crate) fn init(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let targets: Targets = filter.parse().with_context(|| {
        format!("cannot read the log filter `{filter}`; expected levels such as `info` or `warn,guest=debug`")
    })?;
    let queue = match QUEUE.get() {
        Some(queue) => queue,
        None => {
            let queue = Queue::start(io::stderr()).context("cannot start the log's thread")?;
            QUEUE.get_or_init(|| queue)
        }
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(queue);
    let registry = tracing_subscriber::registry().with(targets);
    // An error means that a subscriber exists already, as in a test that starts two servers.
    let installed = match format {
        LogFormat::Text => {
            let lines = lines.with_ansi(io::stderr().is_terminal()).with_target(false).compact();
            registry.with(lines.fmt_fields(Bounded)).try_init()
        }
        LogFormat::Json => registry.with(lines.fmt_fields(Json).event_format(Json)).try_init(),
    };
    if installed.is_ok() {
        panic::set_hook(Box::new(log_panic));
    }
    Ok(())
}

/// Logs a panic. The default hook writes to standard error directly and may block.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    error!(thread = thread.name().unwrap_or("unnamed"), "{panic}");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured
        && let Some(queue) = QUEUE.get()
    {
        queue.push(backtrace.to_string().as_bytes());
    }
}

/// Writes `line` to standard error after all queued lines, and waits for them up to the time limit
/// at exit.
pub(crate) fn last(line: Option<&dyn Display>) {
    match (QUEUE.get(), line) {
        (Some(queue), line) => {
            if let Some(line) = line {
                queue.push(format!("{line}\n").as_bytes());
            }
            queue.flush(MAX_FLUSH_TIME);
        }
        (None, Some(line)) => {
            // Standard error is the last resort: a failure cannot be reported.
            let _ = writeln!(io::stderr(), "{line}");
        }
        (None, None) => {}
    }
}
