//! The program: parse, run the subcommand, print the error chain once.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use clap::Parser as _;
mod cli;
mod commands;
mod logging;
mod printed;

use cli::Cli;
use infer_config::ConfigError;
use infer_control::reclaim::one_heap;
use infer_engine::text::printable;

/// Tensors of a megabyte come and go with every request: this allocator keeps their pages, where
/// the system's returns them and takes a page fault for each again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    one_heap();
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
            // As for arguments, which clap refuses with the same code: 2 is the operator's to mend.
            ExitCode::from(if error.downcast_ref::<ConfigError>().is_some() { 2 } else { 1 })
        }
    }
}

/// Whoever read our output has seen enough, as `head` does: no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(broken))
}
