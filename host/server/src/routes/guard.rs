//! Guards of chats: a moderator judges turns before the model reads them, and an answer before the
//! client does.
//!
//! # Layout
//!
//! - `judge`: judges one text
//! - `turns`: the turns of a request, and those that were judged before
//! - `window`: the end of an answer that is held back
//! - `answer`: an answer while it is written

pub(super) mod answer;
mod judge;
pub(super) mod turns;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use infer_config::{BlockedInput, GuardConfig, OnFlag};
use infer_control::registry::Registry;
pub(super) use judge::Flag;
use judge::Judge;
use serde::Serialize;
use tracing::info;
use turns::{Seen, Turn};
use utoipa::ToSchema;
pub(super) use window::Piece;

use crate::error::ApiError;

/// The guards of all chats.
pub(super) struct Guards {
    models: BTreeMap<String, Arc<Guard>>,
    upstreams: BTreeMap<String, Arc<Guard>>,
}

/// The guard of a chat model or of an upstream.
pub(super) struct Guard {
    config: Arc<GuardConfig>,
    input: Option<Judge>,
    output: Option<Judge>,
    seen: Seen,
}

/// Input that the model may read, or a response in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The turns are clean, or their flags do not stop them.
    Read(Vec<Remark>),
    /// The request gets the refusal as its answer.
    Refuse(Remark),
}

/// Remark of a guard in a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = GuardRemark)]
pub(super) struct Remark {
    /// `input` or `output`.
    stage: &'static str,
    /// The effect: `block`, `stop`, `redact` or `annotate`.
    action: &'static str,
    /// The flagged categories, the highest score first.
    categories: Vec<String>,
}

impl Guards {
    pub(super) fn new(registry: &Registry) -> Self {
        let judge = |name: &Option<String>, config: &Arc<GuardConfig>| {
            let moderator = registry.components.get(name.as_ref()?)?.clone();
            Some(Judge { moderator, config: config.clone() })
        };
        let guard = |name: &String, config: Option<&GuardConfig>| {
            let config = Arc::new(config?.clone());
            let (input, output) = (judge(&config.input, &config), judge(&config.output, &config));
            Some((name.clone(), Arc::new(Guard { config, input, output, seen: Seen::default() })))
        };
        let guards = &registry.config.guards;
        let (models, upstreams) = (registry.models.keys(), registry.config.upstreams.keys());
        Guards {
            models: models.filter_map(|name| guard(name, guards.of(name))).collect(),
            upstreams: upstreams.filter_map(|name| guard(name, guards.of_upstream(name))).collect(),
        }
    }

    /// The guard of the local `model`.
    pub(super) fn of(&self, model: &str) -> Option<&Arc<Guard>> {
        self.models.get(model)
    }

    /// The guard of the upstream `name`.
    pub(super) fn of_upstream(&self, name: &str) -> Option<&Arc<Guard>> {
        self.upstreams.get(name)
    }
}

impl Guard {
    /// Judges the `turns` of a request that were not judged before for `owner`. Redacts them, if
    /// the guard says so.
    ///
    /// # Errors
    ///
    /// If a turn is blocked and the guard responds with an error, or if the moderator fails; those
    /// of `turns`.
    pub(super) async fn admit<'t>(
        &self,
        turns: impl FnOnce() -> Result<Vec<Turn<'t>>, ApiError>,
        owner: &str,
        request: &infer_sandbox::Request,
    ) -> Result<Admission, ApiError> {
        let Some(judge) = &self.input else { return Ok(Admission::Read(Vec::new())) };
        let mut remarks = Vec::new();
        for turn in turns()?.into_iter().filter(|turn| self.config.judges_system || !turn.is_system()) {
            let (origin, text) = (turn.origin(), turn.text);
            let digest = turns::digest(origin, text);
            if self.seen.contains(owner, &digest) {
                continue;
            }
            let Some(flag) = judge.flag(text.clone(), origin, request).await? else {
                self.seen.insert(owner, digest);
                continue;
            };
            let action = match self.config.on_flag {
                OnFlag::Stop => OnFlag::Block,
                action => action,
            };
            let remark = Remark::new("input", action, flag);
            match action {
                OnFlag::Block | OnFlag::Stop => {
                    return match self.config.blocked_input {
                        BlockedInput::Answer => Ok(Admission::Refuse(remark)),
                        BlockedInput::Error => Err(ApiError::content_policy(&remark.categories)),
                    };
                }
                OnFlag::Redact => text.clone_from(&self.config.redaction),
                OnFlag::Annotate => {}
            }
            remarks.push(remark);
        }
        Ok(Admission::Read(remarks))
    }

    /// True if answers are judged.
    pub(super) fn judges_answers(&self) -> bool {
        self.output.is_some()
    }

    /// The answer to a blocked request.
    pub(super) fn refusal(&self) -> &str {
        &self.config.refusal
    }

    /// The text in the place of flagged text.
    pub(super) fn redaction(&self) -> &str {
        &self.config.redaction
    }

    /// True if the refusal replaces a blocked answer, false if the answer just ends.
    pub(super) fn refuses(&self) -> bool {
        self.config.on_flag == OnFlag::Block
    }

    /// Remembers a clean `answer`, so that it is not judged as a turn of the next request. Only if
    /// the same moderator judges both.
    fn remember(&self, owner: &str, answer: &str) {
        let is_same = |input: &Judge| {
            self.output.as_ref().is_some_and(|output| Arc::ptr_eq(&input.moderator, &output.moderator))
        };
        if self.input.as_ref().is_some_and(is_same) {
            self.seen.insert(owner, turns::digest(judge::Origin::Turn, answer));
        }
    }

    /// The remark on a flagged answer.
    fn remark(&self, flag: Flag) -> Remark {
        Remark::new("output", self.config.on_flag, flag)
    }
}

impl Remark {
    fn new(stage: &'static str, action: OnFlag, Flag { categories }: Flag) -> Self {
        let action = action.name();
        info!(stage, categories = categories.join(", "), "{action}");
        Remark { stage, action, categories }
    }
}
