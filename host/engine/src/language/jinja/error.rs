//! Errors of templates, with the line of each.

/// An error, and its line in the source.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) line: u32,
    pub(crate) cause: Cause,
}

/// Reason that a template was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A syntax error, or an operation that is invalid or not permitted. The message is one
    /// sentence.
    Failed(String),
    /// The message of a call of `raise_exception`.
    Refused(String),
    /// The budget is exhausted. Holds the operation that exhausted it, if it has a name.
    Unbounded(Option<String>),
}

impl Cause {
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Cause::Failed(message.into())
    }

    /// Adds the name of an operation, such as "filter `indent`".
    pub(super) fn at(self, place: impl FnOnce() -> String) -> Self {
        match self {
            Cause::Unbounded(None) => Cause::Unbounded(Some(place())),
            Cause::Failed(message) => Cause::Failed(format!("{}: {message}", place())),
            other => other,
        }
    }
}

/// Placeholder for the line, which the enclosing statement fills in.
pub(super) const UNKNOWN_LINE: u32 = 0;

impl From<Cause> for Error {
    fn from(cause: Cause) -> Self {
        Error { line: UNKNOWN_LINE, cause }
    }
}

/// Shortens a name from the template for messages.
pub(super) fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(40)]
}
