//! Lines of a configuration, and the mistakes on them.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The one that the program carries.
    Builtin,
    /// A file.
    File(PathBuf),
}

/// A line of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub(crate) origin: Origin,
    pub(crate) line: usize,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is read and has mistakes.
    #[error("{}", join(.0))]
    Mistakes(Vec<Mistake>),
}

/// One mistake, and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub at: Place,
    /// What is wrong, what was expected, and the way out.
    pub message: String,
}

pub(crate) fn base(origin: &Origin) -> PathBuf {
    match origin {
        Origin::Builtin => PathBuf::new(),
        Origin::File(path) => path.parent().unwrap_or(Path::new("")).to_owned(),
    }
}

pub(crate) fn line(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

fn join(mistakes: &[Mistake]) -> String {
    let lines: Vec<_> =
        mistakes.iter().map(|mistake| format!("{}: {}", mistake.at, mistake.message)).collect();
    lines.join("\nerror: ")
}

impl Place {
    /// No line of its own: what is used and does not stand in the configuration.
    pub fn of(origin: Origin) -> Place {
        Place { origin, line: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => self.origin.fmt(f),
            line => write!(f, "{}:{line}", self.origin),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Builtin => f.write_str("built-in configuration"),
            Origin::File(path) => write!(f, "{}", path.display()),
        }
    }
}
