//! `infer pull`: download a model's file and print its path.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use infer_engine::files::Folder;
use infer_models::pull::{Outcome, Target};
use infer_models::source::Source;
use infer_models::store::Store;
use infer_models::{builtin, pull, weights};

use crate::cli::Pull;

pub(super) fn run(arguments: &Pull, out: &mut impl Write) -> anyhow::Result<()> {
    let name = arguments.model.strip_prefix("builtin:").unwrap_or(&arguments.model);
    let (source, folder) = if builtin::weights(name).is_some() {
        (Source::Builtin(name.to_owned()), weights::folder(name).context(builtin::NO_CACHE)?)
    } else if Path::new(name).is_dir() {
        (Source::Path(name.into()), name.into())
    } else {
        let known: Vec<_> = pullable().collect();
        anyhow::bail!(
            "no model to pull is named `{name}`; expected a folder with a card.toml, or one of `{}`",
            known.join("`, `")
        );
    };
    let card = weights::list(&source)?.card;
    if weights::remedy(&card, &source).is_none() {
        anyhow::bail!(
            "the card of `{name}` has no `download`, so its files are included; expected one of `{}`",
            pullable().collect::<Vec<_>>().join("`, `")
        );
    }
    let file = card.model_file();
    let place = folder.join(&file.path);
    // The exit code reports a failed pull; a progress line that cannot be written does not change
    // it.
    let store = if let Source::Builtin(_) = source { Some(Store::open()?) } else { None };
    let opened = match &store {
        Some(store) => store.model(name)?,
        None => Folder::open(&folder).with_context(|| format!("cannot open `{}`", folder.display()))?,
    };
    let target = Target {
        folder: &opened,
        store: store.as_ref(),
        transport: arguments.from,
        index: arguments.index(),
    };
    let outcome = pull::pull(&card, &target, |failure| {
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
            writeln!(
                out,
                "`{}` is fetched ({transport}) and verified: sha256 {}",
                place.display(),
                file.sha256
            )?;
        }
    }
    if let Source::Builtin(name) = source {
        writeln!(out, "a configuration uses it with `source = \"builtin:{name}\"`")?;
    }
    Ok(())
}

fn pullable() -> impl Iterator<Item = &'static str> {
    builtin::weights_names().filter(|name| {
        let listed = weights::list(&Source::Builtin((*name).to_owned()));
        listed.is_ok_and(|listed| listed.card.download != infer_engine::Download::default())
    })
}
