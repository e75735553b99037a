//! `infer import`: write a weights folder from an export, and print what it consists of.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use infer_config::{CONFIG, Config, Origin};
use infer_engine::{Runtime, RuntimeOptions, Task};
use infer_models::import::{Basis, Imported, RemoteOptions, Request, import, import_remote};
use infer_models::source::{HUB, HubModel};

use crate::cli::Import;
use crate::printed::one_line;

pub(super) fn run(config: Option<&Path>, arguments: &Import, out: &mut impl Write) -> anyhow::Result<()> {
    let (file, labels) = (arguments.file.as_deref(), arguments.labels.as_deref());
    if let Some(text) = arguments.model.strip_prefix(HUB) {
        let model = HubModel::parse(text)
            .map_err(|expected| anyhow!("`{}` is invalid, {expected}", arguments.model))?;
        let destination = arguments.output.clone().unwrap_or_else(|| PathBuf::from(&model.name));
        let options = RemoteOptions { file, labels };
        let (imported, commit) = import_remote(&model, options, &destination, &runtime(config)?)?;
        print(&imported, &destination, out)?;
        let pinned = HubModel { revision: Some(commit), ..model };
        writeln!(out, "  or, after `infer pull`, without the folder:")?;
        writeln!(out, "    source = \"{pinned}\"")?;
        return Ok(());
    }
    let folder = Path::new(&arguments.model);
    let name = name(folder)?;
    let destination = match &arguments.output {
        Some(folder) => folder.clone(),
        None => default_destination(folder, &name),
    };
    let request = Request { folder, file, labels, name: &name, source: None, destination: &destination };
    let imported = import(&request, &runtime(config)?)?;
    print(&imported, &destination, out)?;
    Ok(())
}

/// The backend of the configuration. If no configuration can be read, that of the built-in one: an
/// import comes before the configuration that uses it.
pub(super) fn runtime(config: Option<&Path>) -> anyhow::Result<Runtime> {
    let config = match config {
        Some(path) => Config::read(Some(path))?,
        None => Config::read(None).or_else(|_| Config::parse(CONFIG, &Origin::Builtin))?,
    };
    Ok(Runtime::new(&RuntimeOptions { onnxruntime: config.onnxruntime })?)
}

/// Name of the model in `folder`: that of the folder.
pub(super) fn name(folder: &Path) -> anyhow::Result<String> {
    let full = folder.canonicalize().with_context(|| {
        format!("cannot open `{}`, expected a folder with an export, or `hub:OWNER/NAME`", folder.display())
    })?;
    let Some(name) = full.file_name() else { bail!("`{}` is no folder of an export", folder.display()) };
    let name = name.to_string_lossy();
    let is_plain = |character: &char| character.is_ascii_alphanumeric() || "-_.".contains(*character);
    let name: String = name.chars().filter(is_plain).take(64).collect();
    Ok(if name.trim_matches('.').is_empty() { "imported".to_owned() } else { name })
}

/// The folder NAME, unless it is the export itself.
fn default_destination(folder: &Path, name: &str) -> PathBuf {
    let destination = PathBuf::from(name);
    let is_export = || Some(destination.canonicalize().ok()? == folder.canonicalize().ok()?);
    if is_export() == Some(true) { PathBuf::from(format!("{name}-weights")) } else { destination }
}

/// Prints the result, and the next commands.
fn print(imported: &Imported, folder: &Path, out: &mut impl Write) -> std::io::Result<()> {
    describe(imported, folder, out)?;
    let (name, shown) = (&imported.card.name, folder.display());
    let judges = imported.card.task.judges_text();
    writeln!(out, "\nnext:")?;
    if judges {
        writeln!(out, "  infer moderate --text-model {shown} \"You are a complete idiot.\"")?;
    }
    writeln!(out, "  in infer.toml, with the path from there:")?;
    writeln!(out, "    [models.\"{name}\"]\n    source = \"{shown}\"")?;
    if judges {
        // A model that labels spans judges beside a classifier.
        let alias = if imported.card.task == Task::TokenClassification { "spans" } else { "text" };
        writeln!(
            out,
            "    [components.moderate]\n    source = \"builtin:moderate\"\n    route = \"/moderate\"\n    \
             models = {{ {alias} = \"{name}\" }}  # and the models that it has"
        )?;
    }
    Ok(())
}

/// Prints what the import has read and assumed, and the files that it wrote.
pub(super) fn describe(imported: &Imported, folder: &Path, out: &mut impl Write) -> std::io::Result<()> {
    let Imported { card, hash, notes } = imported;
    writeln!(out, "{}", one_line(&card.description))?;
    for basis in [Basis::Read, Basis::Assumed, Basis::Unknown] {
        for note in notes.iter().filter(|note| note.basis == basis) {
            writeln!(out, "  {basis:8}  {:15}  {}", note.subject, one_line(&note.value))?;
        }
    }
    writeln!(out, "\nwrote {}", folder.display())?;
    for file in &card.files {
        writeln!(out, "  {:15}  {:>10} bytes  sha256 {}", one_line(&file.path), file.bytes, file.sha256)?;
    }
    writeln!(out, "  hash             {hash}")?;
    writeln!(out, "  self-test        passed")
}
