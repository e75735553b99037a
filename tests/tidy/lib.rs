//! Readers of Rust sources, module graphs, prose and links, for the rules in tests/tidy.rs.

pub mod links;
pub mod modules;
pub mod prose;
pub mod rust_source;
