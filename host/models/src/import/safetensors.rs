//! The ONNX file of a sentence encoder whose folder has none.

use anyhow::{Context as _, bail};
use infer_engine::files;

use super::export::Export;
use super::settings::Settings;
use crate::convert::{self, Answer};

/// File with the weights.
pub(super) const FILE: &str = "model.safetensors";

/// Converts the weights in `export` to ONNX with int8 weights; `None` if they are not of a BERT or
/// MPNet encoder of sentence-transformers.
///
/// # Errors
///
/// If config.json or the weights are malformed.
pub(super) fn convert(export: &Export) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(path) = export.find(FILE)? else { return Ok(None) };
    let settings = Settings::read(export)?;
    let config = &settings.config;
    let is_plain = |key: &str, value: &str| config[key].as_str().is_none_or(|found| found == value);
    let is_known = matches!(settings.model_type(), "bert" | "mpnet")
        && settings.is_sentence_transformer()
        && is_plain("hidden_act", "gelu")
        && is_plain("position_embedding_type", "absolute");
    if !is_known {
        return Ok(None);
    }
    let heads = config["num_attention_heads"].as_u64();
    let (Some(heads), Some(eps)) = (heads, config["layer_norm_eps"].as_f64()) else {
        bail!("config.json: expected the numbers `num_attention_heads` and `layer_norm_eps`");
    };
    let settings = convert::Settings { attention_heads: heads as usize, layer_norm_eps: eps as f32 };
    let shown = || format!("cannot convert `{}`", export.path.join(FILE).display());
    let file = files::open(path).with_context(shown)?;
    let onnx = convert::convert(&file, settings, Answer::Tokens, |_| {}).with_context(shown)?;
    let mut bytes = Vec::with_capacity(onnx.bytes() as usize);
    onnx.write(&mut bytes)?;
    Ok(Some(bytes))
}
