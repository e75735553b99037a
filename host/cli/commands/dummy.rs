//! `infer dummy`: write a model with random weights and, for a built-in model, its card.

use std::io::Write;
use std::path::Path;

use anyhow::ensure;
use infer_models::dummy::{Model, Written};
use infer_models::{builtin, dummy};

use crate::cli::Dummy;

pub(super) fn run(arguments: &Dummy, out: &mut impl Write) -> anyhow::Result<()> {
    if let Some(path) = &arguments.output {
        let written = dummy::write(path, arguments.model, arguments.mix, arguments.seed)?;
        return report(path, &written, &path.display().to_string(), out);
    }
    ensure!(
        arguments.model == Model::Phi3,
        "only `phi3` has a place in the cache folder; name a file with `--output FILE`"
    );
    let (path, written) = dummy::builtin_phi3(arguments.mix, arguments.seed)?;
    report(&path, &written, &format!("builtin:{}", builtin::PHI3_DUMMY), out)
}

fn report(path: &Path, written: &Written, source: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let Written { bytes, sha256 } = written;
    writeln!(out, "DUMMY: `{}` has random weights, {bytes} bytes, sha256 {sha256}", path.display())?;
    writeln!(out, "a configuration uses it with `source = \"{source}\"`")?;
    Ok(())
}
