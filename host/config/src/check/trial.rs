//! Checks the next versions of models.

use std::collections::BTreeMap;

use super::Checker;
use crate::config::ModelConfig;
use crate::place::{Mistake, Place};
use crate::table;
use crate::trial::{Next, Trial};

impl<P: Fn(usize) -> Place> Checker<'_, P> {
    pub(super) fn next(&mut self, name: &str, next: &table::Next) -> Next {
        let subject = format!("model `{name}`: `next`");
        let offset = next.source.span().start;
        let source = self.model_source(&subject, &next.source);
        let prefix = format!("{subject}: ");
        let percent = self.real(&prefix, next.percent());
        let tolerance = self.real(&prefix, next.tolerance());
        let default_tolerance = next.tolerance().key.real();
        let trial = match (percent, next.shadow().flag()) {
            (Some(percent), false) if tolerance.is_none() => Trial::Canary { percent },
            (None, true) => Trial::Shadow { tolerance: tolerance.unwrap_or(default_tolerance) },
            _ => {
                let message = format!(
                    "{subject}: expected either `percent`, the share of requests that it answers, or `shadow = true`, \
                     optionally with `tolerance`"
                );
                self.mistake(offset, message);
                Trial::Shadow { tolerance: default_tolerance }
            }
        };
        Next { at: (self.place)(offset), source, trial }
    }

    /// Rejects a second canary: the requests would be divided between four combinations of
    /// versions.
    pub(super) fn one_canary(&mut self, models: &BTreeMap<String, ModelConfig>) {
        let is_canary = |next: &&Next| matches!(next.trial, Trial::Canary { .. });
        let with_canary =
            models.iter().filter_map(|(name, model)| Some((name, model.next.as_ref().filter(is_canary)?)));
        let canaries: Vec<_> = with_canary.collect();
        if let [(first, _), (second, next), ..] = canaries.as_slice() {
            let message = format!(
                "model `{second}`: `next.percent` makes a second canary beside that of `{first}`: one model has a canary \
                 at a time; use `shadow = true`, or try it later"
            );
            self.mistakes.push(Mistake { at: next.at.clone(), message });
        }
    }
}
