//! Lines in the host's log, marked there with the component's name and the request's id.

use crate::bindings::infer::guest::log::{Level, log};

/// For whoever debugs the guest.
pub fn debug(message: &str) {
    log(Level::Debug, message);
}

/// For the operator, in the normal course of things.
pub fn info(message: &str) {
    log(Level::Info, message);
}

/// For the operator: the answer is worth less than it should be.
pub fn warn(message: &str) {
    log(Level::Warn, message);
}

/// For the operator: there is no answer.
pub fn error(message: &str) {
    log(Level::Error, message);
}
