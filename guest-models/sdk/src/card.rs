//! Model cards: inputs and outputs of a model, in the settings under `models.NAME.`.
//!
//! Cards let one guest serve any model of its kind: swapping a model is a line of configuration.

use crate::Fault;
use crate::settings::{Setting, Settings};

/// The card of one configured model.
#[derive(Clone, Copy, Debug)]
pub struct Card<'s> {
    settings: &'s Settings,
    model: &'s str,
}

/// Size of a tensor's axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// A constant size.
    Fixed(u32),
    /// Any size, by convention the batch.
    Dynamic,
}

impl Settings {
    /// The card of the model that the configuration names `model`, if there is one.
    pub fn card<'s>(&'s self, model: &'s str) -> Option<Card<'s>> {
        Card::new(self, model)
    }

    /// The cards of all configured models, in the order of their names.
    pub fn cards(&self) -> impl Iterator<Item = Card<'_>> {
        let names = self.keys().filter_map(|key| key.strip_prefix("models.")?.strip_suffix(".task"));
        let mut names: Vec<_> = names.filter(|name| !name.contains('.')).collect();
        names.sort_unstable();
        names.into_iter().map(|model| Card { settings: self, model })
    }
}

impl<'s> Card<'s> {
    /// A configured model always has `models.NAME.task`.
    fn new(settings: &'s Settings, model: &'s str) -> Option<Card<'s>> {
        let card = Card { settings, model };
        card.find("task").map(|_| card)
    }

    /// The guest's name for the model.
    pub fn model(&self) -> &'s str {
        self.model
    }

    /// The fact under `models.NAME.KEY`, if the card has it.
    pub fn find(&self, key: &str) -> Option<&'s str> {
        self.settings.text(&self.key(key))
    }

    /// The fact under `models.NAME.KEY`.
    ///
    /// # Errors
    ///
    /// `internal` when the card does not have it.
    pub fn require(&self, key: &str) -> Result<&'s str, Fault> {
        self.find(key).ok_or_else(|| {
            let Card { model, .. } = self;
            Fault::Internal(format!(
                "model `{model}`: this guest needs `{key}`, which the model's card does not have"
            ))
        })
    }

    /// The fact under `models.NAME.KEY`, or `default` if the card does not have it.
    ///
    /// # Errors
    ///
    /// `internal` when the fact does not parse as `T`.
    pub fn get<T: Setting>(&self, key: &str, default: T) -> Result<T, Fault> {
        self.settings.get(&self.key(key), default)
    }

    /// The shape under `KEY`, such as `N,3,224,224`; a word is a dynamic axis.
    ///
    /// # Errors
    ///
    /// `internal` when the card does not have it.
    pub fn shape(&self, key: &str) -> Result<Vec<Axis>, Fault> {
        let axis = |text: &str| text.trim().parse().map_or(Axis::Dynamic, Axis::Fixed);
        Ok(self.require(key)?.split(',').map(axis).collect())
    }

    /// The model's labels, in the order of its output.
    ///
    /// # Errors
    ///
    /// `internal` when the card has none.
    pub fn labels(&self) -> Result<Vec<&'s str>, Fault> {
        Ok(self.require("labels")?.lines().collect())
    }

    /// A fault for a fact that this guest does not support.
    pub(crate) fn unfit(&self, key: &str, expected: &str, found: &str) -> Fault {
        let Card { model, .. } = self;
        Fault::Internal(format!(
            "model `{model}`: `{key}`: this guest takes {expected}, the model's card has `{found}`"
        ))
    }

    fn key(&self, key: &str) -> String {
        ["models.", self.model, ".", key].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let pairs = [
            ("models.image.task", "image-classification"),
            ("models.image.input.shape", "N,3,224,224"),
            ("models.image.labels", "cat\ndog"),
        ];
        Settings::from_pairs(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec())
    }

    #[test]
    fn model_with_task_is_configured() {
        let settings = settings();
        assert!(settings.card("image").is_some());
        assert!(settings.card("text").is_none());
    }

    #[test]
    fn facts_are_typed() {
        let settings = settings();
        let card = settings.card("image").unwrap();
        let fixed = Axis::Fixed;
        assert_eq!(card.shape("input.shape").unwrap(), [Axis::Dynamic, fixed(3), fixed(224), fixed(224)]);
        assert_eq!(card.labels().unwrap(), ["cat", "dog"]);
        assert_eq!(card.get("input.image.crop", 1.0).unwrap(), 1.0);
    }

    #[test]
    fn missing_fact_names_model_and_key() {
        let settings = settings();
        let Fault::Internal(message) = settings.card("image").unwrap().require("input.name").unwrap_err()
        else {
            panic!("another fault");
        };
        assert!(message.starts_with("model `image`: this guest needs `input.name`"), "{message}");
    }
}
