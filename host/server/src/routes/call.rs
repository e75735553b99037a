//! Parts of a request that the layers in front of a handler add.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use infer_control::registry::LoadedComponent;

use crate::admission::Admission;

/// What a component's handler is given.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) policy: Arc<LoadedComponent>,
}

/// A request's id and deadline, which its handler hands on to the sandbox.
pub(super) type Call = Extension<infer_sandbox::Request>;

/// A request's place among those that run and wait.
pub(super) type Place = Extension<Arc<Admission>>;

pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
