//! Shared by `infer moderate` and `infer classify`: loading one component, the request, and files.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use infer_config::Config;
use infer_control::registry::Registry;
use infer_engine::files;
use infer_engine::text::names;

use crate::limits::MAX_IMAGE_BYTES;

/// Loads the chosen component and its models.
pub(super) fn load_component(mut config: Config, name: Option<&str>) -> anyhow::Result<Registry> {
    if let Some(name) = name {
        if !config.components.contains_key(name) {
            let known = names(config.components.keys());
            bail!("no component `{name}` in {}; expected one of {known}", config.origin);
        }
        config.retain_components(|component| component == name);
    }
    Registry::load(config)
}

/// A request from the command line.
pub(super) fn request(registry: &Registry) -> infer_sandbox::Request {
    infer_sandbox::Request::new(Arc::from("command-line"), Instant::now() + registry.config.server.deadline)
}

pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    files::read(path, MAX_IMAGE_BYTES).with_context(|| format!("cannot read `{}`", path.display()))
}
