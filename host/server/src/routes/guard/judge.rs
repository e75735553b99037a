//! Judges one text of a chat by a moderator, on a fresh instance.

use std::sync::Arc;
use std::time::Instant;

use infer_config::{GuardConfig, OnError};
use infer_control::registry::LoadedComponent;
use infer_sandbox::types::{Part, Verdict};
use tracing::warn;

use crate::error::ApiError;

/// The category of instructions in a text that is only to be read.
const PROMPT_INJECTION: &str = "prompt-injection";

/// Categories of a text that count as flagged, the highest score first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flag {
    pub(crate) categories: Vec<String>,
}

/// Origin of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A person or the model.
    Turn,
    /// The result of a tool, which must not contain instructions.
    Tool,
}

/// A moderator with the guard's settings.
#[derive(Clone)]
pub(super) struct Judge {
    pub(super) moderator: Arc<LoadedComponent>,
    pub(super) config: Arc<GuardConfig>,
}

impl Judge {
    /// Returns the categories that flag `text`, if any. Counts the judgement in the metrics.
    ///
    /// # Errors
    ///
    /// If the moderator fails or judges nothing, unless the guard then allows the text.
    pub(super) async fn flag(
        &self,
        text: String,
        origin: Origin,
        request: &infer_sandbox::Request,
    ) -> Result<Option<Flag>, ApiError> {
        if text.trim().is_empty() {
            return Ok(None);
        }
        let began = Instant::now();
        let outcome = self.moderator.moderate(request, &[Part::Text(text)]).await;
        let judged = match outcome.result {
            Ok(verdict) if verdict.scores.is_empty() => {
                Err(ApiError::unjudged(self.moderator.component.name()))
            }
            Ok(verdict) => Ok(self.flagged(&verdict, origin)),
            Err(error) => Err(ApiError::from(error)),
        };
        let categories = judged.as_ref().map(|flag| flag.as_ref().map_or(&[][..], |flag| &flag.categories));
        self.moderator.calls.guarded(began.elapsed(), categories.ok());
        match (judged, self.config.on_error) {
            (Err(error), OnError::Allow) => {
                warn!(component = self.moderator.component.name(), "text of a chat not judged: {error}");
                Ok(None)
            }
            (judged, _) => judged,
        }
    }

    /// Applies the guard's categories and thresholds.
    fn flagged(&self, verdict: &Verdict, origin: Origin) -> Option<Flag> {
        let GuardConfig { categories, thresholds, .. } = &*self.config;
        let counts = |category: &str| match categories {
            _ if category == PROMPT_INJECTION && origin == Origin::Tool => true,
            Some(categories) => categories.contains(category),
            None => category != PROMPT_INJECTION,
        };
        let mut flagged: Vec<_> = verdict
            .scores
            .iter()
            .filter(|score| counts(&score.category))
            .filter(|score| match thresholds.get(&score.category) {
                Some(&threshold) => score.score >= threshold,
                None => score.flagged,
            })
            .collect();
        flagged.sort_by(|one, other| other.score.total_cmp(&one.score));
        let categories: Vec<_> = flagged.into_iter().map(|score| score.category.clone()).collect();
        (!categories.is_empty()).then_some(Flag { categories })
    }
}
