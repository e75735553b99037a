//! The models and components that are served: loaded from a configuration, replaced while requests
//! run, compared with their next versions, and planned against the memory limit.
//!
//! # Layout
//!
//! - `registry`: the models and components of one configuration; `loader`: loading them
//! - `live`: replacing it when the configuration changes
//! - `watch`: reloading when files change, and unloading idle models
//! - `component`: the bytes of components
//! - `versions`: a model's current and next version, compared
//! - `plan`: the memory that a configuration needs
//! - `metrics`: the counters behind `/metrics`
//! - `reclaim`: returning freed memory to the system

pub mod component;
pub mod live;
pub mod loader;
pub mod metrics;
pub mod plan;
pub mod reclaim;
pub mod registry;
pub mod versions;
pub mod watch;
