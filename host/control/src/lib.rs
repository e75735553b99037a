//! The models and components that are served: loaded from a configuration, replaced while requests
//! run, compared with their next versions, and planned against the memory limit.
//!
//! # Layout
//!
//! - `app`: what is loaded from one configuration
//! - `live`: replacing it when the configuration changes
//! - `versions`: a model's current and next version, compared
//! - `plan`: the memory that a configuration needs
//! - `metrics`: the counters behind `/metrics`
//! - `reclaim`: returning freed memory to the system

pub mod app;
pub mod live;
pub mod metrics;
pub mod plan;
pub mod reclaim;
pub mod versions;
