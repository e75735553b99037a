//! Lines of a configuration, and mistakes with their lines.

use std::fmt;
use std::path::{Path, PathBuf};

/// Source of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The built-in configuration.
    Builtin,
    /// A file at this path.
    File(PathBuf),
}

/// A line of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub(crate) origin: Origin,
    pub(crate) line: usize,
}

/// Failure to read or check a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration `{}`", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The configuration has mistakes.
    #[error("{}", join(.0))]
    Mistakes(Vec<Mistake>),
}

/// A mistake and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Its line.
    pub at: Place,
    /// The problem, the expected value, and the remedy.
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
    /// Refers to `origin` as a whole, without a line.
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
