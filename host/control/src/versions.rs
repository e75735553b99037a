//! Compares a model with its next version.

use std::time::{SystemTime, UNIX_EPOCH};

use infer_config::Trial;
use infer_engine::{Comparison, Shadow};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::registry::{Canary, LoadedComponent, Registry, Tally, Version};

/// A model, its next version, and the outcome of the trial.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Versions {
    /// The model's name in the configuration.
    pub model: String,
    /// The version in use.
    pub current: VersionInfo,
    /// The version that is tried.
    pub next: VersionInfo,
    /// Kind and outcome of the trial.
    pub trial: Compared,
}

/// A version of a model.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VersionInfo {
    /// Source that it was loaded from.
    pub source: String,
    /// SHA-256 over its card and files.
    pub hash: String,
    /// Jobs that it has computed since it was loaded.
    pub computed: u64,
    /// Jobs that failed.
    pub failed: u64,
}

/// Outcome of a trial.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Compared {
    /// The next version answers a share of the requests.
    Canary {
        /// Share of the requests, in percent.
        percent: f64,
        /// Calls of the components that use it, since the trial began.
        components: Vec<Calls>,
    },
    /// The next version gets copies of the model's inputs, and its answers are only compared.
    Shadow {
        /// Largest difference of two values that counts as agreement.
        tolerance: f64,
        /// Inputs whose two answers were compared.
        compared: u64,
        /// Compared answers that differ by more than the tolerance, or lead to another decision.
        disagreed: u64,
        /// Inputs that the next version failed to answer.
        failed: u64,
        /// Inputs that were skipped because the shadow queue was full.
        skipped: u64,
        /// Largest difference of two values.
        largest_difference: f64,
        /// The latest disagreements, oldest first.
        examples: Vec<Disagreement>,
    },
}

/// Calls of a component with either version.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Calls {
    /// Name of the component.
    pub component: String,
    /// Calls with the model.
    pub current: Tally,
    /// Calls with its next version.
    pub next: Tally,
}

/// An input that two versions answered differently; its content is not stored.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Disagreement {
    /// Keyed hash of the input tensors: equal for equal inputs during one trial.
    pub input_hash: String,
    /// Largest difference of two values; `None` if the answers have different types or shapes.
    pub difference: Option<f64>,
    /// Time of the comparison, in seconds since 1970.
    pub at: u64,
}

/// Compares the models of `registry` that have a next version with it.
#[must_use]
pub fn compare(registry: &Registry) -> Vec<Versions> {
    let describe = |next: &Version<'_>| {
        let (name, config) = (next.name, registry.config.models.get(next.name)?);
        let current = Version { name, config: config.clone(), model: registry.models.get(name)? };
        let trial = match config.next.as_ref()?.trial {
            Trial::Canary { percent } => {
                Compared::Canary { percent, components: registry.canary.as_ref()?.calls(registry) }
            }
            Trial::Shadow { .. } => shadowed(registry.shadows.get(name)?),
        };
        Some(Versions { model: name.to_owned(), current: current.info(), next: next.info(), trial })
    };
    registry.next_versions().filter_map(|next| describe(&next)).collect()
}

fn shadowed(shadow: &Shadow) -> Compared {
    let Comparison { compared, disagreed, failed, skipped, largest_difference, examples } =
        shadow.comparison();
    let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let examples = examples.into_iter().map(|example| Disagreement {
        input_hash: example.input,
        difference: Some(example.difference).filter(|difference| difference.is_finite()),
        at: seconds(example.at),
    });
    Compared::Shadow {
        tolerance: shadow.tolerance(),
        compared,
        disagreed,
        failed,
        skipped,
        largest_difference,
        examples: examples.collect(),
    }
}

impl Canary {
    fn calls(&self, current: &Registry) -> Vec<Calls> {
        let since = |name: &str, now: &LoadedComponent, next: &LoadedComponent| {
            let began = self.began.iter().find(|(began, _)| began == name);
            let [one, other] = began.map_or_else(Default::default, |(_, began)| *began);
            Calls {
                component: name.to_owned(),
                current: now.count.read().since(one),
                next: next.count.read().since(other),
            }
        };
        self.pairs(current).map(|(name, now, next)| since(name, now, next)).collect()
    }
}

impl Version<'_> {
    fn info(&self) -> VersionInfo {
        let stats = self.model.stats();
        VersionInfo {
            source: self.config.source.to_string(),
            hash: self.model.hash().to_owned(),
            computed: stats.computed,
            failed: stats.failed,
        }
    }
}
