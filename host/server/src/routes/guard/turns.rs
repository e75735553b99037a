//! The turns of a request, and those that were judged before.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use infer_engine::Prompt;
use sha2::{Digest as _, Sha256};

use super::judge::Origin;
use crate::error::ApiError;
use crate::limits::MAX_SEEN_TURNS;

/// SHA-256 of a turn.
pub(super) type Digest = [u8; 32];

/// Turns that were judged and not flagged, by the owner of the conversation. The turns of one owner
/// never displace those of another.
#[derive(Default)]
pub(super) struct Seen(Mutex<HashMap<String, Recent>>);

/// The last turns of one owner: between once and twice [`MAX_SEEN_TURNS`].
#[derive(Default)]
struct Recent {
    newer: HashSet<Digest>,
    older: HashSet<Digest>,
}

impl Seen {
    pub(super) fn contains(&self, owner: &str, digest: &Digest) -> bool {
        let owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owners.get(owner).is_some_and(|recent| recent.newer.contains(digest) || recent.older.contains(digest))
    }

    pub(super) fn insert(&self, owner: &str, digest: Digest) {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = owners.entry(owner.to_owned()).or_default();
        if recent.newer.len() >= MAX_SEEN_TURNS {
            recent.older = std::mem::take(&mut recent.newer);
        }
        recent.newer.insert(digest);
    }
}

/// Returns the texts of `prompt` that the model is going to read and that may come from strangers:
/// all turns, but the system's only with `with_system`. An assistant's turn is part of them because
/// the client sends it.
///
/// # Errors
///
/// 400 for a prompt of token ids, whose text is unknown here.
pub(super) fn texts(prompt: &mut Prompt, with_system: bool) -> Result<Vec<(Origin, &mut String)>, ApiError> {
    match prompt {
        Prompt::Text(text) => Ok(vec![(Origin::Turn, text)]),
        Prompt::Messages(messages) => {
            let judged = messages.iter_mut().filter(|message| with_system || message.role != "system");
            let origin = |role: &str| if role == "tool" { Origin::Tool } else { Origin::Turn };
            Ok(judged.map(|message| (origin(&message.role), &mut message.content)).collect())
        }
        // No request has questions of a guard model.
        Prompt::Tokens(_) | Prompt::Question { .. } => Err(ApiError::invalid(
            "prompt",
            "`prompt` is an array of token ids, which the guard of this model cannot judge; expected a string",
        )),
    }
}

/// The hash of a turn: its text is judged differently by its origin.
pub(super) fn digest(origin: Origin, text: &str) -> Digest {
    Sha256::new().chain_update([u8::from(origin == Origin::Tool)]).chain_update(text).finalize().into()
}

#[cfg(test)]
mod tests {
    use infer_engine::Message;

    use super::*;

    #[test]
    fn only_turns_of_strangers_are_judged() {
        let message = |role: &str| Message { role: role.to_owned(), content: role.to_owned() };
        let messages = || Prompt::Messages(["system", "user", "assistant", "tool"].map(message).to_vec());
        let judged = |with_system| {
            let mut prompt = messages();
            let texts = texts(&mut prompt, with_system).unwrap();
            texts.into_iter().map(|(origin, text)| (origin, text.clone())).collect::<Vec<_>>()
        };
        let turn = |role: &str| (Origin::Turn, role.to_owned());
        let rest = [turn("user"), turn("assistant"), (Origin::Tool, "tool".to_owned())];
        assert_eq!(judged(false), rest);
        assert_eq!(judged(true), [&[turn("system")], &rest[..]].concat());
        assert!(texts(&mut Prompt::Tokens(vec![1]), false).unwrap_err().to_string().contains("token ids"));
    }

    #[test]
    fn owners_do_not_share_judged_turns() {
        let seen = Seen::default();
        let digest = |index: usize| digest(Origin::Turn, &index.to_string());
        seen.insert("one", digest(0));
        assert!(seen.contains("one", &digest(0)) && !seen.contains("other", &digest(0)));
        assert_ne!(digest(0), super::digest(Origin::Tool, "0"));
        for index in 1..=3 * MAX_SEEN_TURNS {
            seen.insert("other", digest(index));
        }
        assert!(seen.contains("one", &digest(0)));
        assert!(seen.contains("other", &digest(3 * MAX_SEEN_TURNS)) && !seen.contains("other", &digest(1)));
    }
}
