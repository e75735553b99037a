//! The source of a model or component.

use std::fmt;
use std::path::PathBuf;

/// Prefix of a model on the hub.
pub const HUB: &str = "hub:";

/// A built-in name, a path, or a model on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `builtin:NAME`: a guest or model that the program knows by name.
    Builtin(String),
    /// A path, made absolute against the configuration's folder.
    Path(PathBuf),
    /// `hub:OWNER/NAME@REVISION`: a model that `infer pull` imports into the cache folder.
    Hub(HubModel),
}

/// A repository on the Hugging Face hub, `OWNER/NAME[@REVISION]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubModel {
    /// Owner of the repository.
    pub owner: String,
    /// Name of the repository.
    pub name: String,
    /// Branch, tag or commit; the newest commit of `main` if it is absent.
    pub revision: Option<String>,
}

impl HubModel {
    /// Parses `OWNER/NAME` or `OWNER/NAME@REVISION`.
    ///
    /// # Errors
    ///
    /// A message with the expected form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (text, None),
        };
        let parts = repository.split_once('/').filter(|(owner, name)| {
            [Some(*owner), Some(*name), revision].into_iter().flatten().all(is_plain)
        });
        let (owner, name) = parts.ok_or_else(|| {
            "expected `hub:OWNER/NAME@REVISION`, each of letters, digits and `-_.`".to_owned()
        })?;
        Ok(HubModel { owner: owner.to_owned(), name: name.to_owned(), revision: revision.map(str::to_owned) })
    }

    /// `OWNER/NAME`
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// Name of its folder in the store.
    pub fn folder(&self) -> String {
        let revision = self.revision.as_deref().unwrap_or("main");
        format!("{}--{}@{revision}", self.owner, self.name)
    }
}

/// True for letters, digits and `-_.` that are neither an option nor a path.
fn is_plain(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=96).contains(&text.len()) && !text.starts_with(['-', '.']) && text.bytes().all(known)
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HUB}{}/{}", self.owner, self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Builtin(name) => write!(f, "builtin:{name}"),
            Source::Path(path) => write!(f, "{}", path.display()),
            Source::Hub(model) => model.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_models_have_owner_and_name() {
        let model = HubModel::parse("a/b-c.d@0f").unwrap();
        assert_eq!((model.to_string().as_str(), model.folder().as_str()), ("hub:a/b-c.d@0f", "a--b-c.d@0f"));
        assert_eq!(HubModel::parse("a/b").unwrap().revision, None);
        for text in
            ["", "a", "a/", "/b", "a/b/c", "a/b@", "a/..", "a/-b", "a/b@x/y", "a/b@x?y", "a /b", "a/b@x@y"]
        {
            assert!(HubModel::parse(text).is_err(), "{text}");
        }
    }
}
