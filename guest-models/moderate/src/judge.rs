//! Runs the classifiers over the parts of an input.

use guest_sdk::card::Axis;
use guest_sdk::image::{
    self, Color, DEFAULT_MAX_PIXELS, DEFAULT_MAX_VIEWS, Filter, Layout, Picture, Recipe, Viewer,
};
use guest_sdk::nn::{Model, Tensor, f32_tensor};
use guest_sdk::settings::Settings;
use guest_sdk::texts::TextFacts;
use guest_sdk::{Fault, Span, note, report, texts};

use crate::classifiers::{Classifier, Reads};
use crate::ocr::{Reader, Seen};
use crate::part::{Image, Text};
use crate::reading::Reading;

/// Default of `image.max_count`, the maximum number of images of an input.
const MAX_IMAGES: u32 = 16;

/// Lowest score of a label of which a note says that another reading of the text decides it.
const NOTED_SCORE: f32 = 0.1;

/// Views of images per run of the model: both guest and host hold their numbers.
const VIEWS_AT_ONCE: usize = 16;

/// Output of one classifier.
#[derive(Debug, Default)]
pub(crate) struct Judgement<'s> {
    /// Names of the values in a row.
    pub(crate) labels: Vec<&'s str>,
    /// Rows of values, one after the other: one row per text, or view of an image.
    pub(crate) values: Vec<f32>,
    /// Facts about the texts, one per row of a text model.
    pub(crate) facts: Vec<TextFacts>,
    /// True if the model knows no word of the texts: its scores are those of an empty text.
    pub(crate) blind: bool,
    /// Description of the part that was not judged, if any.
    pub(crate) gap: Option<String>,
    /// Signs that the scores of the texts may be wrong.
    pub(crate) reading: Reading,
}

impl Judgement<'_> {
    /// Iterates over the rows of values.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.labels.len().max(1))
    }
}

/// Judges `texts` with `classifier`, all in one run, and reports the spans that it finds.
///
/// # Errors
///
/// When the texts are too long, or the model fails.
pub(crate) fn texts<'s>(classifier: &Classifier<'s>, texts: &[Text]) -> Result<Judgement<'s>, Fault> {
    let Classifier { card, labels, .. } = classifier;
    let scores = if classifier.reads == Reads::Spans {
        let (scores, spans) = texts::spans(card.model(), texts, labels.len())?;
        let span = |span: texts::TextSpan| {
            let part = texts.get(span.text as usize).map_or(0, |text| text.part);
            Span { part, label: span.label, score: span.score, start: span.start, end: span.end }
        };
        // Clients do not have the texts of images, so positions in them are useless.
        let is_typed =
            |span: &texts::TextSpan| texts.get(span.text as usize).is_some_and(|text| !text.is_read);
        report(&spans.into_iter().filter(is_typed).map(span).collect::<Vec<_>>());
        scores
    } else {
        texts::score(card.model(), texts, labels.len())?
    };
    note_undone(card.model(), labels, texts, &scores);
    let has_letters = texts.iter().any(|text| text.text.contains(char::is_alphabetic));
    let blind = has_letters && scores.facts.iter().all(|facts| facts.known == 0);
    let gap = texts.iter().zip(&scores.facts).find_map(|(text, facts)| gap(card.model(), text, facts));
    let reading = Reading::of(texts, &scores.facts);
    let (values, facts) = (scores.values, scores.facts);
    Ok(Judgement { labels: labels.clone(), values, facts, blind, gap, reading })
}

/// Reason why the scores of a text are incomplete.
fn gap(model: &str, text: &Text, facts: &TextFacts) -> Option<String> {
    let part = text.part + 1;
    match &facts.foreign {
        _ if facts.is_truncated => {
            Some(format!("part {part}: model `{model}` read the beginning of {} tokens", facts.tokens))
        }
        Some(language) => {
            Some(format!("part {part}: it seems to be {language}, for which model `{model}` was not trained"))
        }
        None => None,
    }
}

/// Notes for the caller which text the model read with evasive spellings undone, and the labels
/// whose scores that decides: the one with the highest score, unless it is low.
fn note_undone(model: &str, labels: &[&str], texts: &[Text], scores: &texts::TextScores) {
    let row = |text: usize| scores.values.chunks_exact(labels.len().max(1)).nth(text).unwrap_or_default();
    let decided = |undone: &texts::Undone| {
        let all = labels.iter().zip(row(undone.text));
        let raised = all
            .filter(|(label, score)| **score >= NOTED_SCORE && undone.labels.iter().any(|it| it == *label));
        raised.map(|(label, score)| (*label, *score)).collect::<Vec<_>>()
    };
    let highest = |raised: &[(&str, f32)]| raised.iter().map(|(_, score)| *score).fold(0.0, f32::max);
    let all = scores.undone.iter().map(|undone| (undone, decided(undone)));
    let worst = all.max_by(|(_, one), (_, two)| highest(one).total_cmp(&highest(two)));
    let Some((undone, raised)) = worst.filter(|(_, raised)| !raised.is_empty()) else { return };
    let part = texts.get(undone.text).map_or(0, |text| text.part) + 1;
    let labels = raised.iter().map(|(label, _)| format!("`{label}`")).collect::<Vec<_>>().join(", ");
    note(&format!("part {part}: model `{model}` decides {labels} by the reading `{}`", undone.reading));
}

/// Judges views of each of `images` with each of `classifiers`, and reads its texts with `reader`.
/// Classifiers that see the same views share the decoded files.
///
/// # Errors
///
/// When a file is not an image, or is too large, or there are too many; when a model's card is not
/// supported, or the model fails.
pub(crate) fn images<'s>(
    settings: &Settings,
    classifiers: &[&Classifier<'s>],
    mut reader: Option<&mut Reader<'_>>,
    images: &[Image],
) -> Result<Vec<Judgement<'s>>, Fault> {
    let max_images = settings.get("image.max_count", MAX_IMAGES)?;
    if images.len() > max_images as usize {
        return Err(Fault::TooLarge(format!(
            "input: expected at most {max_images} images, found {}",
            images.len()
        )));
    }
    let max_pixels = settings.get("max_pixels", DEFAULT_MAX_PIXELS)?;
    let max_views = at_least_one("image.max_views", settings.get("image.max_views", DEFAULT_MAX_VIEWS)?)?;
    let mut runs =
        classifiers.iter().map(|classifier| ViewRun::new(classifier)).collect::<Result<Vec<_>, _>>()?;
    for first in 0..runs.len() {
        if runs[first].is_done {
            continue;
        }
        let recipe = runs[first].recipe.clone();
        let mut alike: Vec<_> = runs.iter_mut().filter(|run| run.recipe.shares_views(&recipe)).collect();
        let mut viewer = Viewer::new(&recipe, max_pixels, max_views);
        let mut judge = |view: &[[u8; 3]]| alike.iter_mut().try_for_each(|run| run.view(view));
        let gap = show(&mut viewer, images, reader.take(), &mut judge)?;
        for run in alike {
            run.finish(gap.clone())?;
        }
    }
    if reader.is_some() {
        // Without a classifier no view is needed.
        show(&mut Viewer::new(&LEAST, max_pixels, 1), images, reader, &mut |_| Ok(()))?;
    }
    Ok(runs.into_iter().map(|run| run.run.judgement).collect())
}

/// A recipe for views that nothing judges.
const LEAST: Recipe = Recipe {
    width: 1,
    height: 1,
    layout: Layout::Nchw,
    color: Color::Rgb,
    crop: 1.0,
    filter: Filter::Bilinear,
    mean: [0.0; 3],
    std: [1.0; 3],
};

/// Shows each image to `reader`, and its views to `judge`. Returns the parts without a view.
fn show(
    viewer: &mut Viewer<'_>,
    images: &[Image],
    mut reader: Option<&mut Reader<'_>>,
    judge: &mut image::Judge<'_>,
) -> Result<Option<String>, Fault> {
    let mut gaps = Vec::new();
    for (index, Image { part, file }) in images.iter().enumerate() {
        let number = index + 1;
        let seen = match &mut reader {
            Some(reader) => viewer.show_with(file, judge, &mut |picture: &Picture, frames: u32| {
                reader.image(picture, Seen { part: *part, number, frames })
            }),
            None => viewer.show(file, judge),
        }?;
        if !seen.is_whole() {
            gaps.push(format!("image {number}: the views show {seen}"));
        }
    }
    Ok((!gaps.is_empty()).then(|| gaps.join("; ")))
}

/// A classifier of images, and the views that it has not judged yet.
struct ViewRun<'s> {
    recipe: Recipe,
    run: Run<'s>,
    /// Numbers of the views, at most [`VIEWS_AT_ONCE`].
    pixels: Vec<f32>,
    is_done: bool,
}

impl<'s> ViewRun<'s> {
    fn new(classifier: &Classifier<'s>) -> Result<ViewRun<'s>, Fault> {
        let (recipe, run) = (Recipe::from_card(&classifier.card)?, Run::new(classifier)?);
        Ok(ViewRun { recipe, run, pixels: Vec::new(), is_done: false })
    }

    fn view(&mut self, view: &[[u8; 3]]) -> Result<(), Fault> {
        self.recipe.normalise(view, &mut self.pixels);
        if self.pixels.len() < VIEWS_AT_ONCE * self.view_len() { Ok(()) } else { self.judge() }
    }

    fn finish(&mut self, gap: Option<String>) -> Result<(), Fault> {
        (self.is_done, self.run.judgement.gap) = (true, gap);
        if self.pixels.is_empty() { Ok(()) } else { self.judge() }
    }

    fn judge(&mut self) -> Result<(), Fault> {
        let (each, pixels) = (self.view_len(), &self.pixels);
        self.run.rows(pixels.len() / each, |first, count| {
            f32_tensor(&self.recipe.shape(count as u32), &pixels[first * each..(first + count) * each])
        })?;
        self.pixels.clear();
        Ok(())
    }

    /// Numbers of one view.
    fn view_len(&self) -> usize {
        self.recipe.shape(1).iter().map(|&axis| axis as usize).product()
    }
}

/// A model and its output so far.
struct Run<'s> {
    name: &'s str,
    /// Opened with the first rows.
    model: Option<Model>,
    input: &'s str,
    output: &'s str,
    /// True if the model takes any number of rows at once.
    batches: bool,
    judgement: Judgement<'s>,
}

impl<'s> Run<'s> {
    fn new(classifier: &Classifier<'s>) -> Result<Run<'s>, Fault> {
        let Classifier { card, labels, .. } = classifier;
        Ok(Run {
            name: card.model(),
            model: None,
            input: card.require("input.name")?,
            output: card.require("output.name")?,
            batches: card.shape("input.shape")?.first() == Some(&Axis::Dynamic),
            judgement: Judgement { labels: labels.clone(), ..Judgement::default() },
        })
    }

    /// Runs the model on `rows` rows: all at once if its batch is dynamic, otherwise one by one.
    /// `tensor(first, count)` contains `count` of them, starting at `first`.
    fn rows(&mut self, rows: usize, tensor: impl Fn(usize, usize) -> Tensor) -> Result<(), Fault> {
        let Judgement { labels, values, .. } = &mut self.judgement;
        let step = if self.batches { rows.max(1) } else { 1 };
        let model = match &mut self.model {
            Some(model) => model,
            none => none.insert(Model::open(self.name)?),
        };
        for first in (0..rows).step_by(step) {
            let outputs = model.run([(self.input, tensor(first, step))])?;
            values.extend(outputs.scores(self.output, step as u32, labels.len() as u32)?);
        }
        Ok(())
    }
}

fn at_least_one(key: &str, value: u32) -> Result<u32, Fault> {
    if value == 0 {
        return Err(Fault::Internal(format!("setting `{key}`: expected at least 1, found 0")));
    }
    Ok(value)
}
