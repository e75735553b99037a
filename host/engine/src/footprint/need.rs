//! The memory of a model, by what takes it.

/// What a model takes, by what takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Its parts.
    pub needs: Vec<Need>,
}

/// A part of what a model takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// A few words for a table.
    pub what: &'static str,
    /// How much, when the model has been busy.
    pub bytes: u64,
    /// The most that it may take.
    pub most_bytes: u64,
    /// Whether it lies in a mapped file, whose pages processes share and the system takes back when
    /// it must.
    pub is_mapped: bool,
}

impl Footprint {
    /// All of it, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.needs.iter().map(|need| need.bytes).fold(0, u64::saturating_add)
    }
}

impl Need {
    pub(crate) fn own(what: &'static str, bytes: u64) -> Self {
        Need { what, bytes, most_bytes: bytes, is_mapped: false }
    }

    pub(crate) fn mapped(what: &'static str, bytes: u64) -> Self {
        Need { what, bytes, most_bytes: bytes, is_mapped: true }
    }
}
