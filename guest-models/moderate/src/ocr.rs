//! Texts in images: a model for text detection marks the pixels of text, and one for text
//! recognition reads each box. Both take images as PP-OCR's models do.
//!
//! Lines are read from the left, and from the top to the bottom. Vertical and much rotated text is
//! not read. `tests/scripts/ocr.py` is an independent implementation.

mod boxes;
mod characters;

use guest_sdk::card::Card;
use guest_sdk::image::{Color, Filter, Layout, Picture, Recipe, Region};
use guest_sdk::nn::{Model, Outputs, Tensor, f32_tensor};
use guest_sdk::settings::Settings;
use guest_sdk::{Fault, TextRegion, report_regions};

use crate::part::Text;
use boxes::{Map, TextBox};

/// Tasks of the two models.
const TASKS: [&str; 2] = ["text-detection", "text-recognition"];

/// Default of `ocr.max_boxes`, the maximum number of texts that are read in the images of an input.
const MAX_BOXES: u32 = 64;

/// Default of `ocr.max_side`, the longer side, in pixels, to which larger images are shrunk before
/// text is searched.
const MAX_SIDE: u32 = 960;

/// Default of `ocr.min_score`, the minimum mean probability of the characters of a text.
const MIN_SCORE: f32 = 0.5;

/// Detection takes sides that are multiples of this.
const STEP: u32 = 32;

/// Height of a line for recognition, in pixels.
const LINE: u32 = 48;

/// Widths of a line for recognition, in pixels: shorter ones are filled up, longer ones squeezed.
const WIDTHS: [u32; 2] = [320, 1_600];

/// Mean and divisor of the pixels, from 0 to 255.
const HALF: f32 = 127.5;

/// The models, and what is left of the limits of an input.
pub(crate) struct Reader<'s> {
    detection: Stage<'s>,
    recognition: Stage<'s>,
    characters: Vec<&'s str>,
    max_side: u32,
    min_score: f32,
    boxes_left: u32,
    /// Texts of the images so far.
    pub(crate) texts: Vec<Text>,
    /// Reasons why texts were not read.
    pub(crate) gaps: Vec<String>,
}

/// One of the two models.
struct Stage<'s> {
    name: &'s str,
    input: &'s str,
    output: &'s str,
    /// Opened when it runs first.
    model: Option<Model>,
}

/// An image of the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Index among the parts.
    pub(crate) part: u32,
    /// Number among the images, from 1.
    pub(crate) number: usize,
    /// Number of frames, of which the first is read.
    pub(crate) frames: u32,
}

impl<'s> Reader<'s> {
    /// Reads the settings and cards. Returns `None` if neither model is configured.
    ///
    /// # Errors
    ///
    /// `internal` for an invalid setting or card, one model without the other, or two of a kind.
    pub(crate) fn read(settings: &'s Settings) -> Result<Option<Reader<'s>>, Fault> {
        let [detection, recognition] = TASKS.map(|task| one_of_task(settings, task));
        let (detection, recognition) = match (detection?, recognition?) {
            (None, None) => return Ok(None),
            (Some(detection), Some(recognition)) => (detection, recognition),
            (Some(card), None) => return Err(incomplete(&card, TASKS[1])),
            (None, Some(card)) => return Err(incomplete(&card, TASKS[0])),
        };
        let max_side = settings.get("ocr.max_side", MAX_SIDE)?;
        if max_side < STEP {
            let message = format!("setting `ocr.max_side`: expected at least {STEP}, found `{max_side}`");
            return Err(Fault::Internal(message));
        }
        let min_score = settings.get("ocr.min_score", MIN_SCORE)?;
        if !(0.0..=1.0).contains(&min_score) {
            let message =
                format!("setting `ocr.min_score`: expected a number from 0 to 1, found `{min_score}`");
            return Err(Fault::Internal(message));
        }
        Ok(Some(Reader {
            detection: Stage::new(&detection)?,
            characters: recognition.labels()?,
            recognition: Stage::new(&recognition)?,
            max_side,
            min_score,
            boxes_left: settings.get("ocr.max_boxes", MAX_BOXES)?,
            texts: Vec::new(),
            gaps: Vec::new(),
        }))
    }

    /// Reads the texts of an image into `texts`, and reports their regions to the caller.
    ///
    /// # Errors
    ///
    /// When a model fails.
    pub(crate) fn image(&mut self, picture: &Picture, seen: Seen) -> Result<(), Fault> {
        let Seen { part, number, frames } = seen;
        if frames > 1 {
            self.gaps.push(format!("image {number}: text was searched in 1 of {frames} frames"));
        }
        let lines = self.detect(picture)?;
        let found = lines.iter().map(Vec::len).sum::<usize>();
        if found > self.boxes_left as usize || found == boxes::MAX_FOUND {
            let most = if found == boxes::MAX_FOUND { " or more" } else { "" };
            let read = found.min(self.boxes_left as usize);
            self.gaps.push(format!("image {number}: {read} of {found}{most} texts were read"));
        }
        let (mut all, mut regions) = (String::new(), Vec::new());
        for line in &lines {
            let mut is_first = true;
            for &found in line.iter().take(self.boxes_left as usize) {
                self.boxes_left -= 1;
                let (text, score) = self.recognise(picture, found)?;
                if score < self.min_score || text.trim().is_empty() {
                    continue;
                }
                if !all.is_empty() {
                    all.push(if is_first { '\n' } else { ' ' });
                }
                is_first = false;
                all.push_str(&text);
                let TextBox { left, top, right, bottom } = found;
                let (width, height) = (right - left, bottom - top);
                regions.push(TextRegion { part, text, score, x: left, y: top, width, height });
            }
        }
        if !all.is_empty() {
            report_regions(&regions);
            self.texts.push(Text { part, text: all, is_read: true });
        }
        Ok(())
    }

    /// Finds boxes of text, line by line.
    fn detect(&mut self, picture: &Picture) -> Result<Vec<Vec<TextBox>>, Fault> {
        let (width, height) = picture.seen_size();
        let scale = f64::from(self.max_side) / f64::from(width.max(height));
        let side = |side: u32| {
            let steps = (f64::from(side) * scale.min(1.0) / f64::from(STEP) + 0.5).floor() as u32;
            steps.clamp(1, self.max_side.div_ceil(STEP)) * STEP
        };
        let (wide, high) = (side(width), side(height));
        let all = Region { left: 0, top: 0, width, height };
        let pixels = tensor(picture, all, (wide, high))?;
        let outputs = self.detection.run(f32_tensor(&[1, 3, high, wide], &pixels))?;
        let values = outputs.numbers(self.detection.output, &[1, 1, high, wide])?;
        Ok(boxes::find(Map { values: &values, width: wide as usize }, (width, height)))
    }

    /// Reads the text in a box, with its score.
    fn recognise(&mut self, picture: &Picture, found: TextBox) -> Result<(String, f32), Fault> {
        let TextBox { left, top, right, bottom } = found;
        let region = Region { left, top, width: right - left, height: bottom - top };
        let wide = u64::from(LINE) * u64::from(region.width);
        let wide = wide.div_ceil(u64::from(region.height)).clamp(1, u64::from(WIDTHS[1])) as u32;
        let filled = wide.max(WIDTHS[0]);
        let pixels = tensor(picture, region, (wide, LINE))?;
        let mut values = vec![0.0; (3 * LINE * filled) as usize];
        for (row, from) in values.chunks_exact_mut(filled as usize).zip(pixels.chunks_exact(wide as usize)) {
            row[..from.len()].copy_from_slice(from);
        }
        let outputs = self.recognition.run(f32_tensor(&[1, 3, LINE, filled], &values))?;
        let (shape, values) = outputs.shaped(self.recognition.output)?;
        if shape.last().copied() != Some(self.characters.len() as u32) {
            let expected = self.characters.len();
            let name = self.recognition.name;
            return Err(Fault::Internal(format!(
                "model `{name}`: expected probabilities of {expected} labels, found the shape {shape:?}"
            )));
        }
        Ok(characters::decode(&values, &self.characters))
    }
}

impl<'s> Stage<'s> {
    fn new(card: &Card<'s>) -> Result<Stage<'s>, Fault> {
        let (input, output) = (card.require("input.name")?, card.require("output.name")?);
        Ok(Stage { name: card.model(), input, output, model: None })
    }

    fn run(&mut self, input: Tensor) -> Result<Outputs, Fault> {
        let model = match &mut self.model {
            Some(model) => model,
            none => none.insert(Model::open(self.name)?),
        };
        Ok(model.run([(self.input, input)])?)
    }
}

/// The only model of a task, if there is one.
fn one_of_task<'s>(settings: &'s Settings, task: &str) -> Result<Option<Card<'s>>, Fault> {
    let mut cards = settings.cards().filter(|card| card.find("task") == Some(task));
    match (cards.next(), cards.next()) {
        (Some(one), Some(other)) => {
            let (one, other) = (one.model(), other.model());
            Err(Fault::Internal(format!("models `{one}` and `{other}`: expected one for {task}, remove one")))
        }
        (card, _) => Ok(card),
    }
}

fn incomplete(card: &Card<'_>, missing: &str) -> Fault {
    Fault::Internal(format!(
        "model `{}`: reading texts in images needs a model for {missing} as well; configure both or neither",
        card.model()
    ))
}

/// Numbers of a region for the models: `(3, height, width)`, blue first.
fn tensor(picture: &Picture, region: Region, (width, height): (u32, u32)) -> Result<Vec<f32>, Fault> {
    let pixels = picture.resized(region, (width, height), Filter::Bilinear)?;
    let recipe = Recipe {
        width,
        height,
        layout: Layout::Nchw,
        color: Color::Bgr,
        crop: 1.0,
        filter: Filter::Bilinear,
        mean: [HALF; 3],
        std: [HALF; 3],
    };
    let mut values = Vec::new();
    recipe.normalise(&pixels, &mut values);
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODELS: [(&str, &str); 7] = [
        ("models.found.task", "text-detection"),
        ("models.found.input.name", "x"),
        ("models.found.output.name", "map"),
        ("models.read.task", "text-recognition"),
        ("models.read.labels", "\na\nb"),
        ("models.read.input.name", "x"),
        ("models.read.output.name", "steps"),
    ];

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::from_pairs(pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn both_models_or_neither() {
        assert!(Reader::read(&settings(&[])).unwrap().is_none());
        let both = settings(&MODELS);
        let reader = Reader::read(&both).unwrap().unwrap();
        assert_eq!((reader.detection.name, reader.recognition.name), ("found", "read"));
        assert_eq!(reader.characters, ["", "a", "b"]);
        for (pairs, expected) in [
            (&MODELS[..3], "model `found`: reading texts in images needs a model for text-recognition"),
            (&MODELS[3..], "model `read`: reading texts in images needs a model for text-detection"),
        ] {
            let settings = settings(pairs);
            let Err(Fault::Internal(message)) = Reader::read(&settings) else { panic!("{expected}") };
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn invalid_settings_are_named() {
        for (key, value, expected) in [
            ("ocr.max_side", "31", "setting `ocr.max_side`: expected at least 32, found `31`"),
            ("ocr.min_score", "2", "setting `ocr.min_score`: expected a number from 0 to 1, found `2`"),
            ("ocr.max_boxes", "all", "setting `ocr.max_boxes`: expected"),
            (
                "models.also.task",
                "text-detection",
                "models `also` and `found`: expected one for text-detection",
            ),
        ] {
            let settings = settings(&MODELS.into_iter().chain([(key, value)]).collect::<Vec<_>>());
            let Err(Fault::Internal(message)) = Reader::read(&settings) else { panic!("{key}") };
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
