//! Fixed limits of labelled data.

use std::time::Duration;

/// Maximum length of a line of labelled data or of a dataset, in bytes. Protects memory from a
/// wrong file.
pub(crate) const MAX_LINE_BYTES: u64 = 1 << 20;

/// Maximum number of lines of labelled data. Bounds memory.
pub(crate) const MAX_DATA_LINES: usize = 1_000_000;

/// Maximum size of labelled data, in bytes. Bounds memory.
pub(crate) const MAX_DATA_BYTES: u64 = 1 << 30;

/// Maximum number of values of all embeddings together, 4 bytes each. Bounds memory.
pub(crate) const MAX_EMBEDDED_VALUES: usize = 1 << 28;

/// Minimum number of examples to train on: with fewer, cross-validation says nothing.
pub(crate) const MIN_EXAMPLES: usize = 16;

/// Minimum number of examples of each kind, in groups of their own: one to train on and one to
/// test.
pub(crate) const MIN_EXAMPLES_OF_KIND: usize = 2;

/// Minimum number of examples of each kind for calibration.
pub(crate) const MIN_CALIBRATION_EXAMPLES: usize = 5;

/// Minimum number of examples for a calibration error: with fewer, its ten bins are mostly noise.
pub(crate) const MIN_BINNED_EXAMPLES: usize = 100;

/// Maximum number of distinct label names that a report lists.
pub(crate) const MAX_LISTED_LABELS: usize = 8;

/// Maximum length of a text in a report, in bytes: about one line of a terminal.
pub(crate) const MAX_SHOWN_BYTES: usize = 96;

/// Maximum time to embed one text. A model that hangs ends the command.
pub(crate) const MAX_EMBEDDING_TIME: Duration = Duration::from_secs(120);

/// Maximum number of steps of a fit. Bounds the time on data that a regression separates with
/// difficulty.
pub(crate) const MAX_FIT_STEPS: usize = 1_000;

/// Maximum number of halvings of a step of a fit. Ends a search that rounding defeats.
pub(crate) const MAX_STEP_HALVINGS: usize = 40;

/// Maximum number of Newton's steps of a calibration. Bounds its time.
pub(crate) const MAX_NEWTON_STEPS: usize = 100;

/// Maximum number of terms of the continued fraction of a binomial tail. Bounds its time.
pub(crate) const MAX_FRACTION_TERMS: usize = 10_000;

/// Maximum number of lower ends of a cascade's band that are tried. Bounds the time of a fit.
pub(crate) const MAX_BANDS: usize = 40;
