//! Where a model or component is loaded from.

use std::fmt;
use std::path::PathBuf;

/// Where something is loaded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `builtin:NAME`, carried by the program.
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
