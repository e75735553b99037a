//! The source of a model or component.

use std::fmt;
use std::path::PathBuf;

/// A built-in name or a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `builtin:NAME`: a guest or model that the program knows by name.
    Builtin(String),
    /// A path, made absolute against the configuration's folder.
    Path(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Builtin(name) => write!(f, "builtin:{name}"),
            Source::Path(path) => write!(f, "{}", path.display()),
        }
    }
}
