//! Selection of the judging component: the route's own, or the one that the request names.

use std::collections::BTreeMap;
use std::sync::Arc;

use infer_control::registry::{LoadedComponent, Registry};
use infer_engine::text::names;
use infer_sandbox::World;
use tracing::warn;

use crate::error::ApiError;

/// OpenAI's moderation model names, which its clients send: they select the default component.
const OPENAI_MODELS: [&str; 5] = [
    "omni-moderation-latest",
    "omni-moderation-2024-09-26",
    "text-moderation-latest",
    "text-moderation-stable",
    "text-moderation-007",
];

/// Route of the default component.
const DEFAULT_ROUTE: &str = "/moderate";

/// The components that a request may select.
#[derive(Clone)]
pub(crate) enum Choice {
    /// The route's own component, whatever the request names.
    One(Arc<LoadedComponent>),
    /// Selected by name.
    Named(Arc<Moderators>),
}

/// All moderators with a route, by name and alias.
pub(crate) struct Moderators {
    by_name: BTreeMap<String, Arc<LoadedComponent>>,
    default: Option<Arc<LoadedComponent>>,
}

impl Moderators {
    /// Collects the moderators of `registry` that have a route; the others are reachable from the
    /// command line only.
    pub(crate) fn new(registry: &Registry) -> Self {
        let served: BTreeMap<_, _> = registry
            .components
            .iter()
            .filter(|(_, loaded)| loaded.component.world() == World::Moderator && loaded.route.is_some())
            .map(|(name, loaded)| (name.clone(), loaded.clone()))
            .collect();
        let mounted = served.values().find(|loaded| loaded.route.as_deref() == Some(DEFAULT_ROUTE));
        let default = mounted.or_else(|| served.values().next().filter(|_| served.len() == 1)).cloned();
        let mut by_name = served.clone();
        for name in OPENAI_MODELS {
            if let Some(default) = &default {
                by_name.entry(name.to_owned()).or_insert_with(|| default.clone());
            }
        }
        for (alias, component) in &registry.config.server.aliases {
            match served.get(component) {
                Some(loaded) => {
                    by_name.insert(alias.clone(), loaded.clone());
                }
                None => {
                    warn!(alias, component, "alias ignored: its component is not a moderator with a route");
                }
            }
        }
        Moderators { by_name, default }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

impl Choice {
    /// Looks up the component that `model` selects.
    ///
    /// # Errors
    ///
    /// 404 for an unknown name, and for a missing name if there is no default.
    pub(crate) fn component(&self, model: Option<&str>) -> Result<&Arc<LoadedComponent>, ApiError> {
        let moderators = match self {
            Choice::One(loaded) => return Ok(loaded),
            Choice::Named(moderators) => moderators,
        };
        let found = match model {
            Some(name) => moderators.by_name.get(name),
            None => moderators.default.as_ref(),
        };
        found.ok_or_else(|| ApiError::no_moderator(model, &names(moderators.by_name.keys())))
    }
}
