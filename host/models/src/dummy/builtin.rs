//! `builtin:phi3-dummy`: a dummy model with a card, in the cache folder.

use std::path::PathBuf;

use anyhow::Context as _;

use super::file::{Written, write};
use super::mix::Mix;
use super::sizes::Model;
use crate::{builtin, disk, weights};

/// Writes `builtin:phi3-dummy` with its card into the cache folder.
///
/// # Errors
///
/// If there is no cache folder, or it cannot be written.
pub fn builtin_phi3(mix: Mix, seed: u64) -> anyhow::Result<(PathBuf, Written)> {
    let folder = weights::folder(builtin::PHI3_DUMMY).context(builtin::NO_CACHE)?;
    let name = format!("{}-{}.gguf", builtin::PHI3_DUMMY, mix.name());
    let path = folder.join(&name);
    let written = write(&path, Model::Phi3, mix, seed)?;
    let place = folder.join("card.toml");
    disk::replace(&place, &card(mix, seed, &name, &written))
        .with_context(|| format!("cannot write `{}`", place.display()))?;
    Ok((path, written))
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
