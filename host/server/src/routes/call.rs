//! Parts of a request that the layers in front of a handler add.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;

use crate::admission::Admission;

/// Request id and deadline, which the handler passes to the sandbox.
pub(super) type Call = Extension<infer_sandbox::Request>;

/// The admission permit of a request.
pub(super) type Permit = Extension<Arc<Admission>>;

/// Rounds to whole microseconds.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
