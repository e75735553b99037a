//! The turns of a request, and those that were judged before.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use infer_engine::{Message, Prompt};
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

/// A text that a model is going to read.
pub(crate) struct Turn<'t> {
    pub(crate) role: &'t str,
    pub(crate) text: &'t mut String,
}

impl Turn<'_> {
    /// True for the application's own instructions. An assistant's turn may come from a stranger,
    /// because the client sends it.
    pub(super) fn is_system(&self) -> bool {
        matches!(self.role, "system" | "developer")
    }

    pub(super) fn origin(&self) -> Origin {
        if matches!(self.role, "tool" | "function") { Origin::Tool } else { Origin::Turn }
    }
}

/// Returns the turns of `prompt`.
///
/// # Errors
///
/// 400 for a prompt of token ids, whose text is unknown here.
pub(crate) fn of_prompt(prompt: &mut Prompt) -> Result<Vec<Turn<'_>>, ApiError> {
    match prompt {
        Prompt::Text(text) => Ok(vec![Turn { role: "user", text }]),
        Prompt::Messages(messages) => {
            Ok(messages.iter_mut().map(|Message { role, content }| Turn { role, text: content }).collect())
        }
        // No request has questions of a guard model.
        Prompt::Tokens(_) | Prompt::Question { .. } => Err(unreadable_prompt()),
    }
}

/// 400: a prompt of token ids.
pub(crate) fn unreadable_prompt() -> ApiError {
    ApiError::invalid(
        "prompt",
        "`prompt` is an array of token ids, which the guard of this model cannot judge; expected a string",
    )
}

/// The hash of a turn: its text is judged differently by its origin.
pub(super) fn digest(origin: Origin, text: &str) -> Digest {
    Sha256::new().chain_update([u8::from(origin == Origin::Tool)]).chain_update(text).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_have_an_origin() {
        let message = |role: &str| Message { role: role.to_owned(), content: role.to_owned() };
        let mut prompt = Prompt::Messages(["system", "user", "assistant", "tool"].map(message).to_vec());
        let turns = of_prompt(&mut prompt).unwrap();
        let facts: Vec<_> = turns.iter().map(|turn| (turn.is_system(), turn.origin())).collect();
        let [system, tool] = [(true, Origin::Turn), (false, Origin::Tool)];
        assert_eq!(facts, [system, (false, Origin::Turn), (false, Origin::Turn), tool]);
        let Err(error) = of_prompt(&mut Prompt::Tokens(vec![1])) else { panic!("token ids are judged") };
        assert!(error.to_string().contains("token ids"), "{error}");
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
