//! HTTP: listeners, connections, admission, API keys and routes.
//!
//! # Layout
//!
//! - `serve`: listeners from bind to drain
//! - `service`: the routers of the live snapshot
//! - `upstream`: servers to which requests are forwarded
//! - `routes`: the route table, one module for each endpoint; `error`: errors as responses
//! - `admission`: limits on running and queued requests; `bodies`: the memory of request bodies
//! - `limits`: fixed limits; `keys`: API keys and their permissions; `rates`: token buckets
//! - `abort`: tasks that end with their owner
//! - `threads`: the asynchronous runtime

pub mod abort;
pub mod admission;
pub mod bodies;
pub mod error;
pub mod keys;
mod limits;
pub mod rates;
pub mod routes;
pub mod serve;
pub mod service;
pub mod threads;
pub mod upstream;
