//! Options of an HTTP component.

use super::outbound::OutboundHost;

/// What an HTTP component is given beside what every guest is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpOptions {
    /// Whom it may call; nobody where the list is empty.
    pub outbound: Vec<OutboundHost>,
    /// What its clocks tell.
    pub clock: ClockKind,
    /// What its random numbers start from; the system's where there is none.
    pub random_seed: Option<u64>,
}

/// What the clocks of a guest tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockKind {
    /// The time.
    #[default]
    System,
    /// The time at which the instance was made, however long it runs: nothing can be measured with
    /// it.
    Frozen,
}
