//! Running the two models over the parts of an input.

use guest_sdk::card::{Axis, Card};
use guest_sdk::image::{DEFAULT_MAX_PIXELS, Recipe, decode};
use guest_sdk::nn::{Model, Tensor, f32_tensor, i32_tensor};
use guest_sdk::settings::Settings;
use guest_sdk::{Fault, log};

use crate::categories::unknown;
use crate::{tokens, vocabulary};

/// Windows of all the texts of an input that are judged, unless the setting `text.max_windows` says otherwise: 3,250 words at 100 a window.
const MAX_WINDOWS: u32 = 64;

/// Images of an input that are judged, unless the setting `image.max_count` says otherwise.
const MAX_IMAGES: u32 = 16;

/// What one model said.
#[derive(Debug)]
pub(crate) struct Judgement<'s> {
    /// The names of the values in a row.
    pub(crate) labels: Vec<&'s str>,
    /// Rows of values, one after the other: a window of a text, or an image, each.
    pub(crate) values: Vec<f32>,
    /// The model knows no word of what it judged: its scores are those of an empty text.
    pub(crate) blind: bool,
}

impl Judgement<'_> {
    /// The values row by row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.labels.len().max(1))
    }
}

/// Let the model `text` judge each of `texts`, all in one run; none where no such model is configured.
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
    run(&card, rows.chunks_exact(size as usize).len(), |first, count| {
        let ids = first * size as usize..(first + count) * size as usize;
        i32_tensor(&[count as u32, size], &rows[ids])
    })
    .map(|judgement| Some(Judgement { blind, ..judgement }))
}

/// Let the model `image` judge each of `files`, all in one run; none where no such model is configured.
///
/// # Errors
///
/// When a file is no image, or too large, or one too many; when the model's card is of no use here; when the model fails.
pub(crate) fn images<'s>(settings: &'s Settings, files: &[Vec<u8>]) -> Result<Option<Judgement<'s>>, Fault> {
    let Some(card) = settings.card("image") else { return Ok(None) };
    let most = settings.get("image.max_count", MAX_IMAGES)?;
    if files.len() > most as usize {
        return Err(Fault::TooLarge(format!("input: expected at most {most} images, found {}", files.len())));
    }
    let recipe = Recipe::from_card(&card)?;
    let max_pixels = settings.get("max_pixels", DEFAULT_MAX_PIXELS)?;
    let mut pixels = Vec::new();
    for file in files {
        recipe.apply(&decode(file, max_pixels)?, &mut pixels)?;
    }
    let each = pixels.len() / files.len().max(1);
    run(&card, files.len(), |first, count| {
        f32_tensor(&recipe.shape(count as u32), &pixels[first * each..(first + count) * each])
    })
    .map(Some)
}

/// Run a model over `rows` rows: at once where its batch is dynamic, else one by one. `tensor(first, count)` has `count`
/// of them from `first` on.
fn run<'s>(
    card: &Card<'s>,
    rows: usize,
    tensor: impl Fn(usize, usize) -> Tensor,
) -> Result<Judgement<'s>, Fault> {
    let labels = card.labels()?;
    let ignored = unknown(&labels);
    if !ignored.is_empty() {
        log::debug(&format!("model `{}`: no category has the labels {}", card.model(), ignored.join(", ")));
    }
    let step = match card.shape("input.shape")?.first() {
        Some(Axis::Dynamic) => rows,
        _ => 1,
    };
    let (input, output) = (card.require("input.name")?, card.require("output.name")?);
    let model = Model::open(card.model())?;
    let mut values = Vec::with_capacity(rows * labels.len());
    for first in (0..rows).step_by(step.max(1)) {
        let outputs = model.run([(input, tensor(first, step))])?;
        values.extend(outputs.scores(output, step as u32, labels.len() as u32)?);
    }
    Ok(Judgement { labels, values, blind: false })
}

fn at_least_one(key: &str, value: u32) -> Result<u32, Fault> {
    if value == 0 {
        return Err(Fault::Internal(format!("setting `{key}`: expected at least 1, found 0")));
    }
    Ok(value)
}
