//! A guest that attacks its host, for tests.
//!
//! The setting `attack` names one of [`ATTACKS`]. An attack ends in a trap, or in a verdict with a
//! single gap, which has the attack as its category and the outcome as its reason. Tests check
//! either.
//!
//! Settings: `attack`; `attack.model`, the model to attack with (default `text`).

mod attacks;
mod memory;
mod models;
mod script;
mod time;

pub use attacks::{ATTACKS, Attack};

use attacks::Hostile;

guest_sdk::export_moderator!(Hostile);
