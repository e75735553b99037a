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
//! - `verdict`: all of it put together

mod cascade;
pub mod categories;
mod examples;
mod hash;
mod judge;
mod policy;
pub mod tokens;
mod verdict;
mod vocabulary;
mod words;

use guest_sdk::settings::Settings;
use guest_sdk::{Fault, Moderator, Part, Verdict};

use cascade::Cascade;
use judge::Judgement;
use verdict::{Parts, rows, verdict};

struct Moderate;

impl Moderator for Moderate {
    fn moderate(input: Vec<Part>) -> Result<Verdict, Fault> {
        if input.is_empty() {
            return Err(Fault::InvalidInput("input: expected at least one part, found none".to_owned()));
        }
        let settings = Settings::read()?;
        let (mut texts, mut images) = (Vec::new(), Vec::new());
        for part in input {
            match part {
                Part::Text(text) => texts.push(text),
                Part::Image(file) => images.push(file),
            }
        }
        let cascade = Cascade::read(&settings)?;
        let text = parts(&texts, || judge::texts(&settings, &texts))?;
        let image = parts(&images, || judge::images(&settings, &images))?;
        let policy = cascade.as_ref().map_or(&[][..], Cascade::categories);
        let mut rows = rows(&settings, policy, &text, &image)?;
        if let Some(cascade) = cascade.as_ref().filter(|_| !texts.is_empty()) {
            cascade.judge(&mut rows, &texts)?;
        }
        Ok(verdict(rows))
    }
}

fn parts<'s, T>(
    parts: &[T],
    judge: impl FnOnce() -> Result<Option<Judgement<'s>>, Fault>,
) -> Result<Parts<'s>, Fault> {
    if parts.is_empty() {
        return Ok(Parts::Absent);
    }
    Ok(judge()?.map_or(Parts::NoModel, Parts::Judged))
}

guest_sdk::export_moderator!(Moderate);
