//! Verdicts as clients see them: the categories, the action, and how much of the answer is wanted.

use serde::Deserialize;

/// What to do with the content of the request, all inputs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing is flagged.
    Allow,
    /// Nothing is flagged, and some input was not judged, or not the whole of it.
    Review,
    /// Something is flagged.
    Block,
}

impl Action {
    pub(super) fn word(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Review => "review",
            Action::Block => "block",
        }
    }
}

/// What is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// OpenAI's schema.
    #[default]
    Full,
    /// 200 or 403 without a body, for a proxy.
    Gate,
}

/// The categories of OpenAI's moderation API: every answer holds each of them.
pub const CATEGORIES: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];
