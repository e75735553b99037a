//! The program: parses the arguments, runs the subcommand, prints the error chain once.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use clap::Parser as _;
mod cli;
mod commands;
mod limits;
mod logging;
mod printed;

use cli::Cli;
use infer_config::ConfigError;
use infer_control::reclaim::use_one_heap;
use infer_engine::text::printable;
use infer_models::import::NotExported;

/// Every request allocates and frees tensors of a megabyte. mimalloc retains these pages; the
/// system's allocator returns them and takes page faults at each allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    use_one_heap();
    let cli = Cli::parse();
    let done = commands::run(cli);
    let error = done.as_ref().err().filter(|error| !is_broken_pipe(error));
    // The chain quotes files, whose text may contain control characters.
    let line = error.map(|error| printable(&format!("error: {error:#}")).into_owned());
    logging::last(line.as_ref().map(|line| line as &dyn Display));
    match done {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // As for invalid arguments, where clap exits with 2: the operator must fix the input.
            let is_input = error.is::<ConfigError>() || error.is::<NotExported>();
            ExitCode::from(if is_input { 2 } else { 1 })
        }
    }
}

/// True if the reader closed standard output, as `head` does. That is not a failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(broken))
}
