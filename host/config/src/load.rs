//! Reading and parsing infer.toml.

use std::path::Path;

use infer_engine::files;

use crate::check::Checker;
use crate::config::Config;
use crate::lock::Lock;
use crate::place::{ConfigError, Mistake, Origin, Place, base, line};
use crate::watched::Files;

/// The configuration that is used when there is no infer.toml.
pub const CONFIG: &str = include_str!("default.toml");

/// A longer configuration is not read.
pub const MAX_BYTES: u64 = 64 << 20;

impl Config {
    /// The file at `path` and the lock beside it; without one `./infer.toml` where it exists, else
    /// the configuration that the program carries.
    ///
    /// # Errors
    ///
    /// As [`Config::read`], or when the lock is none.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let mut config = Config::read(path)?;
        let lock = Lock::beside(&config.origin);
        config.lock = lock.map_err(|mistake| ConfigError::Mistakes(vec![mistake]))?;
        Ok(config)
    }

    /// As [`Config::load`], whatever the lock says.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or for all the mistakes in it at once.
    pub fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        let default = Path::new("infer.toml");
        let path = match path {
            Some(path) => path,
            // Also a file that cannot be read: it was meant.
            None if default.symlink_metadata().is_ok() => default,
            None => return Config::parse(CONFIG, &Origin::Builtin),
        };
        let text = files::read_to_string(path, MAX_BYTES)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config = Config::parse(&text, &Origin::File(path.to_owned()))?;
        if config.server.watch {
            config.files = Files::read(path, &text);
        }
        Ok(config)
    }

    /// Parse and check `text`.
    ///
    /// # Errors
    ///
    /// For a mistake of syntax, or for all the other mistakes at once.
    pub fn parse(text: &str, origin: &Origin) -> Result<Self, ConfigError> {
        let place = |offset: usize| Place { origin: origin.clone(), line: line(text, offset) };
        let file: crate::file::File = toml::from_str(text).map_err(|error| {
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
