//! Number of tokens that an imported model reads at once.

use super::notes::Notes;
use super::settings::Settings;
use crate::limits::MAX_IMPORTED_TOKENS;

/// Models whose positions start behind the id of their padding, 1.
const OFFSET_MODELS: [&str; 12] = [
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
];

/// Positions of such a model that no token has.
const OFFSET: u64 = 2;

/// Tokens of a model whose files do not say.
const USUAL: u64 = 512;

/// Returns the smallest of the lengths that the settings give, and that the file fixes (`width`).
pub(super) fn max_tokens(settings: &Settings, width: Option<usize>, notes: &mut Notes) -> usize {
    let offset = if OFFSET_MODELS.contains(&settings.model_type()) { OFFSET } else { 0 };
    let positions = ["max_position_embeddings", "n_positions"].iter().find_map(|key| {
        let found = settings.config[*key].as_u64()?.saturating_sub(offset);
        Some((*key, found))
    });
    let candidates = [
        // A tokenizer without a limit has 1e30, which is no u64.
        settings.tokenizer["model_max_length"].as_u64().map(|found| ("model_max_length", found)),
        settings.sentence["max_seq_length"].as_u64().map(|found| ("max_seq_length", found)),
        positions,
        width.map(|width| ("the width of the input", width as u64)),
    ];
    let smallest =
        candidates.into_iter().flatten().filter(|(_, found)| *found > 0).min_by_key(|(_, found)| *found);
    let found = match smallest {
        Some((key, found)) if found > MAX_IMPORTED_TOKENS as u64 => {
            notes.assumed(
                "max_tokens",
                format!("{MAX_IMPORTED_TOKENS}, the maximum here; `{key}` is {found}"),
            );
            MAX_IMPORTED_TOKENS as u64
        }
        Some((key, found)) => {
            notes.read("max_tokens", format!("{found}, from {key}"));
            found
        }
        None => {
            notes.assumed("max_tokens", format!("{USUAL}: no file has it"));
            USUAL
        }
    };
    found as usize
}

/// Number of tokens that windows of a classifier share: a quarter.
pub(super) fn stride(max_tokens: usize) -> Option<usize> {
    (max_tokens >= 16).then_some(max_tokens / 4)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn smallest_length_counts() {
        let cases = [
            (json!({}), json!({}), None, 512),
            (json!({ "max_position_embeddings": 512 }), json!({}), None, 512),
            (json!({ "model_type": "roberta", "max_position_embeddings": 514 }), json!({}), None, 512),
            (json!({ "max_position_embeddings": 512 }), json!({ "model_max_length": 128 }), None, 128),
            (json!({ "max_position_embeddings": 512 }), json!({ "model_max_length": 1e30 }), None, 512),
            (json!({ "max_position_embeddings": 131_072 }), json!({}), None, 8_192),
            (json!({ "max_position_embeddings": 0 }), json!({ "model_max_length": -1 }), None, 512),
            (json!({ "max_position_embeddings": 512 }), json!({}), Some(64), 64),
        ];
        for (config, tokenizer, width, expected) in cases {
            let settings = Settings { config, tokenizer, ..Settings::default() };
            assert_eq!(max_tokens(&settings, width, &mut Notes::default()), expected, "{settings:?}");
        }
    }
}
