//! The guest: reads the settings, runs the models, returns the verdict.

use guest_sdk::settings::Settings;
use guest_sdk::{Fault, Moderator, Part, Verdict};

use crate::cascade::Cascade;
use crate::judge::{self, Judgement};
use crate::verdict::{Parts, rows, verdict};

/// The guest.
pub(crate) struct Moderate;

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
