//! Loads the models and components of a configuration, replaces them while requests run, compares
//! them with their next versions, and plans them against the memory limit.
//! # Layout
//!
//! - `registry`: the loaded models and components of one configuration; `loader`: loads them
//! - `live`: replaces them when the configuration changes
//! - `watch`: reloads when files change, and unloads idle models
//! - `component`: reads component files
//! - `versions`: compares a model with its next version
//! - `plan`: predicts the memory that a configuration needs
//! - `metrics`: the counters behind `/metrics`
//! - `limits`: the fixed limits of components and self-tests
//! - `reclaim`: returns freed memory to the system

pub mod component;
mod limits;
pub mod live;
pub mod loader;
pub mod metrics;
pub mod plan;
pub mod reclaim;
pub mod registry;
pub mod versions;
pub mod watch;
