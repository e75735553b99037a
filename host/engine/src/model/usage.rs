//! The token counts of a request.

use serde::Serialize;

/// Tokens that a request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokenUsage {
    /// Of the prompt, choices not counted.
    pub prompt_tokens: usize,
    /// Of these, how many had been computed before and were not computed again.
    pub cached_tokens: usize,
    /// Of the answer.
    pub generated_tokens: usize,
}

impl std::ops::AddAssign for TokenUsage {
    fn add_assign(&mut self, other: TokenUsage) {
        self.prompt_tokens += other.prompt_tokens;
        self.cached_tokens += other.cached_tokens;
        self.generated_tokens += other.generated_tokens;
    }
}
