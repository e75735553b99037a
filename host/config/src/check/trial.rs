//! Checks the next versions of models.

use toml::Spanned;

use super::Checker;
use crate::config::ModelConfig;
use crate::file;
use crate::place::{Mistake, Place};
use crate::trial::{Next, Trial};

/// Default tolerance of a shadow: probabilities that differ by less seldom lead to another
/// decision.
const TOLERANCE: f64 = 0.05;

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

    /// Rejects a second canary: the requests would be divided between four combinations of
    /// versions.
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
            self.mistakes.push(Mistake { at: next.at.clone(), message });
        }
    }
}
