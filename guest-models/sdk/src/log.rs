//! Writes lines to the host's log, which adds the component's name and the request's id.

use crate::bindings::infer::guest::log::{Level, log};

/// Logs a line for developers of the guest.
pub fn debug(message: &str) {
    log(Level::Debug, message);
}

/// Logs a line about normal operation.
pub fn info(message: &str) {
    log(Level::Info, message);
}

/// Logs a line about a degraded answer.
pub fn warn(message: &str) {
    log(Level::Warn, message);
}

/// Logs a line about a failed request.
pub fn error(message: &str) {
    log(Level::Error, message);
}
