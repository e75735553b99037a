//! `infer pull`: download a model's file, or import a model from the hub, and print its path.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use infer_config::Config;
use infer_engine::Card;
use infer_engine::files::Folder;
use infer_models::import::{RemoteOptions, pull_remote};
use infer_models::preset::Preset;
use infer_models::pull::{Outcome, Target};
use infer_models::source::{HUB, HubModel, Source};
use infer_models::store::Store;
use infer_models::{builtin, pull, weights};

use super::import;
use crate::cli::Pull;

pub(super) fn run(config: Option<&Path>, arguments: &Pull, out: &mut impl Write) -> anyhow::Result<()> {
    let Some(name) = &arguments.model else { return configured(config, arguments, out) };
    if let Some(text) = name.strip_prefix(HUB) {
        let model = HubModel::parse(text).map_err(|expected| anyhow!("`{name}` is invalid, {expected}"))?;
        return hub(config, &model, out);
    }
    let plain = name.strip_prefix("builtin:").unwrap_or(name);
    if builtin::weights(plain).is_some() || Preset::find(plain).is_some() {
        return file(&Source::Builtin(plain.to_owned()), arguments, out);
    }
    if Path::new(name).is_dir() {
        return file(&Source::Path(name.into()), arguments, out);
    }
    // A configuration with a mistake only hides its names.
    let models = Config::read(config).map(|config| config.models).unwrap_or_default();
    match models.get(name).map(|model| &model.source) {
        Some(Source::Hub(model)) => hub(config, model, out),
        Some(source) => file(source, arguments, out),
        None => {
            let known: Vec<_> = pullable().collect();
            bail!(
                "no model to pull is named `{name}`; expected a folder with a card.toml, `hub:OWNER/NAME@REVISION`, a \
                 model of infer.toml, or one of `{}`",
                known.join("`, `")
            )
        }
    }
}

/// Pulls all models of the configuration whose files are missing.
fn configured(config: Option<&Path>, arguments: &Pull, out: &mut impl Write) -> anyhow::Result<()> {
    let read = Config::read(config)?;
    let mut sources: Vec<Source> = read.versions().map(|(_, model)| model.source).collect();
    sources.retain(weights::is_absent);
    sources.dedup();
    if sources.is_empty() {
        writeln!(out, "no model of {} has to be pulled", read.origin)?;
    }
    for source in &sources {
        match source {
            Source::Hub(model) => hub(config, model, out)?,
            source => file(source, arguments, out)?,
        }
    }
    Ok(())
}

/// Imports a model from the hub into the cache folder.
fn hub(config: Option<&Path>, model: &HubModel, out: &mut impl Write) -> anyhow::Result<()> {
    let folder = weights::folder(&model.folder()).context(builtin::NO_CACHE)?;
    let Some((imported, commit)) = pull_remote(model, RemoteOptions::default(), &import::runtime(config)?)?
    else {
        writeln!(out, "`{model}` is imported already, in `{}`", folder.display())?;
        return Ok(());
    };
    import::describe(&imported, &folder, out)?;
    writeln!(out, "  commit           {commit}")?;
    writeln!(out, "\na configuration uses it with `source = \"{model}\"`; `infer lock` pins its hash")?;
    if model.revision.as_deref() != Some(&commit) {
        let pinned = HubModel { revision: Some(commit), ..model.clone() };
        writeln!(out, "a branch or tag may change: `source = \"{pinned}\"` does not")?;
    }
    Ok(())
}

/// Downloads the files of a model that has a card.
fn file(source: &Source, arguments: &Pull, out: &mut impl Write) -> anyhow::Result<()> {
    let (name, folder) = match source {
        Source::Builtin(name) => (name.clone(), weights::folder(name).context(builtin::NO_CACHE)?),
        Source::Path(path) => (path.display().to_string(), path.clone()),
        Source::Hub(model) => bail!("`{model}` is imported, not downloaded"),
    };
    if let Source::Builtin(name) = source
        && let Some(preset) = Preset::find(name).filter(|_| !weights::is_stored(name))
    {
        let card = pull::pin(preset, &Store::open()?.model(name)?);
        let card = card.map_err(|error| {
            anyhow!(
                "{error:#}; the first pull asks the hub, or the mirror in HF_ENDPOINT, for the hash to pin"
            )
        })?;
        show_pin(&card, &folder, out)?;
    }
    let card = weights::list(source)?.card;
    if weights::remedy(&card, source).is_none() {
        bail!(
            "the card of `{name}` has no `download`, so its files are included; expected one of `{}`",
            pullable().collect::<Vec<_>>().join("`, `")
        );
    }
    // The exit code reports a failed pull; a progress line that cannot be written does not change
    // it.
    let store = if let Source::Builtin(_) = source { Some(Store::open()?) } else { None };
    let opened = match &store {
        Some(store) => store.model(&name)?,
        None => Folder::open(&folder).with_context(|| format!("cannot open `{}`", folder.display()))?,
    };
    let target = Target {
        folder: &opened,
        store: store.as_ref(),
        transport: arguments.from,
        index: arguments.index(),
    };
    for file in card.model_files() {
        let place = folder.join(&file.path);
        let outcome = pull::pull(&card, file, &target, |failure| {
            let _ = writeln!(out, "{failure}");
        });
        let outcome = outcome.map_err(|error| {
            anyhow!(
                "{error:#}; without a network, put the file at `{}` by hand: {} bytes, sha256 {}{}",
                place.display(),
                file.bytes,
                file.sha256,
                weights::manual_download(&card)
            )
        })?;
        match outcome {
            Outcome::Present => writeln!(out, "`{}` exists and matches its card", place.display())?,
            Outcome::Fetched(transport) => {
                let converted = if card.download.convert.is_some() { ", converted" } else { "" };
                writeln!(
                    out,
                    "`{}` is fetched ({transport}){converted} and verified: sha256 {}",
                    place.display(),
                    file.sha256
                )?;
            }
        }
    }
    if let Source::Builtin(name) = source {
        writeln!(out, "a configuration uses it with `source = \"builtin:{name}\"`")?;
    }
    Ok(())
}

/// Shows what the first pull of a preset has pinned.
fn show_pin(card: &Card, folder: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let file = card.model_file();
    writeln!(out, "{}; license: {}", card.source, card.license)?;
    writeln!(
        out,
        "`{}` is pinned as the hub states it, in `{}`:",
        file.path,
        folder.join("card.toml").display()
    )?;
    if let Some(hub) = &card.download.hub {
        writeln!(out, "  commit {} of `{}`", hub.revision, hub.repository)?;
    }
    writeln!(out, "  {} bytes, sha256 {}", file.bytes, file.sha256)?;
    writeln!(
        out,
        "`infer pull` accepts no other file until `infer rm` removes the card; `infer lock` pins it for a configuration"
    )?;
    Ok(())
}

fn pullable() -> impl Iterator<Item = &'static str> {
    builtin::weights_names().filter(|name| {
        let listed = weights::list(&Source::Builtin((*name).to_owned()));
        listed.is_ok_and(|listed| listed.card.download != infer_engine::Download::default())
    })
}
