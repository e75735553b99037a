//! The engine with real files, on both backends.

#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests, and helpers beside them are that as well"
)]

mod batching;
mod dtypes;
mod external;
mod loading;
mod proto;
mod shipped;
mod support;
