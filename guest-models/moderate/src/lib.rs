//! A guest that judges text and images against OpenAI's moderation categories.
//!
//! It uses up to three models. Categories that no configured model judges become gaps:
//!
//! - `text`: word ids in, the Jigsaw labels out. The vocabulary of the shipped model is part of
//!   this component.
//! - `image`: any image classifier with the NSFWJS labels.
//! - `language`: any language model. It judges texts under the operator's policy: uncertain ones of
//!   `text`, or all of them without a `text` model.
//!
//! Labels are matched by name, so another model with the same labels fits as well.
//!
//! Settings: `threshold.CATEGORY` (minimum score of a flagged category), `cascade.*` and `policy.*`
//! (use and prompt of the language model), `text.max_windows`, `image.max_count`,
//! `image.max_views`, `max_pixels`. The defaults are constants beside their use.
//!
//! # Layout
//!
//! - `words`, `vocabulary`, `hash`: from text to word ids; `tokens`: the model's rows of ids
//! - `judge`: runs the classifiers; `categories`: the meaning of their labels
//! - `cascade`: decides when to ask the language model, and combines its answer; `policy`,
//!   `examples`: its prompt
//! - `verdict`: the verdict from the findings; `moderator`: the guest that uses all of these

mod cascade;
pub mod categories;
mod examples;
mod hash;
mod judge;
mod moderator;
mod policy;
pub mod tokens;
mod verdict;
mod vocabulary;
mod words;

use moderator::Moderate;

guest_sdk::export_moderator!(Moderate);
