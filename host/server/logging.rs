//! Where log lines go: standard error, as text for people or as JSON for programs.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::cli::LogFormat;

/// Install the subscriber of this process; later calls change nothing.
///
/// # Errors
///
/// When `filter` is not a list of levels and `target=level` pairs.
pub fn init(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let targets: Targets = filter.parse().with_context(|| {
        format!("cannot read the log filter `{filter}`; expected levels such as `info` or `warn,guest=debug`")
    })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(targets);
    // An error means that a subscriber is installed already, as in a test that starts two servers.
    let _ = match format {
        LogFormat::Text => {
            registry.with(lines.with_ansi(io::stderr().is_terminal()).with_target(false).compact()).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_current_span(true)).try_init(),
    };
    Ok(())
}
