//! Two versions of a model at once: what is loaded of each, and how they compare.

use std::time::{SystemTime, UNIX_EPOCH};

use infer_config::Trial;
use infer_engine::{Comparison, Mirror};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::registry::{App, Canary, LoadedComponent, Tally, Version};

/// How a model and its next version compare.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Versions {
    /// The model's name in the configuration.
    pub model: String,
    /// What the configuration says now.
    pub current: VersionInfo,
    /// What is tried.
    pub next: VersionInfo,
    /// How it is tried, and what came of it.
    pub trial: Compared,
}

/// One version.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ToldVersion)]
pub struct VersionInfo {
    /// Where it was loaded from.
    pub source: String,
    /// SHA-256 over its card and files.
    pub hash: String,
    /// Jobs that it has computed since it was loaded.
    pub computed: u64,
    /// Jobs that failed.
    pub failed: u64,
}

/// What came of a trial.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Compared {
    /// It answers a share of the requests.
    Canary {
        /// Of a hundred.
        percent: f64,
        /// The components that use it, since the trial began.
        components: Vec<Calls>,
    },
    /// It is asked the same, and compared.
    Shadow {
        /// By how much two values may differ.
        tolerance: f64,
        /// Answers of both that were compared.
        compared: u64,
        /// Of these, those that differ by more, or decide otherwise.
        disagreed: u64,
        /// Requests that the next version did not answer.
        failed: u64,
        /// Answers that were not compared, for too many waited.
        skipped: u64,
        /// The largest difference of two values.
        largest_difference: f64,
        /// The latest disagreements, the oldest first.
        examples: Vec<Disagreement>,
    },
}

/// A component's calls with either version.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Calls {
    /// The component.
    pub component: String,
    /// With the model.
    pub current: Tally,
    /// With its next version.
    pub next: Tally,
}

/// A request that two versions answered differently; what it said is not kept.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Disagreement {
    /// Keyed hash of the input tensors: equal inputs have equal ones, for as long as the trial
    /// lasts.
    pub input_hash: String,
    /// The largest difference of two values; none where the answers are of different kinds.
    pub difference: Option<f64>,
    /// When it was found, in seconds since 1970.
    pub at: u64,
}

/// How the models of `app` that have a next version compare with it.
#[must_use]
pub fn compare(app: &App) -> Vec<Versions> {
    let told = |next: &Version<'_>| {
        let (name, config) = (next.name, app.config.models.get(next.name)?);
        let current = Version { name, config: config.clone(), model: app.models.get(name)? };
        let trial = match config.next.as_ref()?.trial {
            Trial::Canary { percent } => {
                Compared::Canary { percent, components: app.canary.as_ref()?.calls(app) }
            }
            Trial::Shadow { .. } => shadowed(app.shadows.get(name)?),
        };
        Some(Versions { model: name.to_owned(), current: current.info(), next: next.info(), trial })
    };
    app.next_versions().filter_map(|next| told(&next)).collect()
}

fn shadowed(mirror: &Mirror) -> Compared {
    let Comparison { compared, disagreed, failed, skipped, largest_difference, examples } =
        mirror.comparison();
    let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let examples = examples.into_iter().map(|example| Disagreement {
        input_hash: example.input,
        difference: Some(example.difference).filter(|difference| difference.is_finite()),
        at: seconds(example.at),
    });
    Compared::Shadow {
        tolerance: mirror.tolerance(),
        compared,
        disagreed,
        failed,
        skipped,
        largest_difference,
        examples: examples.collect(),
    }
}

impl Canary {
    fn calls(&self, current: &App) -> Vec<Calls> {
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
