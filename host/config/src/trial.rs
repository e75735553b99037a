//! `next` of a model: a second version that is tried beside it.

use toml::Spanned;

use super::check::Checker;
use crate::{Config, ModelConfig, Place, file};
use infer_models::source::Source;

/// A model's next version.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// Where it is configured.
    pub at: Place,
    /// Its weights.
    pub source: Source,
    /// How it is tried.
    pub trial: Trial,
}

/// How a next version is tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trial {
    /// It answers so many requests of a hundred.
    Canary {
        /// More than 0, at most 100.
        percent: f64,
    },
    /// It is asked what the model is asked, and its answers are only compared.
    Shadow {
        /// By how much two values may differ without being counted.
        tolerance: f64,
    },
}

/// The tolerance of a shadow where none is typed: probabilities that differ by so little seldom
/// decide otherwise.
const TOLERANCE: f64 = 0.05;

impl ModelConfig {
    /// The next version, as a model of its own.
    #[must_use]
    pub fn next_version(&self) -> Option<ModelConfig> {
        let Next { at, source, trial: _ } = self.next.clone()?;
        Some(ModelConfig { at, source, next: None, previous: None, ..self.clone() })
    }
}

impl Config {
    /// Every model, and every next version of one: its name, and what is loaded for it.
    pub fn versions(&self) -> impl Iterator<Item = (&String, ModelConfig)> {
        self.models.iter().flat_map(|(name, model)| {
            let current = ModelConfig { next: None, previous: None, ..model.clone() };
            [Some(current), model.next_version()].into_iter().flatten().map(move |version| (name, version))
        })
    }

    /// The model that has a canary, how many requests of a hundred that answers, and the
    /// configuration by which it does.
    #[must_use]
    pub fn canary(&self) -> Option<(String, f64, Config)> {
        let (name, percent) =
            self.models.iter().find_map(|(name, model)| match model.next.as_ref()?.trial {
                Trial::Canary { percent } => Some((name.clone(), percent)),
                Trial::Shadow { .. } => None,
            })?;
        let mut config = self.clone();
        config.lock = config.lock.map(|lock| lock.of_next(&name));
        for (other, model) in &mut config.models {
            let next = model.next_version().filter(|_| *other == name);
            *model = next.unwrap_or_else(|| ModelConfig { next: None, previous: None, ..model.clone() });
        }
        Some((name, percent, config))
    }

    /// Without the models' next versions: what a command needs that asks once.
    pub fn drop_trials(&mut self) {
        self.models.values_mut().for_each(|model| model.next = None);
    }
}

impl<P: Fn(usize) -> Place> Checker<'_, P> {
    pub(super) fn next(&mut self, name: &str, next: &file::Next) -> Next {
        let subject = format!("model `{name}`: `next`");
        let offset = next.source.span().start;
        let source = self.model_source(&subject, &next.source);
        let mut within = |key: &str, typed: &Option<Spanned<f64>>, most: f64| {
            let typed = typed.as_ref()?;
            let value = *typed.get_ref();
            if !(value > 0.0 && value <= most) {
                let message = format!("{subject}: `{key}` is {value}, expected more than 0, at most {most}");
                self.mistake(typed.span().start, message);
            }
            Some(value)
        };
        let percent = within("percent", &next.percent, 100.0);
        let tolerance = within("tolerance", &next.tolerance, f64::MAX);
        let trial = match (percent, next.shadow.unwrap_or(false)) {
            (Some(percent), false) if tolerance.is_none() => Trial::Canary { percent },
            (None, true) => Trial::Shadow { tolerance: tolerance.unwrap_or(TOLERANCE) },
            _ => {
                let message = format!(
                    "{subject}: expected either `percent`, the requests of a hundred that it answers, or `shadow = true`, perhaps with \
                     `tolerance`"
                );
                self.mistake(offset, message);
                Trial::Shadow { tolerance: TOLERANCE }
            }
        };
        Next { at: (self.place)(offset), source, trial }
    }

    /// A request's answer is of one version of everything; with two canaries it would be one of
    /// four.
    pub(super) fn one_canary(&mut self, models: &std::collections::BTreeMap<String, ModelConfig>) {
        let is_canary = |next: &&Next| matches!(next.trial, Trial::Canary { .. });
        let named = models
            .iter()
            .filter_map(|(name, model)| model.next.as_ref().filter(is_canary).map(|next| (name, next)));
        let canaries: Vec<_> = named.collect();
        if let [(first, _), (second, next), ..] = canaries.as_slice() {
            let message = format!(
                "model `{second}`: `next` has a `percent`, and so has that of `{first}`: one model has a canary at a time; try the other in \
                 the shadow (`shadow = true`), or later"
            );
            self.mistakes.push(super::Mistake { at: next.at.clone(), message });
        }
    }
}
