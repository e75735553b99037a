//! The action for a verdict, the response mode and the categories.

use serde::Deserialize;

/// The action for the content of the request, all inputs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing is flagged.
    Allow,
    /// Nothing is flagged, but some input was not judged completely.
    Review,
    /// Something is flagged.
    Block,
}

impl Action {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Review => "review",
            Action::Block => "block",
        }
    }
}

/// Response mode of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// OpenAI's schema.
    #[default]
    Full,
    /// 200 or 403 without a body, for a proxy.
    Gate,
}

/// The categories of OpenAI's moderation API: every response has all of them.
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
