//! infer.lock: the hash of every model and component of a configuration, so that two machines with
//! the same lock give the same responses.
//!
//! It is beside the configuration, with `.lock` in place of the extension. If it exists, only
//! models and components that it pins are served.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use infer_engine::files;
use infer_models::disk;
use serde::{Deserialize, Serialize};

use crate::limits::MAX_LOCK_BYTES;
use crate::{Mistake, Origin, Place};

/// Version of the file format.
const VERSION: u32 = 1;

const HEAD: &str = "# Pinned by `infer lock`: the SHA-256 of every model (its card and its files) and component.\n\
                    # Commit it beside the configuration; run `infer lock` again after an intended change.\n\n";

/// A lock file and its pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    path: PathBuf,
    pins: Pins,
    /// False if components need no pin.
    pins_components: bool,
}

/// Pinned hashes by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    version: u32,
    /// Pins of models.
    #[serde(default)]
    pub models: BTreeMap<String, Pin>,
    /// Pins of models' next versions, by the models' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub next: BTreeMap<String, Pin>,
    /// Pins of components.
    #[serde(default)]
    pub components: BTreeMap<String, Pin>,
}

/// A pinned hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The configured source when it was pinned; informative only.
    pub source: String,
    /// SHA-256 in 64 hexadecimal digits.
    pub sha256: String,
}

impl Default for Pins {
    fn default() -> Self {
        Pins { version: VERSION, models: BTreeMap::new(), next: BTreeMap::new(), components: BTreeMap::new() }
    }
}

impl Lock {
    /// Reads the lock beside the configuration `origin`, if there is one.
    ///
    /// # Errors
    ///
    /// If it cannot be read or is invalid.
    pub fn beside(origin: &Origin) -> Result<Option<Self>, Mistake> {
        let Some(path) = path(origin) else { return Ok(None) };
        let read = files::read_to_string(&path, MAX_LOCK_BYTES);
        let mistake = |message: String| Mistake {
            at: Place::of(Origin::File(path.clone())),
            message: format!("{message}; run `infer lock` to write it again"),
        };
        let text = match read {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(mistake(format!("cannot be read: {error}"))),
        };
        let pins: Pins =
            toml::from_str(&text).map_err(|error| mistake(error.message().trim_end().replace('\n', " ")))?;
        if pins.version != VERSION {
            return Err(mistake(format!("`version` is {}, expected {VERSION}", pins.version)));
        }
        Ok(Some(Lock { path, pins, pins_components: true }))
    }

    /// Path of the lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that model `name` has its pinned hash.
    ///
    /// # Errors
    ///
    /// If the hash differs, or none is pinned.
    pub fn check_model(&self, name: &str, sha256: &str) -> anyhow::Result<()> {
        self.check("model", name, self.pins.models.get(name), sha256)
    }

    /// Returns the lock for a configuration in which the next version of model `name` replaces it.
    #[must_use]
    pub fn of_next(mut self, name: &str) -> Self {
        match self.pins.next.remove(name) {
            Some(pin) => self.pins.models.insert(name.to_owned(), pin),
            None => self.pins.models.remove(name),
        };
        self
    }

    /// Returns the lock for a configuration of the same models with other components, such as that
    /// of a benchmark.
    #[must_use]
    pub fn of_models(mut self) -> Self {
        self.pins_components = false;
        self
    }

    /// Checks that component `name` has its pinned hash.
    ///
    /// # Errors
    ///
    /// As [`Lock::check_model`].
    pub fn check_component(&self, name: &str, sha256: &str) -> anyhow::Result<()> {
        if !self.pins_components {
            return Ok(());
        }
        self.check("component", name, self.pins.components.get(name), sha256)
    }

    fn check(&self, kind: &str, name: &str, pin: Option<&Pin>, found: &str) -> anyhow::Result<()> {
        let path = self.path.display();
        match pin {
            Some(pin) if pin.sha256 == found => Ok(()),
            Some(pin) => bail!(
                "{kind} `{name}` has sha256 {found}, `{path}` pins {}; restore the pinned version (`{}`), or run `infer \
                 lock` to pin the current one",
                pin.sha256,
                pin.source
            ),
            None => bail!("{kind} `{name}` is not pinned in `{path}`; run `infer lock` to pin it"),
        }
    }
}

/// Writes `pins` beside the configuration `origin`, atomically. Returns the path of the lock.
///
/// # Errors
///
/// If the configuration is built in, or the folder cannot be written.
pub fn write(origin: &Origin, pins: &Pins) -> anyhow::Result<PathBuf> {
    let path = path(origin).context("the built-in configuration is part of the program and needs no lock; copy it to infer.toml to lock it")?;
    disk::replace(&path, &text(pins)?).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(path)
}

/// Formats `pins` as the text of a lock file.
///
/// # Errors
///
/// If the pins cannot be serialised; those made from a configuration always can.
pub fn text(pins: &Pins) -> anyhow::Result<String> {
    Ok(format!("{HEAD}{}", toml::to_string(pins)?))
}

/// Path of the lock of the configuration `origin`; `None` for the built-in configuration.
pub fn path(origin: &Origin) -> Option<PathBuf> {
    match origin {
        Origin::Builtin => None,
        Origin::File(path) => Some(path.with_extension("lock")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(sha256: &str) -> Pin {
        Pin { source: "builtin:x".to_owned(), sha256: sha256.to_owned() }
    }

    #[test]
    fn written_lock_is_read_and_enforced() {
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::File(folder.path().join("box.toml"));
        assert_eq!(Lock::beside(&origin).unwrap(), None);
        let mut pins = Pins::default();
        pins.models.insert("judge".to_owned(), pin("aa"));
        pins.components.insert("a \"b\"\n".to_owned(), pin("bb"));
        assert_eq!(write(&origin, &pins).unwrap(), folder.path().join("box.lock"));
        let lock = Lock::beside(&origin).unwrap().unwrap();
        assert_eq!(lock.pins, pins);
        assert!(lock.check_model("judge", "aa").is_ok());
        assert!(lock.check_component("a \"b\"\n", "bb").is_ok());
        let message = lock.check_model("judge", "cc").unwrap_err().to_string();
        assert!(
            message.contains("model `judge` has sha256 cc") && message.contains("pins aa; restore"),
            "{message}"
        );
        let message = lock.check_component("judge", "aa").unwrap_err().to_string();
        assert!(message.contains("component `judge` is not pinned in"), "{message}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn invalid_lock_is_reported_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::File(folder.path().join("infer.toml"));
        for (text, words) in [
            ("version = 2\n", "`version` is 2, expected 1"),
            ("models = 3\n", "invalid type"),
            ("version = 1\n[keys]\n", "unknown field `keys`"),
            ("version = 1\n[models.a]\nsource = \"x\"\n", "missing field `sha256`"),
        ] {
            std::fs::write(folder.path().join("infer.lock"), text).unwrap();
            let mistake = Lock::beside(&origin).unwrap_err();
            assert!(mistake.message.contains(words), "{text}: {}", mistake.message);
            assert!(mistake.at.to_string().ends_with("infer.lock"));
        }
        assert!(write(&Origin::Builtin, &Pins::default()).is_err());
    }
}
