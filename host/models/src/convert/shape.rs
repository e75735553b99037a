//! Architecture and sizes of an encoder, from the names and shapes of its tensors.

use anyhow::{Context as _, bail};
use infer_engine::text::{QUOTE_BYTES, excerpt};

use super::safetensors::Safetensors;
use crate::limits::MAX_CONVERTED_TOKENS;

/// Prefixes of all names in files of some tools.
const PREFIXES: [&str; 3] = ["", "bert.", "mpnet."];

/// The tables of the tokens and of the positions.
pub(super) const WORDS: &str = "embeddings.word_embeddings.weight";
pub(super) const POSITIONS: &str = "embeddings.position_embeddings.weight";

/// MPNet's table of distances between tokens, which BERT lacks.
pub(super) const DISTANCES: &str = "encoder.relative_attention_bias.weight";

/// Beginnings of the names of tensors that the embedding of a sentence does not need: the output
/// for the task of the pretraining, and numbers that can be computed.
const UNUSED: [&str; 4] = ["pooler.", "cls.", "lm_head.", "embeddings.position_ids"];

/// Number of MPNet's classes of distances.
pub(super) const DISTANCE_CLASSES: usize = 32;

/// Architecture of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    Bert,
    Mpnet,
}

impl Architecture {
    /// Names of the linear layers of an attention: query, key, value and output; and of the
    /// normalisation behind it.
    pub(super) fn attention(self) -> ([&'static str; 4], &'static str) {
        match self {
            Architecture::Bert => (
                [
                    "attention.self.query",
                    "attention.self.key",
                    "attention.self.value",
                    "attention.output.dense",
                ],
                "attention.output.LayerNorm",
            ),
            Architecture::Mpnet => (
                ["attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"],
                "attention.LayerNorm",
            ),
        }
    }

    /// Rows of the table of positions before the first position.
    pub(super) fn first_position(self) -> usize {
        match self {
            Architecture::Bert => 0,
            // Positions 0 and 1 are for padding.
            Architecture::Mpnet => 2,
        }
    }
}

/// Architecture and sizes of an encoder.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) architecture: Architecture,
    /// Prefix of all names.
    pub(super) prefix: &'static str,
    /// Number of tokens that the encoder knows.
    pub(super) words: usize,
    /// Rows of the table of positions.
    pub(super) positions: usize,
    /// Maximum number of tokens of a text.
    pub(super) tokens: usize,
    /// Values per token.
    pub(super) hidden: usize,
    /// Values per token within the feed-forward layers.
    pub(super) inner: usize,
    pub(super) layers: usize,
}

impl Shape {
    /// Reads the sizes. Each tensor's shape is checked again when it is read.
    ///
    /// # Errors
    ///
    /// If the file is of another architecture.
    pub(super) fn read(file: &Safetensors<'_>) -> anyhow::Result<Self> {
        let has = |prefix: &str, name: &str| file.names().any(|found| found == format!("{prefix}{name}"));
        let Some(prefix) = PREFIXES.into_iter().find(|prefix| has(prefix, WORDS)) else {
            bail!("it has no tensor `{WORDS}`, expected an encoder of the architecture BERT or MPNet");
        };
        let architecture = if has(prefix, DISTANCES) { Architecture::Mpnet } else { Architecture::Bert };
        let sizes = |name: &str| match file.shape(&format!("{prefix}{name}"))? {
            [rows, columns] if *rows > 0 && *columns > 0 => Ok((*rows, *columns)),
            shape => bail!("tensor `{prefix}{name}` has the shape {shape:?}, expected two axes"),
        };
        let up = |layer: usize| format!("encoder.layer.{layer}.intermediate.dense.weight");
        let ((words, hidden), (positions, _)) = (sizes(WORDS)?, sizes(POSITIONS)?);
        let tokens = positions.checked_sub(architecture.first_position()).filter(|tokens| *tokens > 0);
        let tokens =
            tokens.with_context(|| format!("tensor `{prefix}{POSITIONS}` has no row for a token"))?;
        let layers = (0..).take_while(|layer| has(prefix, &up(*layer))).count();
        let inner = if layers == 0 { hidden } else { sizes(&up(0))?.0 };
        if tokens > MAX_CONVERTED_TOKENS {
            bail!("it has {tokens} positions, expected at most {MAX_CONVERTED_TOKENS}");
        }
        let shape = Shape { architecture, prefix, words, positions, tokens, hidden, inner, layers };
        shape.check_names(file)?;
        Ok(shape)
    }

    /// Checks that no tensor would be left out, such as those of another layer or of a classifier.
    fn check_names(&self, file: &Safetensors<'_>) -> anyhow::Result<()> {
        for name in file.names() {
            let own = name.strip_prefix(self.prefix).unwrap_or(name);
            let is_unused = UNUSED.iter().any(|start| own.starts_with(start) || name.starts_with(start));
            if !is_unused && !self.uses(own) {
                bail!(
                    "tensor `{}` is not part of an encoder of the architecture {:?} with {} layers",
                    excerpt(name, QUOTE_BYTES),
                    self.architecture,
                    self.layers
                );
            }
        }
        Ok(())
    }

    fn uses(&self, name: &str) -> bool {
        let is_of = |part: &str, layer: &str| {
            part.strip_prefix(layer).is_some_and(|kind| matches!(kind, ".weight" | ".bias"))
        };
        if let Some((number, part)) =
            name.strip_prefix("encoder.layer.").and_then(|layer| layer.split_once('.'))
        {
            let (linear, norm) = self.architecture.attention();
            let others = [norm, "intermediate.dense", "output.dense", "output.LayerNorm"];
            return number.parse::<usize>().is_ok_and(|number| number < self.layers)
                && linear.into_iter().chain(others).any(|layer| is_of(part, layer));
        }
        let own = match self.architecture {
            Architecture::Bert => "embeddings.token_type_embeddings.weight",
            Architecture::Mpnet => DISTANCES,
        };
        [WORDS, POSITIONS, own].contains(&name) || is_of(name, "embeddings.LayerNorm")
    }
}
