//! The guest: decodes the image, runs the model, ranks its scores.

use guest_sdk::image::{DEFAULT_MAX_PIXELS, Recipe, Viewer};
use guest_sdk::nn::{Model, f32_tensor};
use guest_sdk::settings::Settings;
use guest_sdk::{Classifier, Fault, Label, note};

use crate::rank;

/// The guest.
pub(crate) struct Classify;

impl Classifier for Classify {
    fn classify(file: Vec<u8>, top: u32) -> Result<Vec<Label>, Fault> {
        if top == 0 {
            return Err(Fault::InvalidInput("top: expected at least 1 label, found 0".to_owned()));
        }
        let settings = Settings::read()?;
        let Some(card) = settings.card("image") else {
            let message =
                "no model named `image` is configured for this component; give it an image classifier";
            return Err(Fault::Internal(message.to_owned()));
        };
        let recipe = Recipe::from_card(&card)?;
        let mut pixels = Vec::new();
        let mut viewer = Viewer::new(&recipe, settings.get("max_pixels", DEFAULT_MAX_PIXELS)?, 1);
        let seen = viewer.show(&file, &mut |view| {
            recipe.normalise(view, &mut pixels);
            Ok(())
        })?;
        if !seen.is_whole() {
            note(&format!("the labels cover {seen}"));
        }

        let input = f32_tensor(&recipe.shape(1), &pixels);
        let outputs = Model::open("image")?.run([(card.require("input.name")?, input)])?;
        let names = card.labels()?;
        let scores = outputs.scores(card.require("output.name")?, 1, names.len() as u32)?;
        Ok(rank::top(&scores, &names, top))
    }
}
