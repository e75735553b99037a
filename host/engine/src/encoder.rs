//! Text models: a tokenizer in front of an ONNX model, and scores, embeddings or spans behind it.
//!
//! - `request`: reads the texts of a call
//! - `canonical`: the forms in which a text is read; `spelled`: the one in which emoji are words;
//!   `evasion`: a further one, in which evasive spellings are undone
//! - `tokenizer`: tokens and windows of a text; `inspection` and `patterns` reject hostile
//!   files
//! - `readings`: the tokens of a text in its readings
//! - `rows`: the tensors of a window
//! - `metadata`: facts about the texts, which go with the answer
//! - `values`: the numbers of the model's output
//! - `scores`, `embedding`, `spans`: the answer to each task
//! - `language`: languages for which a model was not trained
//! - `model`: a loaded text model, which uses all of these
//! - `hostile`: uses a tokenizer's file of any bytes, for tests and fuzzing

mod canonical;
mod embedding;
mod evasion;
#[cfg(any(test, fuzzing))]
mod hostile;
mod inspection;
pub(crate) mod language;
mod metadata;
mod model;
mod patterns;
mod readings;
mod request;
mod rows;
mod scores;
mod spans;
mod spelled;
#[cfg(test)]
mod tests;
mod tokenizer;
mod values;

#[cfg(any(test, fuzzing))]
pub(crate) use hostile::exercise;
pub(crate) use metadata::{Metadata, json, named_rows};
pub(crate) use model::Encoder;
pub(crate) use request::{Request as TextRequest, Text, request as text_request};
pub(crate) use scores::softmax;
