//! Readers of Rust sources, scripts, module graphs, names, limits, prose and links, for the rules
//! in tests/tidy.rs.

pub mod limit_table;
pub mod links;
pub mod modules;
pub mod names;
pub mod prose;
pub mod rust_source;
pub mod script;
