//! `infer lock`: pin every model and component of the configuration by its hash.

use std::io::Write;

use anyhow::Context as _;

use crate::app::{component_bytes, component_hash};
use crate::config::Config;
use crate::lock::{self, Pin, Pins};
use crate::weights::{self, Reuse};

pub(super) fn run(config: &Config, out: &mut impl Write) -> anyhow::Result<()> {
    let mut pins = Pins::default();
    for (name, model) in &config.models {
        // Every file is hashed anew: what is pinned is what is there.
        let reuse = if model.reuse == Reuse::Off { Reuse::Off } else { Reuse::Packed };
        let weights = weights::load(&model.source, reuse);
        let weights = weights.with_context(|| format!("{}: model `{name}`", model.at))?;
        let pin = Pin { source: model.source.to_string(), sha256: weights.hash().to_owned() };
        pins.models.insert(name.clone(), pin);
    }
    for (name, component) in &config.components {
        let bytes = component_bytes(name, &component.source).with_context(|| component.at.to_string())?;
        let pin = Pin { source: component.source.to_string(), sha256: component_hash(&bytes) };
        pins.components.insert(name.clone(), pin);
    }
    let path = lock::write(&config.origin, &pins)?;
    let (models, components) = (pins.models.len(), pins.components.len());
    writeln!(out, "`{}` pins {models} models and {components} components", path.display())?;
    Ok(())
}
