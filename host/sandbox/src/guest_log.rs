//! A guest's lines in the log: cut, limited in number, each on one line.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use infer_engine::text::excerpt;
use tracing::{debug, error, info, warn};

use crate::bindings::infer::guest::log::Level;
use crate::guest_limits::Limits;

/// Log of one instance.
#[derive(Debug)]
pub(crate) struct GuestLog {
    component: Arc<str>,
    request_id: Arc<str>,
    /// Number of lines that the instance may still write.
    left: AtomicUsize,
}

impl GuestLog {
    pub(crate) fn new(component: Arc<str>, request_id: Arc<str>, lines: usize) -> Self {
        GuestLog { component, request_id, left: AtomicUsize::new(lines) }
    }

    /// Writes one line, unless the instance has reached its limit.
    pub(crate) fn write(&self, level: Level, message: &str) {
        let fewer = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_err() {
            return;
        }
        let (component, request_id) = (&*self.component, &*self.request_id);
        // Control characters are escaped: a guest cannot forge lines or control a terminal.
        let line = excerpt(message, Limits::LOG_LINE_BYTES);
        match level {
            Level::Debug => debug!(target: "guest", component, request_id, "{line}"),
            Level::Info => info!(target: "guest", component, request_id, "{line}"),
            Level::Warn => warn!(target: "guest", component, request_id, "{line}"),
            Level::Error => error!(target: "guest", component, request_id, "{line}"),
        }
    }
}
