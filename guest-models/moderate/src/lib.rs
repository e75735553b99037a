//! A guest that judges text and images against OpenAI's moderation categories.
//!
//! It uses up to three models, and reports what it cannot judge without one as gaps:
//!
//! - `text`: word ids in, the Jigsaw labels out. The vocabulary of the shipped model is part of
//!   this component.
//! - `image`: any image classifier with the NSFWJS labels.
//! - `language`: any language model. Under the operator's policy in words it judges the texts that
//!   `text` is not sure of, or all of them where no `text` is configured.
//!
//! A model's labels count by name, so another model with the same labels fits as well.
//!
//! Settings: `threshold.CATEGORY` (from which score on a category is flagged), `cascade.*` and
//! `policy.*` (when the language model is asked, and what), `text.max_windows`, `image.max_count`,
//! `image.max_views`, `max_pixels`; each has a default beside its use.
//!
//! # Layout
//!
//! - `words`, `vocabulary`, `hash`: from text to word ids; `tokens`: the rows that the model reads
//! - `judge`: the classifiers' part; `categories`: what their labels mean
//! - `cascade`: when the language model is asked, and what its answer changes; `policy`,
//!   `examples`: what it is asked
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
