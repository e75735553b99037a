//! `infer list`, `infer rm`, `infer verify`: the model files in the cache folder.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use infer_models::store;
use infer_models::store::{Store, Stored};
use serde::Serialize;

use crate::cli::{Format, Output, Rm, Verify};

#[derive(Serialize)]
struct Row {
    name: String,
    bytes: u64,
    sha256: Option<String>,
    state: String,
    path: String,
}

pub(super) fn list(arguments: &Output, out: &mut impl Write) -> anyhow::Result<()> {
    let store = Store::open()?;
    let rows: Vec<_> = store.list()?.into_iter().map(row).collect();
    if arguments.output == Format::Json {
        serde_json::to_writer_pretty(&mut *out, &rows)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "{:<20} {:>13}  {:<12}  {:<24}  FILE", "MODEL", "BYTES", "SHA256", "STATE")?;
    for Row { name, bytes, sha256, state, path } in &rows {
        let sha256 = sha256.as_deref().map_or("", |digits| &digits[..12]);
        writeln!(out, "{name:<20} {bytes:>13}  {sha256:<12}  {state:<24}  {path}")?;
    }
    for blob in store.unreferenced()? {
        writeln!(out, "(no model) {}", blob.display())?;
    }
    Ok(())
}

fn row(stored: Stored) -> Row {
    let state = match (&stored.file, stored.bytes) {
        (_, None) => format!("{} bytes fetched", stored.partial_bytes),
        (Some(file), Some(bytes)) if bytes != file.bytes => format!("damaged: expected {} bytes", file.bytes),
        (Some(_), Some(_)) => "whole".to_owned(),
        (None, Some(_)) => "no card".to_owned(),
    };
    let blob = stored.blob.as_deref().and_then(store::sha256).map(str::to_owned);
    Row {
        bytes: stored.bytes.unwrap_or(0),
        sha256: stored.file.map(|file| file.sha256).or(blob),
        state,
        path: stored.path.display().to_string(),
        name: stored.name,
    }
}

pub(super) fn remove(arguments: &Rm, out: &mut impl Write) -> anyhow::Result<()> {
    let store = Store::open()?;
    for name in &arguments.models {
        let name = name.strip_prefix("builtin:").unwrap_or(name);
        let freed = store.remove(name)?;
        writeln!(out, "`{name}` is removed: {} files, {} bytes", freed.files, freed.bytes)?;
    }
    Ok(())
}

/// Hashes every file; exits with an error code if one does not match its card or its name.
pub(super) fn verify(arguments: &Verify, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let store = Store::open()?;
    let all = store.list()?;
    for name in &arguments.models {
        if !all.iter().any(|stored| stored.name == *name) {
            bail!("no model `{name}` is in the cache folder; `infer list` lists the models");
        }
    }
    let mut damaged = 0;
    let is_selected =
        |stored: &&Stored| arguments.models.is_empty() || arguments.models.contains(&stored.name);
    for stored in all.iter().filter(is_selected) {
        let Stored { name, file, path, bytes, .. } = stored;
        let shown = path.display();
        match (file, bytes) {
            (None, _) => writeln!(out, "`{name}` has no card to compare `{shown}` with")?,
            (Some(_), None) => writeln!(out, "`{name}` is incomplete; `infer pull {name}` resumes")?,
            (Some(file), Some(_)) => match file.verify(path) {
                Ok(()) => writeln!(out, "`{name}` matches its card: sha256 {}", file.sha256)?,
                Err(error) => {
                    damaged += 1;
                    writeln!(out, "`{name}` is damaged: {error}; `infer pull {name}` fetches it again")?;
                }
            },
        }
    }
    out.flush()?;
    Ok(if damaged == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
