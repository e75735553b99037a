//! Output formats.

use clap::{Args, ValueEnum};

/// Output format of results.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
}

/// Output format of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Table for reading
    Table,
    /// JSON for programs
    Json,
}
