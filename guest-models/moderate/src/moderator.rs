//! The guest: reads the settings, runs the models, returns the verdict.

use guest_sdk::settings::Settings;
use guest_sdk::{Fault, Moderator, Part, Verdict};

use crate::cascade::Cascade;
use crate::classifiers::{self, Assignment, Classifier, Reads};
use crate::explanation::{self, Judged};
use crate::judge;
use crate::known;
use crate::ocr::Reader;
use crate::part::{Image, Text};
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
                Part::Text(text) => texts.push(Text { part, text, is_read: false }),
                Part::Image(file) => images.push(Image { part, file }),
            }
        }
        let cascade = Cascade::read(&settings)?;
        let advised = cascade.as_ref().map_or(&[][..], Cascade::categories);
        let classifiers = classifiers::read(&settings)?;
        let assignments = classifiers::assign(&settings, &classifiers, advised)?;
        known::check(&settings, &assignments)?;
        let mut reader = Reader::read(&settings)?;
        let used = used(&classifiers, &assignments);
        let mut judgements: Judgements<'_> = classifiers.iter().map(|_| None).collect();
        if !images.is_empty() {
            let of_images = |&index: &usize| !classifiers[index].reads.is_text();
            let seers: Vec<_> = used.iter().copied().filter(of_images).collect();
            let chosen: Vec<_> = seers.iter().map(|&index| &classifiers[index]).collect();
            let found = judge::images(&settings, &chosen, reader.as_mut(), &images)?;
            for (index, judgement) in seers.into_iter().zip(found) {
                judgements[index] = Some(judgement);
            }
        }
        let unread = match reader {
            Some(reader) => {
                texts.extend(reader.texts);
                reader.gaps
            }
            None => Vec::new(),
        };
        if !texts.is_empty() {
            for index in used.into_iter().filter(|&index| classifiers[index].reads.is_text()) {
                judgements[index] = Some(judge::texts(&classifiers[index], &texts)?);
            }
        }
        let has_model =
            |is_text: bool| classifiers.iter().any(|classifier| classifier.reads.is_text() == is_text);
        let has_text_model = has_model(true) || cascade.is_some();
        let parts = |is_empty: bool, is_text: bool| match (is_empty, has_model(is_text)) {
            (true, _) => Parts::Absent,
            (false, true) => Parts::Judged,
            (false, false) => Parts::NoModel,
        };
        let parts = [parts(texts.is_empty(), true), parts(images.is_empty(), false)];
        let mut rows = rows(&assignments, advised, &judgements, parts);
        for row in rows.iter_mut().filter(|_| has_text_model) {
            row.text_gaps.extend(unread.iter().cloned());
        }
        if let Some(cascade) = cascade.as_ref().filter(|_| !texts.is_empty()) {
            cascade.judge(&mut rows, &texts)?;
        }
        if settings.text("request.explain").is_some() {
            let (classifiers, assignments) = (&classifiers, &assignments);
            explanation::explain(&Judged {
                settings: &settings,
                classifiers,
                assignments,
                judgements: &judgements,
                rows: &rows,
                texts: &texts,
            });
        }
        Ok(verdict(rows))
    }
}

/// Indices of the classifiers that judge a category, and of those that label spans.
fn used(classifiers: &[Classifier<'_>], assignments: &[Assignment]) -> Vec<usize> {
    let judges = |index: usize| {
        let mut judges =
            assignments.iter().flat_map(|assignment| assignment.of_texts().chain(&assignment.images));
        judges.any(|judge| judge.index == index)
    };
    let is_used = |&index: &usize| classifiers[index].reads == Reads::Spans || judges(index);
    (0..classifiers.len()).filter(is_used).collect()
}
