//! The first pull of a preset.

use anyhow::{Context as _, bail};
use infer_engine::Card;
use infer_engine::files::Folder;

use super::repository::Repository;
use crate::disk;
use crate::preset::{Pin, Preset};

/// Writes the card of `preset` with what the hub states about its file into `folder`, and returns
/// it.
///
/// # Errors
///
/// If the hub cannot be reached or states no hash, or the card cannot be written.
pub fn pin(preset: Preset, folder: &Folder) -> anyhow::Result<Card> {
    let hub = preset.card()?.download.hub.context("a preset has a `download.hub`")?;
    let mut repository = Repository::new(&hub.repository, &hub.revision);
    let subject = || format!("cannot request `{}` of `{}`", hub.file, hub.repository);
    let Some((bytes, sha256)) = repository.describe(&hub.file).with_context(subject)? else {
        bail!("{}: it does not exist; use the file of another repository with a card of its own", subject());
    };
    if repository.revision() == hub.revision {
        bail!("{}: the server states no commit that a card could pin", subject());
    }
    let text = preset.pinned(&Pin { commit: repository.revision().to_owned(), bytes, sha256 });
    let card = Card::parse(&text).map_err(anyhow::Error::msg).with_context(subject)?;
    let place = folder.join("card.toml");
    disk::replace(&place, &text).with_context(|| format!("cannot write `{}`", place.display()))?;
    Ok(card)
}
