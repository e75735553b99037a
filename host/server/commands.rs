//! The subcommands: one module each. They write to standard output and leave errors to `main`.

mod bench;
mod check;
mod classify;
mod generate;
mod language;
mod models;
mod moderate;
mod score;
mod serve;

use std::io::{Write as _, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;

use crate::app::App;
use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::logging;

/// Run the subcommand that was typed.
///
/// # Errors
///
/// Whatever kept the subcommand from its work; the caller prints it.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let usual = if matches!(cli.command, Command::Serve(_)) { "info" } else { "warn" };
    logging::init(cli.log.as_deref().unwrap_or(usual), cli.log_format)?;
    let mut config = Config::load(cli.config.as_deref())?;
    let mut out = stdout().lock();
    match cli.command {
        Command::Serve(arguments) => {
            drop(out);
            serve::run(config, &arguments)?;
        }
        Command::Check => check::run(config, &mut out)?,
        Command::Models(arguments) => models::run(&config, &arguments, &mut out)?,
        Command::Classify(arguments) => classify::run(config, &arguments, &mut out)?,
        Command::Moderate(arguments) => moderate::run(config, &arguments, &mut out)?,
        Command::Generate(arguments) => generate::run(&config, &arguments, &mut out)?,
        Command::Score(arguments) => score::run(&config, &arguments, &mut out)?,
        Command::Bench(arguments) => {
            config.components.clear();
            bench::run(config, &arguments, &mut out)?;
        }
    }
    stdout().flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The runtime that commands block on: as the server's.
fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads of the asynchronous runtime")?;
    let answer = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(answer)
}

/// Load what one command needs: the chosen component and its models.
fn load_component(mut config: Config, name: Option<&str>) -> anyhow::Result<App> {
    if let Some(name) = name {
        config.retain_components(|component| component == name);
    }
    App::load(config)
}

/// A request from the command line.
fn request(app: &App) -> infer_sandbox::Request {
    infer_sandbox::Request {
        id: Arc::from("command-line"),
        deadline: Instant::now() + app.config.server.deadline,
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))
}
