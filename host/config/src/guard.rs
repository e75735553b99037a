//! `[chat.guard]` and `[models.NAME.guard]`: moderators in front of and behind a chat model.

use std::collections::{BTreeMap, BTreeSet};

/// Moderators that judge what a chat model reads and writes.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardConfig {
    /// The moderator that judges turns before the model reads them.
    pub input: Option<String>,
    /// The moderator that judges an answer before the client reads it.
    pub output: Option<String>,
    /// Judges system prompts, too.
    pub judges_system: bool,
    /// The part of an answer that is judged at a time.
    pub windows: Windows,
    /// Effect of a flag.
    pub on_flag: OnFlag,
    /// Effect of a moderator that fails.
    pub on_error: OnError,
    /// Response to a request whose input is blocked.
    pub blocked_input: BlockedInput,
    /// Text that replaces a blocked answer.
    pub refusal: String,
    /// Text that replaces flagged text, with [`OnFlag::Redact`].
    pub redaction: String,
    /// Categories whose flags count; `None` for all.
    pub categories: Option<BTreeSet<String>>,
    /// Scores from which categories are flagged, instead of the moderator's own thresholds.
    pub thresholds: BTreeMap<String, f32>,
}

/// Numbers of tokens, of an answer that is judged while it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Tokens that must follow a text before it is sent.
    pub hold_back: usize,
    /// New tokens after which the answer is judged again.
    pub stride: usize,
    /// Last tokens that are judged together; more if more were not sent.
    pub window: usize,
}

/// Effect of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFlag {
    /// The request is refused, or its answer ends with the refusal.
    Block,
    /// The answer ends before the flagged text.
    Stop,
    /// The flagged text is replaced.
    Redact,
    /// The text is sent, with the flagged categories beside it.
    Annotate,
}

/// Effect of a moderator that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The request fails.
    Block,
    /// The text is sent without a verdict.
    Allow,
}

/// Response to a request whose input is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockedInput {
    /// 200, with the refusal as the answer.
    Answer,
    /// 400, `content_policy_violation`.
    Error,
}

impl OnFlag {
    /// All effects.
    pub const ALL: [OnFlag; 4] = [OnFlag::Block, OnFlag::Stop, OnFlag::Redact, OnFlag::Annotate];

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            OnFlag::Block => "block",
            OnFlag::Stop => "stop",
            OnFlag::Redact => "redact",
            OnFlag::Annotate => "annotate",
        }
    }
}

impl OnError {
    /// All effects.
    pub const ALL: [OnError; 2] = [OnError::Block, OnError::Allow];

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            OnError::Block => "block",
            OnError::Allow => "allow",
        }
    }
}

impl BlockedInput {
    /// All responses.
    pub const ALL: [BlockedInput; 2] = [BlockedInput::Answer, BlockedInput::Error];

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            BlockedInput::Answer => "answer",
            BlockedInput::Error => "error",
        }
    }
}
