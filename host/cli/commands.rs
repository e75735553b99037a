//! The subcommands, one module each. They write to standard output and return errors to `main`.

mod admin;
mod calibrate;
mod check;
mod classify;
mod compile;
mod component;
mod dummy;
mod generate;
mod import;
mod key;
mod labels;
mod language;
mod lock;
mod models;
mod moderate;
mod plan;
mod pull;
mod score;
mod serve;
mod store;
mod text_model;
mod train;
mod training;
mod versions;

use std::io::{Write as _, stdout};
use std::process::ExitCode;

use infer_config::Config;

use crate::cli::{Cli, Command};
use crate::logging;
use crate::printed::Printed;

/// Runs the subcommand.
///
/// # Errors
///
/// The error of the subcommand, for the caller to print.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let usual = if matches!(cli.command, Command::Serve(_)) { "info" } else { "warn" };
    logging::init(cli.log.as_deref().unwrap_or(usual), cli.log_format)?;
    if let Some(name) = &cli.instruction_set {
        infer_engine::set_instruction_set(name)?;
    }
    let mut out = Printed(stdout().lock());
    // `pull` comes before a configuration that uses the files.
    let load = || Config::load(cli.config.as_deref());
    // A command ends before an idle model would be unloaded.
    let load_awake = || {
        load().map(|mut config| {
            config.models.values_mut().for_each(|model| model.keep_alive = None);
            config.drop_trials();
            config
        })
    };
    match cli.command {
        Command::Import(arguments) => import::run(cli.config.as_deref(), &arguments, &mut out)?,
        Command::Pull(arguments) => pull::run(cli.config.as_deref(), &arguments, &mut out)?,
        Command::List(arguments) => store::list(&arguments, &mut out)?,
        Command::Rm(arguments) => store::remove(&arguments, &mut out)?,
        Command::Verify(arguments) => return store::verify(&arguments, &mut out),
        Command::Dummy(arguments) => dummy::run(&arguments, &mut out)?,
        Command::Key(arguments) => key::run(&arguments, &mut out)?,
        Command::Serve(arguments) => {
            drop(out);
            serve::run(cli.config.clone(), &arguments)?;
        }
        Command::Check(arguments) => check::run(load()?, &arguments, &mut out)?,
        Command::Reload(arguments) => admin::reload(&load()?, &arguments, &mut out)?,
        Command::Diff(arguments) => versions::diff(&load()?, &arguments, &mut out)?,
        Command::Promote(arguments) => versions::promote(&load()?, &arguments, &mut out)?,
        Command::Rollback(arguments) => versions::rollback(&load()?, &arguments, &mut out)?,
        Command::Lock => lock::run(&Config::read(cli.config.as_deref())?, &mut out)?,
        Command::Compile => compile::run(&load()?, &mut out)?,
        Command::Plan(arguments) => plan::run(&load()?, &arguments, &mut out)?,
        Command::Models(arguments) if arguments.supported => models::supported(&arguments.format, &mut out)?,
        Command::Models(arguments) => models::run(&load()?, &arguments.format, &mut out)?,
        Command::Classify(arguments) => classify::run(load_awake()?, &arguments, &mut out)?,
        Command::Moderate(arguments) => moderate::run(load_awake()?, &arguments, &mut out)?,
        Command::Generate(arguments) => generate::run(&load_awake()?, &arguments, &mut out)?,
        Command::Score(arguments) => score::run(&load_awake()?, &arguments, &mut out)?,
        Command::Train(arguments) => train::run(&load_awake()?, &arguments, &mut out)?,
        Command::Calibrate(arguments) => calibrate::run(load_awake()?, &arguments, &mut out)?,
        Command::Bench(arguments) => return infer_bench::run(load_awake()?, &arguments, &mut out),
    }
    stdout().flush()?;
    Ok(ExitCode::SUCCESS)
}
