//! Presets: cards of models whose size and hash are pinned when they are first pulled, because only
//! the hub states them.

use anyhow::{Context as _, bail};
use infer_engine::Card;

use crate::pull::Repository;
use crate::store::Store;
use crate::{builtin, disk, weights};

/// Revision that a first pull requests.
const MAIN: &str = "main";

/// The card of a model, without size, hash and commit of its file.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    name: &'static str,
    text: &'static str,
}

/// The commit, size and hash of a file, as the hub states them.
#[derive(Clone, Debug)]
struct Pin {
    commit: String,
    bytes: u64,
    sha256: String,
}

impl Preset {
    /// The preset `name`, if there is one.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let (name, text) = builtin::PRESETS.into_iter().find(|(known, _)| *known == name)?;
        Some(Preset { name, text })
    }

    /// The card of a model that was not pulled, with a size of 0 bytes.
    ///
    /// # Errors
    ///
    /// If the card is invalid.
    pub fn card(self) -> anyhow::Result<Card> {
        let unknown = Pin { commit: MAIN.to_owned(), bytes: 0, sha256: "0".repeat(64) };
        Card::parse(&self.pinned(&unknown)).map_err(anyhow::Error::msg)
    }

    /// Pins what the hub states about the file in the card in the cache folder, which it returns;
    /// `None` if there is one already.
    ///
    /// # Errors
    ///
    /// If the hub cannot be reached or states no hash, or the card cannot be written.
    pub fn pin(self) -> anyhow::Result<Option<Card>> {
        if weights::is_stored(self.name) {
            return Ok(None);
        }
        let hub = self.card()?.download.hub.context("a preset has a `download.hub`")?;
        let mut repository = Repository::new(&hub.repository, &hub.revision);
        let subject = || format!("cannot request `{}` of `{}`", hub.file, hub.repository);
        let Some((bytes, sha256)) = repository.describe(&hub.file).with_context(subject)? else {
            bail!(
                "`{}` has no file `{}`; report it, and configure the file of another repository by its path",
                hub.repository,
                hub.file
            );
        };
        let pin = Pin { commit: repository.revision().to_owned(), bytes, sha256 };
        let text = self.pinned(&pin);
        let card = Card::parse(&text).map_err(anyhow::Error::msg).with_context(subject)?;
        let place = Store::open()?.model(self.name)?.join(weights::CARD);
        disk::replace(&place, &text).with_context(|| format!("cannot write `{}`", place.display()))?;
        Ok(Some(card))
    }

    /// The text of the card with `pin`.
    fn pinned(self, Pin { commit, bytes, sha256 }: &Pin) -> String {
        let file = format!("role = \"model\"\nbytes = {bytes}\nsha256 = \"{sha256}\"\n");
        let hub = format!("[download.hub]\nrevision = \"{commit}\"\n");
        self.text.replacen("role = \"model\"\n", &file, 1).replacen("[download.hub]\n", &hub, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_complete_once_pinned() {
        for (name, _) in builtin::PRESETS {
            let preset = Preset::find(name).unwrap();
            let card = preset.card().unwrap();
            assert!(card.name == name && !card.questions.is_empty() && !card.categories.is_empty(), "{name}");
            let pin = Pin { commit: "c0ffee".to_owned(), bytes: 5, sha256: "ab".repeat(32) };
            let card = Card::parse(&preset.pinned(&pin)).unwrap();
            let hub = card.download.hub.clone().unwrap();
            assert_eq!(
                (hub.revision, hub.file, card.files.len()),
                (pin.commit, card.files[0].path.clone(), 1)
            );
            assert_eq!((card.files[0].bytes, &card.files[0].sha256), (pin.bytes, &pin.sha256));
            // The card says who made the file.
            assert!(card.source.starts_with("GGUF made by "), "{name}: {}", card.source);
        }
    }
}
