//! Facts that an import has read or assumed, and those that it could not determine.

use std::fmt;

/// Basis of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// A file of the export has it.
    Read,
    /// No file has it; it is usual for such a model.
    Assumed,
    /// It could not be determined.
    Unknown,
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Basis::Read => "read",
            Basis::Assumed => "assumed",
            Basis::Unknown => "unknown",
        })
    }
}

/// One value of the card, and its basis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Basis of the value.
    pub basis: Basis,
    /// Key of the card.
    pub subject: &'static str,
    /// The value, with its reason or the remedy.
    pub value: String,
}

/// Notes in the order of their values.
#[derive(Debug, Default)]
pub(super) struct Notes(pub(super) Vec<Note>);

impl Notes {
    pub(super) fn read(&mut self, subject: &'static str, value: impl Into<String>) {
        self.0.push(Note { basis: Basis::Read, subject, value: value.into() });
    }

    pub(super) fn assumed(&mut self, subject: &'static str, value: impl Into<String>) {
        self.0.push(Note { basis: Basis::Assumed, subject, value: value.into() });
    }

    pub(super) fn unknown(&mut self, subject: &'static str, value: impl Into<String>) {
        self.0.push(Note { basis: Basis::Unknown, subject, value: value.into() });
    }
}
