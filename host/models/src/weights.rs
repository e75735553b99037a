//! Loads the weights of a configured source: carried by the program, pulled into the cache folder,
//! or at a path.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use infer_engine::{Card, CardError, Format, GgufSummary, MAX_HEAD_BYTES, WeightCache, Weights, files};

use crate::preset::Preset;
use crate::source::{HubModel, Source};
use crate::{builtin, disk};

/// Description of a source's weights, and the state of their files.
pub struct Listed {
    /// The card, or one derived from a GGUF file.
    pub card: Card,
    /// State of the files.
    pub state: State,
    /// True for random weights, as marked in the header of a GGUF file; false if the file is
    /// missing.
    pub dummy: bool,
    /// Types of a language model's weights, as [`GgufSummary::weight_types`]; `None` if the file is
    /// missing.
    pub weight_types: Option<String>,
}

/// State of a source's files, judged by their sizes; hashes are verified when the weights are
/// loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// All files exist.
    Ready,
    /// The model's file has to be fetched with `infer pull`, or written with `infer dummy`.
    Absent,
    /// A file exists but cannot be the card's, for this reason.
    Damaged(String),
}

/// Cached data of a language model that a later start reuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Nothing is cached: every start hashes the file and packs the weights.
    Off,
    /// Packed weights are cached by hash; every start hashes the file.
    Packed,
    /// Hash and packed weights are cached as long as the file is unchanged.
    All,
}

/// Loads and verifies the weights of `source`, and adds the heads in the files `heads`.
///
/// # Errors
///
/// If a file is missing or differs from its card, or a head does not fit. The error of a file that
/// can be fetched names the command for it.
pub fn load(source: &Source, heads: &[PathBuf], reuse: Reuse) -> anyhow::Result<Weights> {
    let weights = load_source(source, reuse)?;
    let head = |path: &PathBuf| {
        let content = files::read(path, MAX_HEAD_BYTES);
        Ok((path.clone(), content.with_context(|| format!("cannot read the head `{}`", path.display()))?))
    };
    Ok(weights.with_heads(&heads.iter().map(head).collect::<anyhow::Result<Vec<_>>>()?)?)
}

fn load_source(source: &Source, reuse: Reuse) -> anyhow::Result<Weights> {
    let cache = builtin::cache_folder().filter(|_| reuse != Reuse::Off);
    let cache = cache.map(|cache| WeightCache { folder: cache.join("packed"), rehash: reuse != Reuse::All });
    let cache = cache.as_ref();
    let loaded = match source {
        Source::Builtin(name) => match builtin::weights(name) {
            Some(files) => Weights::embedded(files, folder(name).as_deref(), cache),
            None => Weights::read(&stored(name)?, cache),
        },
        Source::Path(path) if is_gguf(path) => Weights::gguf(path, cache),
        Source::Path(folder) => Weights::read(imported_folder(folder)?, cache),
        Source::Hub(model) => Weights::read(&imported(model)?, cache),
    };
    loaded.map_err(|error| match error {
        CardError::Missing { .. } => {
            let remedy = list(source).ok().and_then(|listed| remedy(&listed.card, source));
            remedy.map_or_else(|| anyhow!("{error}"), |remedy| anyhow!("{error}; {remedy}"))
        }
        _ => error.into(),
    })
}

/// Describes the weights of `source`. Of the files only the header of a GGUF is read.
///
/// # Errors
///
/// If the card cannot be read, or a GGUF file without a card has an invalid header.
pub fn list(source: &Source) -> anyhow::Result<Listed> {
    let (card, folder, carried) = match source {
        Source::Builtin(name) => match builtin::weights(name) {
            Some(files) => {
                let text = files.iter().find(|(file, _)| *file == CARD).map_or(&b""[..], |(_, bytes)| *bytes);
                (parse(std::str::from_utf8(text)?)?, folder(name), files)
            }
            None => match Preset::find(name).filter(|_| !is_stored(name)) {
                Some(preset) => {
                    let (state, dummy, weight_types) = (State::Absent, false, None);
                    return Ok(Listed { card: preset.card()?, state, dummy, weight_types });
                }
                None => {
                    let folder = stored(name)?;
                    (read(&folder)?, Some(folder), &[][..])
                }
            },
        },
        Source::Path(path) if is_gguf(path) => {
            let GgufSummary { card, dummy, weight_types } = GgufSummary::read(path)?;
            return Ok(Listed { card, state: State::Ready, dummy, weight_types: Some(weight_types) });
        }
        Source::Path(folder) => (read(imported_folder(folder)?)?, Some(folder.clone()), &[][..]),
        Source::Hub(model) => {
            let folder = imported(model)?;
            (read(&folder)?, Some(folder), &[][..])
        }
    };
    let mut state = State::Ready;
    for file in card.files.iter().filter(|file| carried.iter().all(|(name, _)| *name != file.path)) {
        let found = folder.as_ref().and_then(|folder| std::fs::metadata(folder.join(&file.path)).ok());
        match found.map(|found| found.len()) {
            Some(found) if found == file.bytes => {}
            Some(found) => {
                state = State::Damaged(format!("`{}` is {found} bytes, expected {}", file.path, file.bytes));
            }
            None => state = State::Absent,
        }
    }
    let (mut dummy, mut weight_types) = (false, None);
    if let (Format::Gguf, State::Ready, Some(folder)) = (card.format, &state, folder) {
        match GgufSummary::read(&folder.join(&card.model_file().path)) {
            Ok(summary) => (dummy, weight_types) = (summary.dummy, Some(summary.weight_types)),
            Err(error) => state = State::Damaged(error.to_string()),
        }
    }
    Ok(Listed { card, state, dummy, weight_types })
}

/// Returns `folder`, unless it is an export that was not imported.
fn imported_folder(folder: &Path) -> anyhow::Result<&Path> {
    let has = |name: &str| folder.join(name).exists();
    if has("config.json") && !has(CARD) {
        let shown = folder.display();
        bail!(
            "`{shown}` is an export without a {CARD}; import it with `infer import {shown} -o DIR`, and use DIR as \
             the source"
        );
    }
    Ok(folder)
}

/// Folder of a built-in model's files that the program does not carry; `None` without a cache
/// folder.
pub fn folder(name: &str) -> Option<PathBuf> {
    builtin::cache_folder().map(|cache| cache.join("models").join(name))
}

/// Returns true for a GGUF file, by its name or its first bytes. Such a file needs no card.
pub fn is_gguf(path: &Path) -> bool {
    path.is_file()
        && (path.extension().is_some_and(|extension| extension == "gguf") || GgufSummary::has_magic(path))
}

/// Returns true if the built-in model `name` has a card; a model that this program writes has one
/// only after it was written.
pub fn exists(name: &str) -> bool {
    builtin::weights(name).is_some() || Preset::find(name).is_some() || stored(name).is_ok()
}

/// Explains how to get the missing file of `card`; `None` if the card names no source.
pub fn remedy(card: &Card, source: &Source) -> Option<String> {
    if card.download == infer_engine::Download::default() {
        return None;
    }
    let what = match source {
        Source::Builtin(name) => name.clone(),
        Source::Path(path) => path.display().to_string(),
        Source::Hub(model) => model.to_string(),
    };
    Some(format!("run `infer pull {what}`, or put the file there by hand{}", manual_download(card)))
}

/// Names the place where a person can download the file.
pub fn manual_download(card: &Card) -> String {
    let kind = if card.download.convert.is_some() { "`infer pull` makes it from" } else { "it is" };
    card.download.hub.as_ref().map_or_else(String::new, |hub| {
        format!(
            ": {kind} `{}` of `{}` on the Hugging Face hub, revision {}",
            hub.file, hub.repository, hub.revision
        )
    })
}

const CARD: &str = "card.toml";

/// True if the cache folder has a card of the model.
pub fn is_stored(name: &str) -> bool {
    folder(name).is_some_and(|folder| folder.join(CARD).is_file())
}

/// Folder of a built-in model whose card is in the cache folder: a preset, or a model that this
/// program has written.
fn stored(name: &str) -> anyhow::Result<PathBuf> {
    let remedy = match (Preset::find(name), name.strip_suffix("-dummy")) {
        (Some(_), _) => format!("is not pulled yet: run `infer pull {name}`"),
        (None, Some(model)) => format!("is not written yet: run `infer dummy {model}`"),
        (None, None) => bail!("no built-in weights `{name}`"),
    };
    let folder = folder(name).context(builtin::NO_CACHE)?;
    if !is_stored(name) {
        bail!("`builtin:{name}` {remedy}");
    }
    if let Some(preset) = Preset::find(name) {
        update(preset, &folder)?;
    }
    Ok(folder)
}

/// Writes the card of a preset anew if another version of this program has pinned its file.
fn update(preset: Preset, folder: &Path) -> anyhow::Result<()> {
    let place = folder.join(CARD);
    let card = read(folder)?;
    let text = preset.repinned(&card)?;
    let found = files::read_to_string(&place, text.len() as u64 + 1).unwrap_or_default();
    if found != text {
        disk::replace(&place, &text).with_context(|| format!("cannot write `{}`", place.display()))?;
    }
    Ok(())
}

/// Folder of a model that was imported from the hub.
fn imported(model: &HubModel) -> anyhow::Result<PathBuf> {
    let folder = folder(&model.folder()).context(builtin::NO_CACHE)?;
    if !folder.join(CARD).is_file() {
        anyhow::bail!("`{model}` is not imported yet: run `infer pull {model}`");
    }
    Ok(folder)
}

/// Returns true if the files of `source` are fetched by `infer pull`, and are missing.
pub fn is_absent(source: &Source) -> bool {
    match source {
        Source::Hub(model) => imported(model).is_err(),
        source => list(source).is_ok_and(|listed| {
            listed.state == State::Absent && listed.card.download != infer_engine::Download::default()
        }),
    }
}

fn read(folder: &Path) -> anyhow::Result<Card> {
    Ok(Card::read(folder)?)
}

fn parse(text: &str) -> anyhow::Result<Card> {
    Card::parse(text).map_err(anyhow::Error::msg)
}
