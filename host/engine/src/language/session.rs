//! Sessions: the conversation of one caller.

use std::sync::Arc;

use super::prefix::CacheOwner;

/// The conversation of one caller, as tokens. Keys and values are not part of it: they are found in
/// the prefix cache, or computed again.
#[derive(Clone, Debug)]
pub struct Session {
    pub(super) owner: CacheOwner,
    pub(super) tokens: Vec<u32>,
}

impl Session {
    /// A session of `component`. The session reuses its own prefixes. Other sessions of the
    /// component reuse those that a request declares as shared; other components none.
    pub fn new(component: &Arc<str>) -> Self {
        Session { owner: CacheOwner::new(component), tokens: Vec::new() }
    }
}

impl Default for Session {
    /// A session of the host itself.
    fn default() -> Self {
        Session::new(&Arc::from(""))
    }
}
