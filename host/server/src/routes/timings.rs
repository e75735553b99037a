//! Timings of a request by stage, and the versions that judged it: the `infer` object of every
//! response.

use std::fmt;
use std::time::Duration;

use infer_control::registry::LoadedComponent;
use infer_engine::TokenUsage;
use infer_sandbox::Usage;
use serde::Serialize;
use utoipa::ToSchema;

use super::call::milliseconds;

/// Stages in milliseconds. If a request has several inputs, judged concurrently, each stage is
/// their sum, and may exceed the total.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Timings {
    /// Time spent waiting for an instance and in the models' queues.
    queue_ms: f64,
    /// Time to create the instance.
    instantiate_ms: f64,
    /// Time of the guest's own work: decoding, tokenization, ranking.
    guest_ms: f64,
    /// Time of the models' computations.
    compute_ms: f64,
    /// Time from the arrival in the handler to the response.
    total_ms: f64,
}

impl Timings {
    /// Sums the times of `usages`.
    pub fn new<'a>(usages: impl IntoIterator<Item = &'a Usage>, total: Duration) -> Self {
        let mut sum = Usage::default();
        for usage in usages {
            sum.queue += usage.queue;
            sum.instantiate += usage.instantiate;
            sum.guest += usage.guest;
            sum.compute += usage.compute;
        }
        Timings {
            queue_ms: milliseconds(sum.queue),
            instantiate_ms: milliseconds(sum.instantiate),
            guest_ms: milliseconds(sum.guest),
            compute_ms: milliseconds(sum.compute),
            total_ms: milliseconds(total),
        }
    }
}

/// Token usage of a request.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Tokens {
    /// Tokens of the prompt, without choices.
    prompt_tokens: usize,
    /// Prompt tokens that were already computed and cached.
    cached_tokens: usize,
    /// Generated tokens.
    generated_tokens: usize,
}

/// Sums the tokens of language models; `None` if none ran.
pub(crate) fn tokens<'a>(usages: impl IntoIterator<Item = &'a Usage>) -> Option<Tokens> {
    let mut sum = TokenUsage::default();
    usages.into_iter().for_each(|usage| sum += usage.tokens);
    let TokenUsage { prompt_tokens, cached_tokens, generated_tokens } = sum;
    (sum != TokenUsage::default()).then_some(Tokens { prompt_tokens, cached_tokens, generated_tokens })
}

/// The judging component, and the models available to it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Judges {
    component: Hashed,
    models: Vec<Hashed>,
    /// True if the weights of some model are random: the answer has no meaning.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dummy: bool,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
struct Hashed {
    name: String,
    /// SHA-256, in hexadecimal.
    hash: String,
}

impl Judges {
    pub fn new(loaded: &LoadedComponent) -> Self {
        let component = &loaded.component;
        let hashed = |name: &str, hash: &str| Hashed { name: name.to_owned(), hash: hash.to_owned() };
        Judges {
            component: hashed(component.name(), &loaded.hash),
            models: component.models().values().map(|model| hashed(model.name(), model.hash())).collect(),
            dummy: component.models().values().any(|model| model.is_dummy()),
        }
    }
}

impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Timings { queue_ms, instantiate_ms, guest_ms, compute_ms, total_ms } = self;
        write!(
            f,
            "{total_ms:.2} ms (queue {queue_ms:.2}, instantiate {instantiate_ms:.2}, guest {guest_ms:.2}, compute \
             {compute_ms:.2})"
        )
    }
}
