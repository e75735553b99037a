//! Runs the classifiers over the parts of an input.

use guest_sdk::card::Axis;
use guest_sdk::image::{DEFAULT_MAX_PIXELS, DEFAULT_MAX_VIEWS, Recipe, Viewer};
use guest_sdk::nn::{Model, Tensor, f32_tensor};
use guest_sdk::settings::Settings;
use guest_sdk::{Fault, Span, report, texts};

use crate::classifiers::{Classifier, Reads};

/// Default of `image.max_count`, the maximum number of images of an input.
const MAX_IMAGES: u32 = 16;

/// Views of images per run of the model: both guest and host hold their numbers.
const VIEWS_AT_ONCE: usize = 16;

/// Output of one classifier.
#[derive(Debug)]
pub(crate) struct Judgement<'s> {
    /// Names of the values in a row.
    pub(crate) labels: Vec<&'s str>,
    /// Rows of values, one after the other: one row per text, or view of an image.
    pub(crate) values: Vec<f32>,
    /// True if the model knows no word of the texts: its scores are those of an empty text.
    pub(crate) blind: bool,
    /// Description of the part that was not judged, if any.
    pub(crate) gap: Option<String>,
}

impl Judgement<'_> {
    /// Iterates over the rows of values.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.labels.len().max(1))
    }
}

/// A text of the input, with its index among the parts.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) part: u32,
    pub(crate) text: String,
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.text
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
        report(&spans.into_iter().map(span).collect::<Vec<_>>());
        scores
    } else {
        texts::score(card.model(), texts, labels.len())?
    };
    let has_letters = texts.iter().any(|text| text.text.contains(char::is_alphabetic));
    let blind = has_letters && scores.facts.iter().all(|facts| facts.known == 0);
    let cut: Vec<_> = texts.iter().zip(&scores.facts).filter(|(_, facts)| facts.is_truncated).collect();
    let gap = cut.first().map(|(text, facts)| {
        let part = text.part + 1;
        format!("part {part}: model `{}` read the beginning of {} tokens", card.model(), facts.tokens)
    });
    Ok(Judgement { labels: labels.clone(), values: scores.values, blind, gap })
}

/// Judges views of each of `files` with `classifier`.
///
/// # Errors
///
/// When a file is not an image, or is too large, or there are too many; when the model's card is
/// not supported, or the model fails.
pub(crate) fn images<'s>(
    settings: &Settings,
    classifier: &Classifier<'s>,
    files: &[Vec<u8>],
) -> Result<Judgement<'s>, Fault> {
    let card = &classifier.card;
    let max_images = settings.get("image.max_count", MAX_IMAGES)?;
    if files.len() > max_images as usize {
        return Err(Fault::TooLarge(format!(
            "input: expected at most {max_images} images, found {}",
            files.len()
        )));
    }
    let recipe = Recipe::from_card(card)?;
    let max_pixels = settings.get("max_pixels", DEFAULT_MAX_PIXELS)?;
    let max_views = at_least_one("image.max_views", settings.get("image.max_views", DEFAULT_MAX_VIEWS)?)?;
    let each = recipe.shape(1).iter().map(|&axis| axis as usize).product::<usize>();
    let mut run = Run::new(classifier)?;
    let mut pixels = Vec::new();
    let mut judge = |pixels: &mut Vec<f32>, min_views: usize| -> Result<(), Fault> {
        let views = pixels.len() / each;
        if views < min_views {
            return Ok(());
        }
        run.rows(views, |first, count| {
            f32_tensor(&recipe.shape(count as u32), &pixels[first * each..(first + count) * each])
        })?;
        pixels.clear();
        Ok(())
    };
    let mut viewer = Viewer::new(&recipe, max_pixels, max_views);
    let mut gaps = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let seen = viewer.show(file, &mut |view| {
            recipe.normalise(view, &mut pixels);
            judge(&mut pixels, VIEWS_AT_ONCE)
        })?;
        if !seen.is_whole() {
            gaps.push(format!("image {}: the views show {seen}", index + 1));
        }
    }
    judge(&mut pixels, 1)?;
    let gap = (!gaps.is_empty()).then(|| gaps.join("; "));
    Ok(Judgement { gap, ..run.judgement })
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
            judgement: Judgement { labels: labels.clone(), values: Vec::new(), blind: false, gap: None },
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
