//! `infer`: an edge AI inference server. Models run in the host; the policy that uses them runs in
//! WebAssembly sandboxes.
//!
//! A request walks from a route, through a fresh guest instance, to a model's queue and back;
//! docs/ARCHITECTURE.md follows it room by room.
//!
//! # Layout
//!
//! - `cli`: what can be typed; `commands`: one module a subcommand
//! - `config`: infer.toml, checked, with the line of each mistake
//! - `builtin`: the weights, guests and configuration that the program carries
//! - `lock`: infer.lock, which pins models and components by their hashes
//! - `weights`: from a configured source to its weights; `pull`: bringing a model's file to this
//!   machine; `store`: models' files by their content; `dummy`: writing one of random weights;
//!   `disk`: whether there is room
//! - `plan`: what a configuration needs of memory, and whether that keeps the contract
//! - `app`: a configuration brought to life: runtime, models, components
//! - `live`: what is served now, and its replacement by what a changed configuration says
//! - `routes`: the route table, one module an endpoint; `error`: every failure as a response
//! - `serve`: the listeners' life, from bind to drained; `logging`: where log lines go; `metrics`:
//!   what is counted
//! - `reclaim`: memory back to the system
//! - `data_url`, `percent`: spellings of bytes in text
//! - `admission`: how much is let in; `bodies`: the memory of requests' bodies; `keys`: who may
//!   ask; `rates`: how often

pub mod admission;
pub mod app;
pub mod bodies;
pub mod builtin;
pub mod cli;
pub mod commands;
pub mod config;
mod data_url;
pub mod disk;
pub mod dummy;
pub mod error;
pub mod keys;
pub mod live;
pub mod lock;
pub mod logging;
pub mod metrics;
mod percent;
pub mod plan;
pub mod pull;
pub mod rates;
pub mod reclaim;
pub mod routes;
pub mod serve;
pub mod store;
pub mod versions;
pub mod weights;
