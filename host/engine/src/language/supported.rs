//! The kinds of GGUF files that the engine runs.

use infer_kernels::WeightType;
use serde::Serialize;

use super::architecture::ARCHITECTURES;
use super::tokenizer::{pre_tokenizers, tokenizers};

/// Supported values, as GGUF files name them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Supported {
    /// Values of `general.architecture`.
    pub architectures: Vec<&'static str>,
    /// Values of `tokenizer.ggml.model`.
    pub tokenizers: Vec<&'static str>,
    /// Values of `tokenizer.ggml.pre`, for the tokenizer `gpt2`.
    pub pre_tokenizers: Vec<&'static str>,
    /// Types of tensors.
    pub weight_types: Vec<String>,
}

impl Supported {
    /// The values that this version supports.
    pub fn new() -> Self {
        Supported {
            architectures: ARCHITECTURES.iter().map(|architecture| architecture.name).collect(),
            tokenizers: tokenizers().to_vec(),
            pre_tokenizers: pre_tokenizers().collect(),
            weight_types: WeightType::ALL.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Default for Supported {
    fn default() -> Self {
        Supported::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_name_all_that_is_supported() {
        let page = include_str!("../../../../docs/CONFIGURATION.md");
        let Supported { architectures, tokenizers, pre_tokenizers, weight_types } = Supported::new();
        let types = weight_types.iter().map(String::as_str);
        let all = [architectures, tokenizers, pre_tokenizers].concat().into_iter().chain(types);
        let missing: Vec<_> = all.filter(|name| !page.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "docs/CONFIGURATION.md does not name {missing:?}");
    }
}
