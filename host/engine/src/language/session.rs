//! What one caller has said to a model so far.

use std::sync::Arc;

use super::prefix::CacheOwner;

/// What one caller has said so far. Its keys and values are not held: they are found among the
/// prefixes, or computed again.
#[derive(Clone, Debug)]
pub struct Session {
    pub(super) owner: CacheOwner,
    pub(super) tokens: Vec<u32>,
}

impl Session {
    /// A session of `component`. What it computes is found by itself; by others of the component
    /// where a request says that it is a prefix; by other components never.
    pub fn new(component: &Arc<str>) -> Self {
        Session { owner: CacheOwner::new(component), tokens: Vec::new() }
    }
}

impl Default for Session {
    /// A session of the host's own.
    fn default() -> Self {
        Session::new(&Arc::from(""))
    }
}
