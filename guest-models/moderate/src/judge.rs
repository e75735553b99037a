//! Running the two models over the parts of an input.

use guest_sdk::card::{Axis, Card};
use guest_sdk::image::{DEFAULT_MAX_PIXELS, DEFAULT_MAX_VIEWS, Recipe, Viewer};
use guest_sdk::nn::{Model, Tensor, f32_tensor, i32_tensor};
use guest_sdk::settings::Settings;
use guest_sdk::{Fault, log};

use crate::categories::unknown;
use crate::{tokens, vocabulary};

/// Windows of all the texts of an input that are judged, unless the setting `text.max_windows` says
/// otherwise: 3,250 words at 100 a window.
const MAX_WINDOWS: u32 = 64;

/// Images of an input that are judged, unless the setting `image.max_count` says otherwise.
const MAX_IMAGES: u32 = 16;

/// Views of images that go to the model at once: their numbers are held in the guest and in the
/// host.
const VIEWS_AT_ONCE: usize = 16;

/// What one model said.
#[derive(Debug)]
pub(crate) struct Judgement<'s> {
    /// The names of the values in a row.
    pub(crate) labels: Vec<&'s str>,
    /// Rows of values, one after the other: a window of a text, or a view of an image, each.
    pub(crate) values: Vec<f32>,
    /// The model knows no word of what it judged: its scores are those of an empty text.
    pub(crate) blind: bool,
    /// What of the parts was not judged, where anything was not.
    pub(crate) gap: Option<String>,
}

impl Judgement<'_> {
    /// The values row by row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.labels.len().max(1))
    }
}

/// Let the model `text` judge each of `texts`, all in one run; none where no such model is
/// configured.
///
/// # Errors
///
/// When the texts are too long, when the model's card is of no use here, or the model fails.
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
    let most = at_least_one("text.max_windows", settings.get("text.max_windows", MAX_WINDOWS)?)?;

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
        if windows > most as usize {
            return Err(Fault::TooLarge(format!(
                "text: more than {most} windows of {size} words; send it in pieces, or raise `text.max_windows`"
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

/// Let the model `image` judge views of each of `files`; none where no such model is configured.
///
/// # Errors
///
/// When a file is no image, or too large, or one too many; when the model's card is of no use here;
/// when the model fails.
pub(crate) fn images<'s>(settings: &'s Settings, files: &[Vec<u8>]) -> Result<Option<Judgement<'s>>, Fault> {
    let Some(card) = settings.card("image") else { return Ok(None) };
    let most = settings.get("image.max_count", MAX_IMAGES)?;
    if files.len() > most as usize {
        return Err(Fault::TooLarge(format!("input: expected at most {most} images, found {}", files.len())));
    }
    let recipe = Recipe::from_card(&card)?;
    let max_pixels = settings.get("max_pixels", DEFAULT_MAX_PIXELS)?;
    let max_views = at_least_one("image.max_views", settings.get("image.max_views", DEFAULT_MAX_VIEWS)?)?;
    let each = recipe.shape(1).iter().map(|&axis| axis as usize).product::<usize>();
    let mut run = Run::new(&card)?;
    let mut pixels = Vec::new();
    let mut judge = |pixels: &mut Vec<f32>, least: usize| -> Result<(), Fault> {
        let views = pixels.len() / each;
        if views < least {
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
            gaps.push(format!("of image {} the views show {seen}", index + 1));
        }
    }
    judge(&mut pixels, 1)?;
    let gap = (!gaps.is_empty()).then(|| gaps.join("; "));
    Ok(Some(Judgement { gap, ..run.judgement }))
}

/// A model, and what it has said so far.
struct Run<'s> {
    card: Card<'s>,
    /// Opened when there is something to judge.
    model: Option<Model>,
    input: &'s str,
    output: &'s str,
    /// The model takes any number of rows at once.
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

    /// Let the model judge `rows` rows: at once where its batch is dynamic, else one by one.
    /// `tensor(first, count)` has `count` of them from `first` on.
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
