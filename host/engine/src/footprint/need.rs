//! Memory of a model by purpose.

/// Memory of a model by purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// The parts.
    pub needs: Vec<Need>,
}

/// Memory of a model for one purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Purpose in a few words, for a table.
    pub label: &'static str,
    /// Typical bytes after the model has been busy.
    pub bytes: u64,
    /// Maximum bytes.
    pub max_bytes: u64,
    /// True for pages of a mapped file, which processes share and the system can reclaim.
    pub is_mapped: bool,
}

impl Footprint {
    /// Sum of all parts in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.needs.iter().map(|need| need.bytes).fold(0, u64::saturating_add)
    }
}

impl Need {
    pub(crate) fn own(label: &'static str, bytes: u64) -> Self {
        Need { label, bytes, max_bytes: bytes, is_mapped: false }
    }

    pub(crate) fn mapped(label: &'static str, bytes: u64) -> Self {
        Need { label, bytes, max_bytes: bytes, is_mapped: true }
    }
}
