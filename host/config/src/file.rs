//! The sections of infer.toml as they are parsed. Unknown keys are rejected.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::table::{ApiKey, Chat, Component, Model, Server, Upstream};

/// A parsed infer.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    #[serde(default)]
    pub(crate) server: Server,
    #[serde(default)]
    pub(crate) keys: BTreeMap<String, ApiKey>,
    #[serde(default)]
    pub(crate) chat: Chat,
    #[serde(default)]
    pub(crate) models: BTreeMap<String, Model>,
    #[serde(default)]
    pub(crate) components: BTreeMap<String, Component>,
    #[serde(default)]
    pub(crate) upstreams: BTreeMap<String, Upstream>,
}
