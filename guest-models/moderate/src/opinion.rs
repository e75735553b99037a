//! The language model's answer to the policy's question, and its reason.

use guest_sdk::language::{Message, Params, Role, Session};
use guest_sdk::nn::{ErrorCode, ModelError};
use guest_sdk::{log, note};

use crate::policy::{Conversation, Policy, QUOTE};

/// A language model's answer about an input.
pub(crate) struct Opinion {
    /// Probability that it breaks the policy.
    pub(crate) probability: f32,
    /// True if the model read only its beginning and its end.
    pub(crate) cut: bool,
}

/// Asks the language model, which the configuration names `model`, about `texts`. Notes its reason
/// for the caller if the request asks for one.
///
/// # Errors
///
/// When the model does not answer the question. Without a reason the answer stands.
pub(crate) fn ask<T: AsRef<str>>(policy: &Policy, model: &str, texts: &[T]) -> Result<Opinion, ModelError> {
    let Conversation { messages, cut } = policy.conversation(texts);
    let session = Session::open(model)?;
    let choices = policy.choices.each_ref().map(String::as_str);
    let params = Params { distinct: true, ..params(policy) };
    let scores = session.score(&messages, &choices, &params)?;
    let &[violates, allowed] = scores.logprobs.as_slice() else {
        let message = format!("{} log-probabilities, expected two", scores.logprobs.len());
        return Err(ModelError { model: model.to_owned(), code: ErrorCode::RuntimeError, message });
    };
    let probability = first_of_two([violates, allowed]);
    if let Some(tokens) = policy.rationale_tokens {
        match reason(policy, &session, messages, probability, tokens) {
            Ok(reason) => note(&reason),
            Err(error) => log::warn(&format!("the verdict has no reason: {error}")),
        }
    }
    Ok(Opinion { probability, cut })
}

/// Lets the model continue its answer with a reason.
fn reason(
    policy: &Policy,
    session: &Session,
    mut messages: Vec<Message>,
    probability: f32,
    max_tokens: u32,
) -> Result<String, ModelError> {
    let [violates, allowed] = &policy.choices;
    let answer = if probability >= policy.threshold { violates } else { allowed };
    let beginning = [answer, ", because"].concat();
    messages.push(Message { role: Role::Assistant, content: beginning.clone() });
    let params = Params {
        max_tokens: Some(max_tokens),
        temperature: Some(0.0),
        stop: vec!["\n".to_owned()],
        continues: true,
        ..params(policy)
    };
    let reason = session.generate(&messages, &params)?.text;
    Ok([beginning.as_str(), reason.trim_end()].concat())
}

/// Everything before the post is the same in every conversation.
fn params(policy: &Policy) -> Params {
    let (messages, bytes) = (policy.prefix.len() as u32, QUOTE[0].len() as u32);
    Params { prefix_messages: Some(messages), prefix_bytes: Some(bytes), ..Params::default() }
}

/// Probability of the first of two answers, given that the answer is one of them.
fn first_of_two(logprobs: [f32; 2]) -> f32 {
    1.0 / (1.0 + (logprobs[1] - logprobs[0]).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_a_softmax() {
        let cases =
            [([0.0, 0.0], 0.5), ([-1.0, -3.0], 0.880_797), ([-200.0, -1.0], 0.0), ([-0.5, -300.0], 1.0)];
        for (logprobs, expected) in cases {
            let found = first_of_two(logprobs);
            assert!((found - expected).abs() < 1e-6, "{logprobs:?}: {found}");
        }
    }
}
