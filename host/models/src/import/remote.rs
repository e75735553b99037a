//! Import of a model on the Hugging Face hub: fetches the files that an import reads, and no
//! others.

use std::path::Path;

use anyhow::{Context as _, bail};
use infer_engine::files::Folder;
use infer_engine::text::{QUOTE_BYTES, excerpt};
use infer_engine::{OnnxSummary, Runtime, files};

use super::choice::{CANDIDATES, NotExported};
use super::local::{Imported, Request, TOKENIZER, import};
use super::scratch::Scratch;
use super::settings;
use crate::limits::{MAX_DATA_FILES, MAX_EXPORT_BYTES, MAX_SETTINGS_BYTES, MAX_TOKENIZER_BYTES};
use crate::pull::Repository;
use crate::source::HubModel;
use crate::store::Store;

/// Revision of a model without one: the branch that repositories have.
const MAIN: &str = "main";

/// Weights that are not ONNX files, as repositories name them.
const OTHER_WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Choices of an import from the hub.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoteOptions<'a> {
    /// The ONNX file to take.
    pub file: Option<&'a str>,
    /// Names of the labels.
    pub labels: Option<&'a [String]>,
}

/// Fetches the model and imports it into the folder `destination`. Returns the commit, too.
///
/// # Errors
///
/// If a file cannot be fetched, or as [`import`].
pub fn import_remote(
    model: &HubModel,
    options: RemoteOptions<'_>,
    destination: &Path,
    runtime: &Runtime,
) -> anyhow::Result<(Imported, String)> {
    // Checked before anything is fetched.
    let is_taken = std::fs::read_dir(destination).is_ok_and(|mut names| names.next().is_some());
    if is_taken {
        bail!(
            "`{}` exists, expected a new folder; choose another with `-o`, or remove it",
            destination.display()
        );
    }
    // The folder for temporary files may be too small.
    let parent =
        destination.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("cannot create `{}`", parent.display()))?;
    let scratch = Scratch::within(parent)?;
    let mut repository = Repository::new(&model.repository(), model.revision.as_deref().unwrap_or(MAIN));
    let file = fetch(model, &mut repository, options.file, scratch.folder())?;
    let commit = repository.revision().to_owned();
    let source = format!("Hugging Face hub, {} at {commit}", model.repository());
    let request = Request {
        folder: scratch.path(),
        file: Some(&file),
        labels: options.labels,
        name: &model.name,
        source: Some(&source),
        destination,
    };
    Ok((import(&request, runtime)?, commit))
}

/// Imports the model into the store, where `source = "hub:…"` finds it; `None` if it is there.
///
/// # Errors
///
/// As [`import_remote`].
pub fn pull_remote(
    model: &HubModel,
    options: RemoteOptions<'_>,
    runtime: &Runtime,
) -> anyhow::Result<Option<(Imported, String)>> {
    let store = Store::open()?;
    let folder = store.folder(&model.folder());
    if folder.join("card.toml").is_file() {
        let whole = infer_engine::Weights::read(&folder, None);
        whole.with_context(|| format!("remove `{}` with `infer rm`, then pull again", model.folder()))?;
        return Ok(None);
    }
    import_remote(model, options, &folder, runtime).map(Some)
}

/// Fetches the files of the model into `folder`. Returns the path of its ONNX file.
fn fetch(
    model: &HubModel,
    repository: &mut Repository,
    wanted: Option<&str>,
    folder: &Folder,
) -> anyhow::Result<String> {
    for file in settings::FILES {
        let is_there = place(repository, file, MAX_SETTINGS_BYTES, folder)?;
        if !is_there && file == settings::FILES[0] {
            bail!(
                "`{model}` does not exist, or has no {file}; expected the repository of a model with an ONNX file"
            );
        }
    }
    place(repository, TOKENIZER, MAX_TOKENIZER_BYTES, folder)?;
    let within;
    let candidates = match wanted {
        Some(wanted) => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
            let is_path = wanted.bytes().all(plain) && wanted.split('/').all(|part| !part.starts_with('.'));
            if !is_path || wanted.matches('/').count() > 1 {
                bail!(
                    "`--file` is `{}`, expected a name such as `onnx/model.onnx`",
                    excerpt(wanted, QUOTE_BYTES)
                );
            }
            within = format!("onnx/{wanted}");
            vec![wanted, within.as_str()]
        }
        None => CANDIDATES.to_vec(),
    };
    let is_path = |file: &&&str| file.matches('/').count() <= 1;
    for file in candidates.iter().filter(is_path) {
        if place(repository, file, MAX_EXPORT_BYTES, folder)? {
            data(repository, file, folder)?;
            return Ok((*file).to_owned());
        }
    }
    if let Some(wanted) = wanted {
        bail!("`{model}` has no file `{}`", excerpt(wanted, QUOTE_BYTES));
    }
    match OTHER_WEIGHTS.iter().find(|file| repository.has(file)) {
        Some(found) => {
            let (place, name) = (model.repository(), model.name.clone());
            Err(NotExported { place, name, found: (*found).to_owned() }.into())
        }
        None => bail!("`{model}` has no ONNX file, expected `{}` or `{}`", CANDIDATES[0], CANDIDATES[1]),
    }
}

/// Fetches `file`, which may be in a subfolder. Returns false if the repository does not have it.
fn place(repository: &mut Repository, file: &str, max: u64, folder: &Folder) -> anyhow::Result<bool> {
    match file.rsplit_once('/') {
        Some((inner, name)) => {
            let inner = folder.create_folder(inner).with_context(|| format!("cannot write `{file}`"))?;
            repository.fetch(file, max, &inner, name)
        }
        None => repository.fetch(file, max, folder, file),
    }
}

/// Fetches the files with the data of the ONNX file `file`.
fn data(repository: &mut Repository, file: &str, folder: &Folder) -> anyhow::Result<()> {
    let bytes =
        files::read(folder.join(file), MAX_EXPORT_BYTES).with_context(|| format!("cannot read `{file}`"))?;
    let summary =
        OnnxSummary::read(&bytes).map_err(anyhow::Error::msg).with_context(|| format!("`{file}`"))?;
    let is_plain = |name: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !name.is_empty() && !name.starts_with('.') && name.bytes().all(known)
    };
    // The import rejects names that lead elsewhere, and missing files.
    for name in summary.data_files.iter().filter(|name| is_plain(name)).take(MAX_DATA_FILES) {
        let path = file.rsplit_once('/').map_or_else(|| name.clone(), |(inner, _)| format!("{inner}/{name}"));
        if path != file {
            place(repository, &path, MAX_EXPORT_BYTES, folder)?;
        }
    }
    Ok(())
}
