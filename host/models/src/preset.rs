//! Presets: cards of models whose size and hash are pinned when they are first pulled, because only
//! the hub states them.

use anyhow::Context as _;
use infer_engine::Card;

use crate::builtin;

/// Revision that a first pull requests.
const MAIN: &str = "main";

/// The card of a model, without size, hash and commit of its file.
#[derive(Clone, Copy, Debug)]
pub struct Preset(&'static str);

/// The commit, size and hash of a file, as the hub states them.
#[derive(Clone, Debug)]
pub(crate) struct Pin {
    pub(crate) commit: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

impl Preset {
    /// The preset `name`, if there is one.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        builtin::PRESETS.into_iter().find(|(known, _)| *known == name).map(|(_, text)| Preset(text))
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

    /// The text of the card with the pin of `card`, which another version of the program may have
    /// written.
    ///
    /// # Errors
    ///
    /// If `card` is of another file.
    pub(crate) fn repinned(self, card: &Card) -> anyhow::Result<String> {
        let (own, file) = (self.card()?, card.model_file());
        let hub = card.download.hub.as_ref().filter(|_| own.model_file().path == file.path);
        let name = &own.name;
        let hub = hub.with_context(|| {
            format!("`{name}` was pulled as `{}`; run `infer rm {name}` and `infer pull {name}`", file.path)
        })?;
        let (bytes, sha256) = (file.bytes, file.sha256.clone());
        Ok(self.pinned(&Pin { commit: hub.revision.clone(), bytes, sha256 }))
    }

    /// The text of the card with `pin`.
    pub(crate) fn pinned(self, Pin { commit, bytes, sha256 }: &Pin) -> String {
        let file = format!("role = \"model\"\nbytes = {bytes}\nsha256 = \"{sha256}\"\n");
        let hub = format!("[download.hub]\nrevision = \"{commit}\"\n");
        self.0.replacen("role = \"model\"\n", &file, 1).replacen("[download.hub]\n", &hub, 1)
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
                (&hub.revision, hub.file, card.files.len()),
                (&pin.commit, card.files[0].path.clone(), 1)
            );
            assert_eq!((card.files[0].bytes, &card.files[0].sha256), (pin.bytes, &pin.sha256));
            let older = preset.pinned(&pin).replace("threshold = 0.5", "threshold = 0.4");
            assert_eq!(preset.repinned(&Card::parse(&older).unwrap()).unwrap(), preset.pinned(&pin));
            // The card says who made the file.
            assert!(card.source.starts_with("GGUF made by "), "{name}: {}", card.source);
        }
    }
}
