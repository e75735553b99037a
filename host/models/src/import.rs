//! `infer import`: writes a weights folder from a model in the form of the Hugging Face hub:
//! config.json, tokenizer.json and an ONNX file, or the safetensors of a sentence encoder.
//!
//! The export is not trusted. Its files are bounded, none of them chooses a path, and the result is
//! loaded and tested before it receives its name.
//!
//! # Layout
//!
//! - `notes`: what was read, assumed, and could not be determined
//! - `export`: the files of the export; `choice`: its ONNX file; `settings`: its JSON files
//! - `safetensors`: the ONNX file of a sentence encoder that has none
//! - `labels`, `length`, `task`, `categories`: parts of the card; `plan` combines them
//! - `card`: the text of the card; `output`: the folder; `first_run`: the self-test
//! - `local`: imports a folder; `remote`: imports from the hub; `scratch`: a temporary folder

mod card;
mod categories;
mod choice;
mod export;
mod first_run;
mod labels;
mod length;
mod local;
mod notes;
mod output;
mod plan;
mod remote;
mod safetensors;
mod scratch;
mod settings;
mod task;

pub use choice::NotExported;
pub use local::{Imported, Request, import};
pub use notes::{Basis, Note};
pub use remote::{RemoteOptions, import_remote, pull_remote};
pub use scratch::Scratch;
