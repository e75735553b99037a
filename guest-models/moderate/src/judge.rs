//! Runs the classifiers over the parts of an input.

use guest_sdk::card::{Axis, Card};
use guest_sdk::image::{DEFAULT_MAX_PIXELS, DEFAULT_MAX_VIEWS, Recipe, Viewer};
use guest_sdk::nn::{Model, Tensor, f32_tensor, i32_tensor};
use guest_sdk::settings::Settings;
use guest_sdk::{Fault, log};

use crate::categories::unknown;
use crate::{tokens, vocabulary};

/// Default of `text.max_windows`, the maximum number of windows of all texts of an input: 3,250
/// words at 100 per window.
const MAX_WINDOWS: u32 = 64;

/// Default of `image.max_count`, the maximum number of images of an input.
const MAX_IMAGES: u32 = 16;

/// Views of images per run of the model: both guest and host hold their numbers.
const VIEWS_AT_ONCE: usize = 16;

/// Output of one classifier.
#[derive(Debug)]
pub(crate) struct Judgement<'s> {
    /// Names of the values in a row.
    pub(crate) labels: Vec<&'s str>,
    /// Rows of values, one after the other: one row per window of a text, or view of an image.
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

/// Judges `texts` with the model `text`, all in one run. Returns `None` without such a model.
///
/// # Errors
///
/// When the texts are too long, the model's card is not supported, or the model fails.
pub(crate) fn texts<'s>(settings: &'s Settings, texts: &[String]) -> Result<Option<Judgement<'s>>, Fault> {
    let Some(card) = settings.card("text") else { return Ok(None) };
    let (dtype, side) = (card.require("input.dtype")?, card.get("input.text.pad", "left".to_owned())?);
    if dtype != "i32" || side != "left" {
        return Err(Fault::Internal(format!(
            "model `text`: expected i32 token ids padded on the left, the model's card has {dtype} padded on the {side}"
        )));
    }
    let words = card.find("input.text.vocabulary.sha256");
    if words.is_some_and(|words| words != vocabulary::sha256()) {
        let message = "model `text`: its vocabulary is not the one that this guest was built with; build the guest for it";
        return Err(Fault::Internal(message.to_owned()));
    }
    let size = at_least_one("models.text.input.text.max_tokens", card.get("input.text.max_tokens", 100)?)?;
    let max_windows = at_least_one("text.max_windows", settings.get("text.max_windows", MAX_WINDOWS)?)?;

    let mut rows = Vec::new();
    let mut blind = texts.iter().any(|text| text.contains(char::is_alphabetic));
    for text in texts {
        let ids = tokens::ids(text);
        blind &= ids.is_empty();
        let windows = tokens::windows(&ids, size as usize);
        for window in windows {
            tokens::pad(window, size as usize, &mut rows);
        }
        let windows = rows.len() / size as usize;
        if windows > max_windows as usize {
            return Err(Fault::TooLarge(format!(
                "text: more than {max_windows} windows of {size} words; send it in pieces, or raise `text.max_windows`"
            )));
        }
    }
    let mut run = Run::new(&card)?;
    run.rows(rows.chunks_exact(size as usize).len(), |first, count| {
        let ids = first * size as usize..(first + count) * size as usize;
        i32_tensor(&[count as u32, size], &rows[ids])
    })?;
    Ok(Some(Judgement { blind, ..run.judgement }))
}

/// Judges views of each of `files` with the model `image`. Returns `None` without such a model.
///
/// # Errors
///
/// When a file is not an image, or is too large, or there are too many; when the model's card is
/// not supported, or the model fails.
pub(crate) fn images<'s>(settings: &'s Settings, files: &[Vec<u8>]) -> Result<Option<Judgement<'s>>, Fault> {
    let Some(card) = settings.card("image") else { return Ok(None) };
    let max_images = settings.get("image.max_count", MAX_IMAGES)?;
    if files.len() > max_images as usize {
        return Err(Fault::TooLarge(format!(
            "input: expected at most {max_images} images, found {}",
            files.len()
        )));
    }
    let recipe = Recipe::from_card(&card)?;
    let max_pixels = settings.get("max_pixels", DEFAULT_MAX_PIXELS)?;
    let max_views = at_least_one("image.max_views", settings.get("image.max_views", DEFAULT_MAX_VIEWS)?)?;
    let each = recipe.shape(1).iter().map(|&axis| axis as usize).product::<usize>();
    let mut run = Run::new(&card)?;
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
    Ok(Some(Judgement { gap, ..run.judgement }))
}

/// A model and its output so far.
struct Run<'s> {
    card: Card<'s>,
    /// Opened with the first rows.
    model: Option<Model>,
    input: &'s str,
    output: &'s str,
    /// True if the model takes any number of rows at once.
    batches: bool,
    judgement: Judgement<'s>,
}

impl<'s> Run<'s> {
    fn new(card: &Card<'s>) -> Result<Run<'s>, Fault> {
        let labels = card.labels()?;
        let ignored = unknown(&labels);
        if !ignored.is_empty() {
            log::debug(&format!(
                "model `{}`: no category has the labels {}",
                card.model(),
                ignored.join(", ")
            ));
        }
        Ok(Run {
            card: *card,
            model: None,
            input: card.require("input.name")?,
            output: card.require("output.name")?,
            batches: card.shape("input.shape")?.first() == Some(&Axis::Dynamic),
            judgement: Judgement { labels, values: Vec::new(), blind: false, gap: None },
        })
    }

    /// Runs the model on `rows` rows: all at once if its batch is dynamic, otherwise one by one.
    /// `tensor(first, count)` contains `count` of them, starting at `first`.
    fn rows(&mut self, rows: usize, tensor: impl Fn(usize, usize) -> Tensor) -> Result<(), Fault> {
        let Judgement { labels, values, .. } = &mut self.judgement;
        let step = if self.batches { rows.max(1) } else { 1 };
        let model = match &mut self.model {
            Some(model) => model,
            none => none.insert(Model::open(self.card.model())?),
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
