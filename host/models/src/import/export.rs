//! The files of an export. It is not trusted: files are bounded, and a link may lead only to a
//! place inside of it, or to the blobs of the Hugging Face cache that it belongs to.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use infer_engine::files;
use infer_engine::text::{QUOTE_BYTES, excerpt_of};
use serde_json::Value;

use crate::limits::MAX_SETTINGS_BYTES;

/// A folder in the form of the Hugging Face hub.
#[derive(Debug)]
pub(super) struct Export {
    /// Path as the operator wrote it.
    pub(super) path: PathBuf,
    /// Folders in which its files are, without links.
    roots: Vec<PathBuf>,
}

impl Export {
    /// Opens the folder at `path`.
    ///
    /// # Errors
    ///
    /// If it is not a folder.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let root = path.canonicalize().with_context(|| format!("cannot open `{shown}`"))?;
        if !root.is_dir() {
            bail!(
                "`{shown}` is not a folder, expected one with config.json, tokenizer.json and an ONNX file, \
                 or `hub:OWNER/NAME`"
            );
        }
        let mut roots = vec![root.clone()];
        // A snapshot in the cache of the hub's clients consists of links to `../../blobs`.
        if let Some(folder) = root.parent().filter(|parent| parent.ends_with("snapshots")) {
            roots.extend(folder.parent().map(|model| model.join("blobs")));
        }
        Ok(Export { path: path.to_owned(), roots })
    }

    /// Path of the file `name` without links; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// If it is a link to another place, or cannot be read.
    pub(super) fn find(&self, name: &str) -> anyhow::Result<Option<PathBuf>> {
        let path = self.path.join(name);
        let found = match path.canonicalize() {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open `{}`", path.display())),
        };
        if !self.roots.iter().any(|root| found.starts_with(root)) {
            bail!(
                "`{}` is a link to a file outside of the folder, expected the file itself; copy the folder \
                 with `cp -rL`",
                path.display()
            );
        }
        Ok(Some(found))
    }

    /// Reads the file `name` of at most `max` bytes; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// As [`Export::find`], and if it is longer.
    pub(super) fn bytes(&self, name: &str, max: u64) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(path) = self.find(name)? else { return Ok(None) };
        let shown = || format!("cannot read `{}`", self.path.join(name).display());
        let file = files::open(&path).with_context(shown)?;
        let size = file.metadata().with_context(shown)?.len();
        if size > max {
            bail!("`{}` is {size} bytes, expected at most {max}", self.path.join(name).display());
        }
        Ok(Some(files::read_opened(file, max).with_context(shown)?))
    }

    /// Reads the JSON file `name`; null if it does not exist.
    ///
    /// # Errors
    ///
    /// As [`Export::bytes`], and if it is not JSON.
    pub(super) fn json(&self, name: &str) -> anyhow::Result<Value> {
        let Some(bytes) = self.bytes(name, MAX_SETTINGS_BYTES)? else { return Ok(Value::Null) };
        serde_json::from_slice(&bytes).map_err(|error| {
            let (path, error) = (self.path.join(name), excerpt_of(error, QUOTE_BYTES));
            anyhow::anyhow!(
                "`{}`: {error}; expected JSON, which has no `NaN` and no `Infinity`; export the model again",
                path.display()
            )
        })
    }

    /// Names of the files in the subfolder `folder` (empty for the folder itself) that end in
    /// `extension`, sorted.
    pub(super) fn names(&self, folder: &str, extension: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path.join(folder)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<_> = names.filter(|name| name.ends_with(extension)).collect();
        names.sort();
        names
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_out_of_the_folder_are_rejected() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("model");
        fs::create_dir(&folder).unwrap();
        fs::write(scratch.path().join("secret"), "{}").unwrap();
        symlink("../secret", folder.join("config.json")).unwrap();
        symlink("nowhere", folder.join("dangling.json")).unwrap();
        let export = Export::open(&folder).unwrap();
        let error = export.json("config.json").unwrap_err().to_string();
        assert!(error.contains("is a link to a file outside of the folder"), "{error}");
        assert!(export.json("dangling.json").is_err());
        assert_eq!(export.json("missing.json").unwrap(), Value::Null);
        assert!(Export::open(&scratch.path().join("secret")).is_err());
    }

    #[test]
    fn snapshots_of_the_hub_cache_are_read() {
        let scratch = tempfile::tempdir().unwrap();
        let snapshot = scratch.path().join("models--a--b/snapshots/c0ffee");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir(scratch.path().join("models--a--b/blobs")).unwrap();
        fs::write(scratch.path().join("models--a--b/blobs/1"), "{\"a\": 1}").unwrap();
        symlink("../../blobs/1", snapshot.join("config.json")).unwrap();
        assert_eq!(Export::open(&snapshot).unwrap().json("config.json").unwrap()["a"], 1);
    }

    #[test]
    fn malformed_json_is_reported_with_its_place() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("config.json"), "{\"a\": NaN}").unwrap();
        let error = Export::open(scratch.path()).unwrap().json("config.json").unwrap_err().to_string();
        assert!(error.contains("at line 1 column") && error.contains("no `NaN`"), "{error}");
        fs::write(scratch.path().join("config.json"), "[".repeat(100_000)).unwrap();
        assert!(Export::open(scratch.path()).unwrap().json("config.json").is_err());
    }
}
