//! The guest: reads the settings, runs the models, returns the verdict.

use guest_sdk::settings::Settings;
use guest_sdk::{Fault, Moderator, Part, Verdict};

use crate::cascade::Cascade;
use crate::classifiers::{self, Assignment, Classifier, Reads};
use crate::judge::{self, Text};
use crate::known;
use crate::verdict::{Judgements, Parts, rows, verdict};

/// The guest.
pub(crate) struct Moderate;

impl Moderator for Moderate {
    fn moderate(input: Vec<Part>) -> Result<Verdict, Fault> {
        if input.is_empty() {
            return Err(Fault::InvalidInput("input: expected at least one part, found none".to_owned()));
        }
        let settings = Settings::read()?;
        let (mut texts, mut images) = (Vec::new(), Vec::new());
        for (part, content) in (0..).zip(input) {
            match content {
                Part::Text(text) => texts.push(Text { part, text }),
                Part::Image(file) => images.push(file),
            }
        }
        let cascade = Cascade::read(&settings)?;
        let advised = cascade.as_ref().map_or(&[][..], Cascade::categories);
        let classifiers = classifiers::read(&settings)?;
        let assignments = classifiers::assign(&settings, &classifiers, advised)?;
        known::check(&settings, &assignments)?;
        let judgements = judge(&settings, &classifiers, &assignments, &texts, &images)?;
        let parts = |is_empty: bool, is_text: bool| {
            let has_model = classifiers.iter().any(|classifier| classifier.reads.is_text() == is_text);
            match (is_empty, has_model) {
                (true, _) => Parts::Absent,
                (false, true) => Parts::Judged,
                (false, false) => Parts::NoModel,
            }
        };
        let parts = [parts(texts.is_empty(), true), parts(images.is_empty(), false)];
        let mut rows = rows(&assignments, advised, &judgements, parts);
        if let Some(cascade) = cascade.as_ref().filter(|_| !texts.is_empty()) {
            cascade.judge(&mut rows, &texts)?;
        }
        Ok(verdict(rows))
    }
}

/// Runs the classifiers that judge a category, and those that label spans.
fn judge<'s>(
    settings: &Settings,
    classifiers: &[Classifier<'s>],
    assignments: &[Assignment],
    texts: &[Text],
    images: &[Vec<u8>],
) -> Result<Judgements<'s>, Fault> {
    let judges = |index: usize| {
        let mut used = assignments.iter().flat_map(|assignment| [&assignment.text, &assignment.image]);
        used.any(|judge| judge.as_ref().is_some_and(|judge| judge.index == index))
    };
    let judge = |(index, classifier): (usize, &Classifier<'s>)| {
        let is_used = classifier.reads == Reads::Spans || judges(index);
        match classifier.reads {
            _ if !is_used => Ok(None),
            Reads::Texts | Reads::Spans if !texts.is_empty() => judge::texts(classifier, texts).map(Some),
            Reads::Images if !images.is_empty() => judge::images(settings, classifier, images).map(Some),
            _ => Ok(None),
        }
    };
    classifiers.iter().enumerate().map(judge).collect()
}
