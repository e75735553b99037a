//! Token counts of a request.

use serde::Serialize;

/// Token counts of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokenUsage {
    /// Tokens of the prompt, excluding choices.
    pub prompt_tokens: usize,
    /// Of these, tokens that were found in the cache and not computed again.
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub generated_tokens: usize,
}

impl std::ops::AddAssign for TokenUsage {
    fn add_assign(&mut self, other: TokenUsage) {
        self.prompt_tokens += other.prompt_tokens;
        self.cached_tokens += other.cached_tokens;
        self.generated_tokens += other.generated_tokens;
    }
}
