//! `infer dummy`: write a model of random weights and, where it is a built-in one, its card.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::builtin;
use crate::cli::{Architecture, Dummy};
use crate::disk;
use crate::dummy::{self, Mix, Written};
use crate::weights;

pub(super) fn run(arguments: &Dummy, out: &mut impl Write) -> anyhow::Result<()> {
    let Architecture::Phi3 = arguments.model;
    if let Some(path) = &arguments.output {
        let written = dummy::phi3(path, arguments.mix, arguments.seed)?;
        return report(path, &written, &path.display().to_string(), out);
    }
    let (path, written) = write_phi3(arguments.mix, arguments.seed)?;
    report(&path, &written, &format!("builtin:{}", builtin::PHI3_DUMMY), out)
}

/// Write `builtin:phi3-dummy`, card and all, into the cache folder.
pub(super) fn write_phi3(mix: Mix, seed: u64) -> anyhow::Result<(PathBuf, Written)> {
    let folder = weights::folder(builtin::PHI3_DUMMY).context(builtin::NO_CACHE)?;
    let name = format!("{}-{}.gguf", builtin::PHI3_DUMMY, mix.name());
    let path = folder.join(&name);
    let written = dummy::phi3(&path, mix, seed)?;
    let place = folder.join("card.toml");
    disk::replace(&place, &card(mix, seed, &name, &written))
        .with_context(|| format!("cannot write `{}`", place.display()))?;
    Ok((path, written))
}

fn report(path: &Path, written: &Written, source: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let Written { bytes, sha256 } = written;
    writeln!(out, "DUMMY: `{}` has random weights, {bytes} bytes, sha256 {sha256}", path.display())?;
    writeln!(out, "a configuration uses it with `source = \"{source}\"`")?;
    Ok(())
}

fn card(mix: Mix, seed: u64, file: &str, Written { bytes, sha256 }: &Written) -> String {
    format!(
        r#"name = "{}"
task = "text-generation"
format = "gguf"
description = "DUMMY: Phi-3 Mini 4k with random weights and the real vocabulary, for sizing a machine"
license = "MIT"
source = "infer dummy phi3 --type {} --seed {}"

[[files]]
path = "{file}"
role = "model"
bytes = {bytes}
sha256 = "{sha256}"
"#,
        builtin::PHI3_DUMMY,
        mix.name(),
        seed,
    )
}
