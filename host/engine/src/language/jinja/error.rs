//! Errors of templates, and the line that each is at.

/// What went wrong, and at which line.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) line: u32,
    pub(crate) cause: Cause,
}

/// Why a template does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It cannot be read, or asks for what there is not; in a sentence.
    Failed(String),
    /// It has called `raise_exception` with these words.
    Refused(String),
    /// It takes more steps or bytes than a rendering may; and where, if that has a name.
    Unbounded(Option<String>),
}

impl Cause {
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Cause::Failed(message.into())
    }

    /// The same, at what has a name: "filter `indent`".
    pub(super) fn at(self, place: impl FnOnce() -> String) -> Self {
        match self {
            Cause::Unbounded(None) => Cause::Unbounded(Some(place())),
            Cause::Failed(message) => Cause::Failed(format!("{}: {message}", place())),
            other => other,
        }
    }
}

/// The line of an error that its statement fills in.
pub(super) const UNKNOWN_LINE: u32 = 0;

impl From<Cause> for Error {
    fn from(cause: Cause) -> Self {
        Error { line: UNKNOWN_LINE, cause }
    }
}

/// A name from the template as messages may show it.
pub(super) fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(40)]
}
