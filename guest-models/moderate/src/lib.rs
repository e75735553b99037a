//! A guest that judges text and images against OpenAI's moderation categories.
//!
//! It uses up to two models, and reports what it cannot judge without one as gaps:
//!
//! - `text`: word ids in, the Jigsaw labels out. The vocabulary of the shipped model is part of this component.
//! - `image`: any image classifier with the NSFWJS labels.
//!
//! A model's labels count by name, so another model with the same labels fits as well.
//!
//! Settings: `threshold.CATEGORY` (from which score on a category is flagged), `text.max_windows`, `image.max_count`,
//! `max_pixels`; each has a default beside its use.
//!
//! # Layout
//!
//! - `tokens`, `vocabulary`, `hash`: from text to word ids
//! - `judge`: the models' part; `categories`: what their labels mean; `verdict`: both put together

pub mod categories;
mod hash;
mod judge;
pub mod tokens;
mod verdict;
mod vocabulary;

use guest_sdk::settings::Settings;
use guest_sdk::{Fault, Moderator, Part, Verdict};

use judge::Judgement;
use verdict::{Parts, verdict};

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
        let text = parts(&texts, || judge::texts(&settings, &texts))?;
        let image = parts(&images, || judge::images(&settings, &images))?;
        verdict(&settings, &text, &image)
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
