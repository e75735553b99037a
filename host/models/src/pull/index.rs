//! The package index that the pip client uses.

use std::ffi::OsString;

/// The package index, as given on the command line.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// URL of a package index.
    pub url: Option<String>,
    /// Folder or page of wheels. Without `url` it is the only source.
    pub find_links: Option<String>,
}

impl Index {
    /// Options of pip that select it.
    pub(super) fn options(&self) -> anyhow::Result<Vec<OsString>> {
        let mut options: Vec<OsString> = Vec::new();
        if let Some(url) = &self.url {
            options.extend(["--index-url".into(), url.into()]);
        } else if self.find_links.is_some() {
            options.push("--no-index".into());
        }
        if let Some(place) = &self.find_links {
            // Made absolute, because the client runs in another folder.
            let is_url = place.contains("://");
            let place = if is_url { place.into() } else { std::path::absolute(place)?.into() };
            options.extend(["--find-links".into(), place]);
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_defaults_to_the_public_one() {
        let options = |url: Option<&str>, links: Option<&str>| {
            let index = Index { url: url.map(str::to_owned), find_links: links.map(str::to_owned) };
            index.options().unwrap().join(&OsString::from(" ")).into_string().unwrap()
        };
        assert_eq!(options(None, None), "");
        assert_eq!(options(Some("https://i/simple"), None), "--index-url https://i/simple");
        assert_eq!(options(None, Some("/wheels")), "--no-index --find-links /wheels");
        assert_eq!(
            options(Some("https://i"), Some("https://l/")),
            "--index-url https://i --find-links https://l/"
        );
    }
}
