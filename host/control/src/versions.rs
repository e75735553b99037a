//! Two versions of a model at once: what is loaded of each, and how they compare.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use infer_engine::{Card, Comparison, Mirror, Model};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::{App, LoadedComponent};
use infer_config::{ModelConfig, Trial};

/// A version of a model that is loaded.
pub struct Version<'a> {
    /// The model's name in the configuration.
    pub name: &'a str,
    /// What was loaded for it.
    pub config: ModelConfig,
    /// The version itself.
    pub model: &'a Arc<Model>,
}

/// A next version that answers a share of the requests: these are answered from an [`App`] of their
/// own, which shares with the other all but the model and the components that use it.
pub struct Canary {
    /// The model's name in the configuration.
    pub name: String,
    /// Requests of a hundred that it answers.
    pub percent: f64,
    /// What answers them.
    pub app: Arc<App>,
    drawn: AtomicU64,
    /// What components had answered when the trial began: with the model, and with its next
    /// version.
    began: Vec<(String, [Tally; 2])>,
}

/// Calls of a component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tally {
    /// Those that were answered.
    pub answered: u64,
    /// Of these, what a moderator flagged.
    pub flagged: u64,
    /// Those that were not.
    pub failed: u64,
}

/// A [`Tally`] that goes on.
#[derive(Debug, Default)]
pub struct Count {
    answered: AtomicU64,
    flagged: AtomicU64,
    failed: AtomicU64,
}

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

impl Canary {
    /// A trial that begins now, or goes on from `old` where that is the same.
    pub fn new(name: String, percent: f64, app: Arc<App>, current: &App, old: Option<&Canary>) -> Self {
        let began = old
            .filter(|old| old.name == name && Arc::ptr_eq(&old.app.models[&name], &app.models[&name]))
            .map(|old| old.began.clone());
        let mut canary = Canary { name, percent, app, drawn: AtomicU64::new(0), began: Vec::new() };
        canary.began = began.unwrap_or_else(|| {
            let pairs = canary.pairs(current);
            pairs.map(|(name, now, next)| (name.to_owned(), [now.count.read(), next.count.read()])).collect()
        });
        canary
    }

    /// Whether the next request is this one's.
    pub fn draws(&self) -> bool {
        // The sequence visits every part of the range alike, in no order that clients could keep
        // step with.
        let drawn = fastrand::Rng::with_seed(self.drawn.fetch_add(1, Ordering::Relaxed)).f64();
        drawn * 100.0 < self.percent
    }

    /// The components that use the model, with either version.
    fn pairs<'a>(
        &'a self,
        current: &'a App,
    ) -> impl Iterator<Item = (&'a str, &'a LoadedComponent, &'a LoadedComponent)> {
        current.components.iter().filter_map(|(name, policy)| {
            let next = self.app.components.get(name)?;
            (!Arc::ptr_eq(policy, next)).then_some((name.as_str(), &**policy, &**next))
        })
    }
}

impl Count {
    /// Count a call, and whether it was answered with a flag.
    pub(crate) fn called<E>(&self, flagged: &Result<bool, E>) {
        match flagged {
            Ok(flagged) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                self.flagged.fetch_add(u64::from(*flagged), Ordering::Relaxed);
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn read(&self) -> Tally {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally { answered: read(&self.answered), flagged: read(&self.flagged), failed: read(&self.failed) }
    }
}

impl Tally {
    fn since(self, began: Tally) -> Tally {
        Tally {
            answered: self.answered.saturating_sub(began.answered),
            flagged: self.flagged.saturating_sub(began.flagged),
            failed: self.failed.saturating_sub(began.failed),
        }
    }
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

/// That `next` takes and gives what `current` does, so that guests cannot tell them apart.
///
/// # Errors
///
/// What differs.
pub(crate) fn interchangeable(name: &str, current: &Card, next: &Card) -> anyhow::Result<()> {
    let differs = |what: &str, expected: String, found: String| {
        anyhow::bail!(
            "model `{name}`: the next version's {what} is {found}, expected {expected}, as the model's: guests that were made for one could not \
             use the other; configure it as a model of its own"
        )
    };
    if current.task != next.task || current.format != next.format {
        let told = |card: &Card| format!("{} ({:?})", card.task, card.format);
        return differs("task", told(current), told(next));
    }
    if current.inputs != next.inputs {
        return differs("input", format!("{:?}", current.inputs), format!("{:?}", next.inputs));
    }
    if current.outputs != next.outputs {
        return differs("output", format!("{:?}", current.outputs), format!("{:?}", next.outputs));
    }
    if current.labels != next.labels {
        return differs("labels", current.labels.join(", "), next.labels.join(", "));
    }
    Ok(())
}
