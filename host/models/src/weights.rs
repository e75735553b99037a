//! From a configured source to its weights: carried by the program, pulled into the cache folder,
//! or at a path.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use infer_engine::{Card, CardError, Format, GgufSummary, WeightCache, Weights};

use crate::builtin;
use crate::source::Source;

/// What the weights of a source are, and whether their files are there.
pub struct Listed {
    /// What they are.
    pub card: Card,
    /// Whether they could be loaded.
    pub state: State,
    /// Whether the weights are random, by the header of a model's file that is there.
    pub dummy: bool,
    /// The types of a language model's weights, as [`GgufSummary::weight_types`], where its file is
    /// there.
    pub weight_types: Option<String>,
}

/// Whether weights could be loaded, judged by their files' sizes; hashes are verified when they
/// are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Every file is there.
    Ready,
    /// The model's file is to be fetched with `infer pull`, or written with `infer dummy`.
    Absent,
    /// A file is there and cannot be the card's.
    Damaged(String),
}

/// How often a language model's file is hashed, and its weights packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// At every start: nothing is kept.
    Off,
    /// The file is hashed anew; packed weights are used where there are some for this hash.
    Packed,
    /// Once, as long as the file is unchanged.
    All,
}

/// The verified weights of `source`.
///
/// # Errors
///
/// When a file is missing or differs from its card. A file that can be fetched is told with the
/// command that does.
pub fn load(source: &Source, reuse: Reuse) -> anyhow::Result<Weights> {
    let cache = builtin::cache_folder().filter(|_| reuse != Reuse::Off);
    let cache = cache.map(|cache| WeightCache { folder: cache.join("packed"), rehash: reuse != Reuse::All });
    let cache = cache.as_ref();
    let loaded = match source {
        Source::Builtin(name) => match builtin::weights(name) {
            Some(files) => Weights::embedded(files, folder(name).as_deref(), cache),
            None => Weights::read(&written(name)?, cache),
        },
        Source::Path(path) if is_gguf(path) => Weights::gguf(path, cache),
        Source::Path(folder) => Weights::read(folder, cache),
    };
    loaded.map_err(|error| match error {
        CardError::Missing { .. } => {
            let way_out = list(source).ok().and_then(|listed| way_out(&listed.card, source));
            way_out.map_or_else(|| anyhow!("{error}"), |way_out| anyhow!("{error}; {way_out}"))
        }
        _ => error.into(),
    })
}

/// What the weights of `source` are. Of their files no more is read than the header of a GGUF.
///
/// # Errors
///
/// When the card cannot be read, or a file without one describes itself badly.
pub fn list(source: &Source) -> anyhow::Result<Listed> {
    let (card, folder, carried) = match source {
        Source::Builtin(name) => match builtin::weights(name) {
            Some(files) => {
                let text = files.iter().find(|(file, _)| *file == CARD).map_or(&b""[..], |(_, bytes)| *bytes);
                (parse(std::str::from_utf8(text)?)?, folder(name), files)
            }
            None => {
                let folder = written(name)?;
                (read(&folder)?, Some(folder), &[][..])
            }
        },
        Source::Path(path) if is_gguf(path) => {
            let GgufSummary { card, dummy, weight_types } = GgufSummary::read(path)?;
            return Ok(Listed { card, state: State::Ready, dummy, weight_types: Some(weight_types) });
        }
        Source::Path(folder) => (read(folder)?, Some(folder.clone()), &[][..]),
    };
    let mut state = State::Ready;
    for file in card.files.iter().filter(|file| carried.iter().all(|(name, _)| *name != file.path)) {
        let found = folder.as_ref().and_then(|folder| std::fs::metadata(folder.join(&file.path)).ok());
        match found.map(|found| found.len()) {
            Some(found) if found == file.bytes => {}
            Some(found) => {
                state = State::Damaged(format!("`{}` is {found} bytes, not {}", file.path, file.bytes));
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

/// Where the files of a built-in model are that the program does not carry; none where there is no
/// cache folder.
pub fn folder(name: &str) -> Option<PathBuf> {
    builtin::cache_folder().map(|cache| cache.join("models").join(name))
}

/// Whether a path is of a GGUF file, to be served without a card: by its name, or by its first
/// bytes whatever its name.
pub fn is_gguf(path: &Path) -> bool {
    path.is_file()
        && (path.extension().is_some_and(|extension| extension == "gguf") || GgufSummary::begins(path))
}

/// Whether there is a card of a built-in model: of one that this program writes itself, only once
/// it has.
pub fn exists(name: &str) -> bool {
    builtin::weights(name).is_some() || written(name).is_ok()
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

const CARD: &str = "card.toml";

/// The folder of weights that this program writes itself.
fn written(name: &str) -> anyhow::Result<PathBuf> {
    let model = name.strip_suffix("-dummy").with_context(|| format!("no built-in weights `{name}`"))?;
    let folder = folder(name).context(builtin::NO_CACHE)?;
    if !folder.join(CARD).is_file() {
        anyhow::bail!("`builtin:{name}` is not written yet: run `infer dummy {model}`");
    }
    Ok(folder)
}

fn read(folder: &Path) -> anyhow::Result<Card> {
    Ok(Card::read(folder)?)
}

fn parse(text: &str) -> anyhow::Result<Card> {
    Card::parse(text).map_err(anyhow::Error::msg)
}
