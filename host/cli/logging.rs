//! Where log lines go: standard error, as text for people or as JSON for programs.
//!
//! Nobody waits for a line: it goes into a bounded queue, whose own thread writes it. Where
//! standard error takes less than is logged, lines are dropped and counted.
//!
//! # Layout
//!
//! - `queue`: the queue and its thread; `lines`: a line's form, and the bound of each of its fields

mod lines;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::panic;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use lines::{Bounded, Json};
use queue::Queue;
use tracing::error;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::cli::LogFormat;

/// How long the end of the program waits for lines that standard error has not taken yet.
const FLUSH: Duration = Duration::from_secs(2);

/// The queue of this process, once there is one.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Install the subscriber of this process; later calls change nothing. Panics are logged as well.
///
/// # Errors
///
/// When `filter` is not a list of levels and `target=level` pairs, or no thread can be started.
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
    // An error means that a subscriber is installed already, as in a test that starts two servers.
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

/// Log a panic. The usual hook would write to standard error itself, and wait for its reader.
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

/// Write `line` to standard error behind the lines that are logged, and wait for all of them, for
/// as long as the end of the program may wait.
pub(crate) fn last(line: Option<&dyn Display>) {
    match (QUEUE.get(), line) {
        (Some(queue), line) => {
            if let Some(line) = line {
                queue.push(format!("{line}\n").as_bytes());
            }
            queue.flush(FLUSH);
        }
        (None, Some(line)) => {
            // Nobody is left to be told that this failed.
            let _ = writeln!(io::stderr(), "{line}");
        }
        (None, None) => {}
    }
}
