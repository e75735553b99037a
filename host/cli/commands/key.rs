//! `infer key`: API keys; the server stores only their hashes.

use std::io::Write;

use anyhow::Context as _;
use infer_config::keys;

use crate::cli::{Key, KeyCommand};

pub(super) fn run(arguments: &Key, out: &mut impl Write) -> anyhow::Result<()> {
    let KeyCommand::New { name } = &arguments.command;
    let (key, hash) = keys::generate().context("the system provides no random numbers")?;
    writeln!(out, "# The key, shown only once; clients send `Authorization: Bearer KEY`:")?;
    writeln!(out, "# {key}")?;
    writeln!(out, "\n[keys.{name}]\nhash = \"{hash}\"")?;
    Ok(())
}
