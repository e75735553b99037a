//! Reads and parses infer.toml.

use std::path::Path;

use infer_engine::files;

use crate::check::Checker;
use crate::config::Config;
use crate::file::File;
use crate::limits::MAX_CONFIG_BYTES;
use crate::lock::Lock;
use crate::place::{ConfigError, Mistake, Origin, Place, base, line};
use crate::watched::Files;

/// The built-in configuration, for use without an infer.toml.
pub const CONFIG: &str = include_str!("default.toml");

impl Config {
    /// Reads the configuration at `path` and the lock beside it. Without a path, reads
    /// `./infer.toml` if it exists, else the built-in configuration.
    ///
    /// # Errors
    ///
    /// As [`Config::read`], or if the lock is invalid.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let mut config = Config::read(path)?;
        let lock = Lock::beside(&config.origin);
        config.lock = lock.map_err(|mistake| ConfigError::Mistakes(vec![mistake]))?;
        Ok(config)
    }

    /// As [`Config::load`], without reading the lock.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or has mistakes; reports all mistakes.
    pub fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        let default = Path::new("infer.toml");
        let path = match path {
            Some(path) => path,
            // An infer.toml that cannot be read is an error, not a reason for the default.
            None if default.symlink_metadata().is_ok() => default,
            None => return Config::parse(CONFIG, &Origin::Builtin),
        };
        let text = files::read_to_string(path, MAX_CONFIG_BYTES)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config = Config::parse(&text, &Origin::File(path.to_owned()))?;
        if config.server.watch {
            config.files = Files::read(path, &text);
        }
        Ok(config)
    }

    /// Parses and checks `text`.
    ///
    /// # Errors
    ///
    /// If the syntax is wrong, or for all other mistakes together.
    pub fn parse(text: &str, origin: &Origin) -> Result<Self, ConfigError> {
        let place = |offset: usize| Place { origin: origin.clone(), line: line(text, offset) };
        let file: File = toml::from_str(text).map_err(|error| {
            let at = place(error.span().map_or(0, |span| span.start));
            let mistake = Mistake { at, message: error.message().trim_end().replace('\n', " ") };
            ConfigError::Mistakes(vec![mistake])
        })?;
        let mut checker = Checker { place: &place, base: base(origin), mistakes: Vec::new() };
        let config = checker.check(file, origin.clone());
        if checker.mistakes.is_empty() { Ok(config) } else { Err(ConfigError::Mistakes(checker.mistakes)) }
    }
}

#[cfg(test)]
mod tests;
