//! Options of an HTTP component.

use super::outbound::OutboundHost;

/// Options of an HTTP component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpOptions {
    /// Hosts that it may call; none if the list is empty.
    pub outbound: Vec<OutboundHost>,
    /// Source of its clocks.
    pub clock: ClockKind,
    /// Seed of its random numbers; `None` for the system's randomness.
    pub random_seed: Option<u64>,
}

/// Source of a guest's clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockKind {
    /// The system's time.
    #[default]
    System,
    /// The time at which the instance was created, for as long as it runs. Guests cannot measure
    /// durations with it.
    Frozen,
}
