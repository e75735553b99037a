//! `infer diff`, `infer promote` and `infer rollback`: comparing and switching two versions of a
//! model.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, bail};
use infer_config as config;
use infer_config::edit::Reverted;
use infer_config::{Config, MAX_LOCK_BYTES, Origin, edit};
use infer_control::registry::Tally;
use infer_control::versions::{Calls, Compared, VersionInfo, Versions};
use infer_engine::files;
use infer_models::disk;

use super::{admin, lock};
use crate::cli::{Admin, Diff, Format, Turn};
use crate::limits::MAX_PRINTED_EXAMPLES;

pub(super) fn diff(config: &Config, arguments: &Diff, out: &mut impl Write) -> anyhow::Result<()> {
    let mut versions = admin::versions(config, &arguments.server)?;
    if let Some(model) = &arguments.model {
        versions.retain(|versions| versions.model == *model);
        if versions.is_empty() {
            bail!(
                "model `{model}` has no next version in the running server; set `next` in [models.{model}]"
            );
        }
    }
    if arguments.output.output == Format::Json {
        serde_json::to_writer_pretty(&mut *out, &versions)?;
        writeln!(out)?;
        return Ok(());
    }
    if versions.is_empty() {
        writeln!(out, "no model has a next version; set `next` in a section [models.NAME]")?;
    }
    for (index, versions) in versions.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        one(versions, out)?;
    }
    Ok(())
}

fn one(versions: &Versions, out: &mut impl Write) -> anyhow::Result<()> {
    let Versions { model, current, next, trial } = versions;
    writeln!(out, "model {model}")?;
    for (role, VersionInfo { source, hash, computed, failed }) in [("current", current), ("next", next)] {
        writeln!(
            out,
            "  {role:<12} {source}  {}  {computed} jobs, {failed} failed",
            &hash[..hash.len().min(16)]
        )?;
    }
    match trial {
        Compared::Canary { percent, components } => {
            writeln!(out, "  canary       next answers {percent} % of the requests")?;
            for Calls { component, current, next } in components {
                writeln!(
                    out,
                    "  component    {component}: {} with the current, {} with the next",
                    calls(current),
                    calls(next)
                )?;
            }
        }
        Compared::Shadow {
            tolerance,
            compared,
            disagreed,
            failed,
            skipped,
            largest_difference,
            examples,
        } => {
            writeln!(
                out,
                "  shadow       {compared} compared, {disagreed} disagree{}",
                share(*disagreed, *compared)
            )?;
            writeln!(out, "               {failed} failed, {skipped} skipped")?;
            writeln!(out, "  difference   at most {largest_difference:.6}; {tolerance} is tolerated")?;
            for example in examples.iter().rev().take(MAX_PRINTED_EXAMPLES) {
                let difference =
                    example.difference.map_or("another kind".to_owned(), |max| format!("{max:.6}"));
                writeln!(out, "  example      {}  {difference}", example.input_hash)?;
            }
        }
    }
    Ok(())
}

fn calls(tally: &Tally) -> String {
    let Tally { answered, flagged, failed } = tally;
    format!("{answered} answers, {flagged} flagged{}, {failed} failed", share(*flagged, *answered))
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { String::new() } else { format!(" ({:.2} %)", 100.0 * part as f64 / whole as f64) }
}

pub(super) fn promote(config: &Config, arguments: &Turn, out: &mut impl Write) -> anyhow::Result<()> {
    let model = &arguments.model;
    let turned = turn(config, &arguments.server, |text| edit::promote(text, model))?;
    let Turned { outcome: [before, after], served } = turned;
    writeln!(out, "model `{model}`: {before} -> {after}; {served}")?;
    writeln!(out, "`infer rollback {model}` puts {before} back")?;
    Ok(())
}

pub(super) fn rollback(config: &Config, arguments: &Turn, out: &mut impl Write) -> anyhow::Result<()> {
    let model = &arguments.model;
    let undo = |text: &str| edit::rollback(text, model).map(|(text, undone, left)| (text, (undone, left)));
    let Turned { outcome: (undone, left), served } = turn(config, &arguments.server, undo)?;
    match undone {
        Reverted::Trial(next) => {
            writeln!(out, "model `{model}`: the trial of {next} has ended, {left} stays; {served}")?;
        }
        Reverted::Promotion(before) => {
            writeln!(out, "model `{model}`: {before} -> {left}; {served}")?;
        }
    }
    Ok(())
}

/// A change that was made.
struct Turned<T> {
    /// Result of the edit.
    outcome: T,
    /// Status of the running server.
    served: String,
}

/// Changes the configuration, its lock if there is one, and the running server; all or nothing.
fn turn<T>(
    config: &Config,
    server: &Admin,
    edit: impl FnOnce(&str) -> Result<(String, T), String>,
) -> anyhow::Result<Turned<T>> {
    let Origin::File(path) = &config.origin else {
        bail!("the built-in configuration is a part of the program; copy it to infer.toml to change it");
    };
    let before = files::read_to_string(path, config::MAX_CONFIG_BYTES)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let (after, outcome) =
        edit(&before).map_err(|message| anyhow::anyhow!("{}: {message}", path.display()))?;
    let changed = Config::parse(&after, &config.origin)?;
    let pinned = config.lock.as_ref().map(|lock| lock.path().to_owned());
    let pins = match &pinned {
        Some(path) => Some((path, files::read_to_string(path, MAX_LOCK_BYTES)?, lock::text(&changed)?)),
        None => None,
    };
    let write = |path: &Path, text: &str| {
        disk::replace(path, text).with_context(|| format!("cannot write `{}`", path.display()))
    };
    let done = || -> anyhow::Result<String> {
        if let Some((path, _, pins)) = &pins {
            write(path, pins)?;
        }
        write(path, &after)?;
        let Some(address) = server.admin_address(config) else {
            return Ok("a running server reloads it at SIGHUP (`admin_listen` is not set)".to_owned());
        };
        if !admin::is_running(address) {
            return Ok(format!("no server runs at {address}; the next one started will serve it"));
        }
        let report = admin::serve_changes(address)?;
        Ok(format!("live after {} ms", report.took_ms))
    };
    match done() {
        Ok(served) => Ok(Turned { outcome, served }),
        Err(error) => {
            write(path, &before)?;
            if let Some((path, pins, _)) = &pins {
                write(path, pins)?;
            }
            Err(error.context(format!("`{}` is unchanged", path.display())))
        }
    }
}
