//! `infer lock`: pin every model and component of the configuration by its hash.

use std::io::Write;

use anyhow::Context as _;
use infer_config::lock::{Pin, Pins};
use infer_config::{Config, ModelConfig, lock};
use infer_control::component::{component_bytes, component_hash};
use infer_models::weights;
use infer_models::weights::Reuse;

pub(super) fn run(config: &Config, out: &mut impl Write) -> anyhow::Result<()> {
    let pins = pins(config)?;
    let path = lock::write(&config.origin, &pins)?;
    let (models, components) = (pins.models.len() + pins.next.len(), pins.components.len());
    writeln!(out, "`{}` pins {models} models and {components} components", path.display())?;
    Ok(())
}

/// The text of the lock file for `config`.
pub(super) fn text(config: &Config) -> anyhow::Result<String> {
    lock::text(&pins(config)?)
}

fn pins(config: &Config) -> anyhow::Result<Pins> {
    let mut pins = Pins::default();
    for (name, model) in &config.models {
        pins.models.insert(name.clone(), pin(name, model)?);
        if let Some(next) = model.next_version() {
            pins.next.insert(name.clone(), pin(name, &next)?);
        }
    }
    for (name, component) in &config.components {
        let bytes = component_bytes(name, &component.source).with_context(|| component.at.to_string())?;
        let pin = Pin { source: component.source.to_string(), sha256: component_hash(&bytes) };
        pins.components.insert(name.clone(), pin);
    }
    Ok(pins)
}

/// Hashes every file again, so that the pin matches the files on disk.
fn pin(name: &str, model: &ModelConfig) -> anyhow::Result<Pin> {
    let reuse = if model.reuse == Reuse::Off { Reuse::Off } else { Reuse::Packed };
    let weights = weights::load(&model.source, &model.heads, reuse);
    let weights = weights.with_context(|| format!("{}: model `{name}`", model.at))?;
    Ok(Pin { source: model.source.to_string(), sha256: weights.hash().to_owned() })
}
