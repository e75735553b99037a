//! Heads of a card: added from their files, or removed.

use super::axis::Axis;
use super::head::HeadFile;
use super::schema::{Card, Format, Task};
use crate::limits::MAX_HEAD_LABELS;
use crate::text::{QUOTE_BYTES, excerpt};

impl Card {
    /// Adds the heads of a file. A label or category that the card already has is replaced. A model
    /// for embeddings becomes a classifier.
    ///
    /// # Errors
    ///
    /// A message if the head belongs to another encoder, or the card to no encoder.
    pub(crate) fn add_head(&mut self, file: HeadFile) -> Result<(), String> {
        let fits = match self.task {
            Task::TextEmbedding => true,
            Task::TextClassification => self.labels.is_empty() || !self.heads.is_empty(),
            _ => false,
        };
        if self.format != Format::Onnx || self.text.is_none() || !fits {
            return Err(format!(
                "`{}` computes no embedding for a head; expected a model for text-embedding, or one that has heads",
                self.name
            ));
        }
        let model = &self.model_file().sha256;
        if file.encoder != *model {
            return Err(format!(
                "the head was trained on the encoder {}, and the model's file is {model}; train it again with `infer train`",
                excerpt(&file.encoder, QUOTE_BYTES)
            ));
        }
        let size = self.outputs.first().and_then(|output| output.shape.last());
        if let (Some(Axis::Fixed(size)), Some(head)) = (size, file.heads.first())
            && *size != head.weights.len()
        {
            let found = head.weights.len();
            return Err(format!("a row of `weights` has {found} values, the embedding {size}"));
        }
        for head in file.heads {
            match self.heads.iter_mut().find(|known| known.label == head.label) {
                Some(known) => *known = head,
                None => self.heads.push(head),
            }
        }
        MAX_HEAD_LABELS.check("the card with its heads", self.heads.len())?;
        self.labels = self.heads.iter().map(|head| head.label.clone()).collect();
        self.categories.extend(file.categories);
        self.task = Task::TextClassification;
        Ok(())
    }

    /// Removes the heads, their labels and the categories: the card describes the encoder alone, a
    /// model for embeddings.
    pub(crate) fn remove_heads(&mut self) {
        if !std::mem::take(&mut self.heads).is_empty() {
            self.task = Task::TextEmbedding;
            self.labels.clear();
            self.categories.clear();
            self.tests.clear();
        }
    }
}
