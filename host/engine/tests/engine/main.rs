//! The engine with real files, on both backends.

#![expect(clippy::unwrap_used, reason = "clippy.toml permits it in tests but not in their helpers")]

mod batching;
mod deadlines;
mod dtypes;
mod external;
mod loading;
mod proto;
mod shipped;
#[path = "../../../../tests/harness/skip.rs"]
mod skip;
mod support;
