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
        let mut used =
            assignments.iter().flat_map(|assignment| assignment.text.iter().chain(&assignment.images));
        used.any(|judge| judge.index == index)
    };
    let judge = |(index, classifier): (usize, &Classifier<'s>)| {
        let is_used = classifier.reads == Reads::Spans || judges(index);
        if !is_used || texts.is_empty() || !classifier.reads.is_text() {
            return Ok(None);
        }
        judge::texts(classifier, texts).map(Some)
    };
    let mut judgements =
        classifiers.iter().enumerate().map(judge).collect::<Result<Judgements<'s>, Fault>>()?;
    if !images.is_empty() {
        let used = |&index: &usize| !classifiers[index].reads.is_text() && judges(index);
        let used: Vec<_> = (0..classifiers.len()).filter(used).collect();
        let seers: Vec<_> = used.iter().map(|&index| &classifiers[index]).collect();
        for (index, judgement) in used.into_iter().zip(judge::images(settings, &seers, images)?) {
            judgements[index] = Some(judgement);
        }
    }
    Ok(judgements)
}
