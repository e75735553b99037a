//! The shape of a decoder, read once from a file's metadata. One graph serves every architecture.

mod keys;
mod rope;
#[cfg(test)]
mod tests;

use infer_kernels::AttentionShape;

use super::architecture::{ARCHITECTURES, Architecture};
use super::gguf::{Gguf, GgufError, quoted};
use crate::text::names;
use keys::Keys;
pub(super) use rope::RopeConfig;

/// The parameters of a forward pass.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DecoderConfig {
    /// The facts that the file does not state.
    pub(super) family: &'static Architecture,
    pub(super) layers: usize,
    /// Width of the residual stream.
    pub(super) hidden: usize,
    /// Width between gate·up and down, of each expert if there are experts.
    pub(super) feed_forward: usize,
    pub(super) experts: Option<ExpertConfig>,
    /// The attention of every layer, except for its window.
    pub(super) attention: AttentionShape,
    /// Positions that each layer attends to, and the index of its rotation in `ropes`.
    pub(super) reach: Vec<Reach>,
    /// The different rotations.
    pub(super) ropes: Vec<RopeConfig>,
    pub(super) epsilon: f32,
    /// Factor of the embeddings.
    pub(super) embedding_scale: f32,
    /// Factor of each result that is added to the residual stream.
    pub(super) residual_scale: f32,
    /// Factor of the logits.
    pub(super) logit_scale: f32,
    pub(super) logit_cap: Option<f32>,
    /// Maximum tokens of one sequence: the file's context, or the configured one if that is
    /// smaller.
    pub(super) context: usize,
}

/// Numbers of experts in a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExpertConfig {
    pub(super) count: usize,
    /// Experts that compute each token.
    pub(super) used: usize,
}

/// The part of attention that differs between layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reach {
    pub(super) window: Option<usize>,
    pub(super) rope: usize,
}

impl DecoderConfig {
    /// Reads the metadata of a file of a family in [`ARCHITECTURES`]. `context` limits the tokens
    /// of a sequence.
    ///
    /// # Errors
    ///
    /// For another architecture, a missing key, a value that is out of range, or an unknown kind of
    /// RoPE scaling.
    pub(super) fn read(gguf: &Gguf, context: usize) -> Result<Self, GgufError> {
        let family = family(gguf.architecture()?)?;
        let keys = Keys { gguf, prefix: family.name };
        let layers = keys.number("block_count", 1..=512)?;
        let hidden = keys.number("embedding_length", 1..=65_536)?;
        let mut feed_forward = keys.number("feed_forward_length", 1..=262_144)?;
        let mut experts = None;
        if family.experts {
            feed_forward = keys.optional("expert_feed_forward_length", 1..=262_144)?.unwrap_or(feed_forward);
            let count = keys.number("expert_count", 1..=1_024)?;
            experts = Some(ExpertConfig { count, used: keys.number("expert_used_count", 1..=count)? });
        }
        let trained = keys.number("context_length", 1..=1 << 30)?;
        let context = trained.min(context);
        let epsilon_key = "attention.layer_norm_rms_epsilon";
        let epsilon = gguf.require_f32(&keys.key(epsilon_key))?;
        if !(epsilon > 0.0 && epsilon < 1.0) {
            return Err(
                keys.wrong(epsilon_key, format!("is {epsilon}, expected a number above 0 and below 1"))
            );
        }
        let scale = |name: &str| -> Result<Option<f32>, GgufError> {
            if family.scales { keys.factor(name) } else { Ok(None) }
        };
        let mut attention = heads(&keys, hidden)?;
        if family.wide_scores == Some(layers) {
            attention.scale = 1.0 / (hidden as f32 / attention.query_heads as f32).sqrt();
        }
        attention.scale = scale("attention.scale")?.unwrap_or(attention.scale);
        let cap = |name: &str, default: f32| -> Result<Option<f32>, GgufError> {
            Ok(keys.factor(name)?.or((default != 0.0).then_some(default)))
        };
        attention.soft_cap = cap("attn_logit_softcapping", family.score_cap)?;
        let root = if family.root_embeddings { (hidden as f32).sqrt() } else { 1.0 };
        let (reach, ropes) = reach(&keys, family, layers, attention.key_dim, context)?;
        Ok(DecoderConfig {
            family,
            layers,
            hidden,
            feed_forward,
            experts,
            attention,
            reach,
            ropes,
            epsilon,
            embedding_scale: scale("embedding_scale")?.unwrap_or(root),
            residual_scale: scale("residual_scale")?.unwrap_or(1.0),
            logit_scale: 1.0 / scale("logit_scale")?.unwrap_or(1.0),
            logit_cap: cap("final_logit_softcapping", family.logit_cap)?,
            context,
        })
    }

    /// The attention of layer `layer`.
    pub(super) fn attention_of(&self, layer: usize) -> AttentionShape {
        AttentionShape { window: self.reach[layer].window, ..self.attention }
    }
}

fn family(name: &str) -> Result<&'static Architecture, GgufError> {
    ARCHITECTURES.iter().find(|family| family.name == name).ok_or_else(|| {
        let known = names(ARCHITECTURES.iter().map(|family| family.name));
        let message = format!("is {}, expected one of {known}", quoted(name));
        GgufError::key("general.architecture", message)
    })
}

/// Numbers and sizes of heads.
fn heads(keys: &Keys<'_>, hidden: usize) -> Result<AttentionShape, GgufError> {
    let query_heads = keys.number("attention.head_count", 1..=1_024)?;
    let kv_heads = keys.optional("attention.head_count_kv", 1..=1_024)?.unwrap_or(query_heads);
    if query_heads % kv_heads != 0 {
        let message = format!("is {kv_heads}, which does not divide the {query_heads} query heads");
        return Err(keys.wrong("attention.head_count_kv", message));
    }
    let size = |name: &str| -> Result<usize, GgufError> {
        let size = match keys.optional(name, 2..=256)? {
            Some(size) => size,
            None if hidden.is_multiple_of(query_heads) => hidden / query_heads,
            None => {
                return Err(keys.wrong(
                    "attention.head_count",
                    format!("is {query_heads}, which does not divide the embedding length {hidden}"),
                ));
            }
        };
        if size % 2 != 0 || size > 256 {
            return Err(keys.wrong(name, format!("is {size}, expected an even size of at most 256")));
        }
        Ok(size)
    };
    let (key_dim, value_dim) = (size("attention.key_length")?, size("attention.value_length")?);
    Ok(AttentionShape { value_dim, ..AttentionShape::new(query_heads, kv_heads, key_dim) })
}

/// The reach of each layer, and the rotations.
fn reach(
    keys: &Keys<'_>,
    family: &Architecture,
    layers: usize,
    key_dim: usize,
    context: usize,
) -> Result<(Vec<Reach>, Vec<RopeConfig>), GgufError> {
    let rope = keys.rope(family.rope, key_dim, context)?;
    let local_base = keys.base("rope.freq_base_swa")?.or(family.windows.local_base);
    let local = local_base.map_or_else(|| rope.clone(), |base| rope.unscaled(base));
    // Granite's files switch the rotation off with this key.
    let finetuned = keys.gguf.bool(&keys.key("rope.scaling.finetuned"))?;
    let step = if family.scales && finetuned == Some(false) { Some(1) } else { family.unrotated };
    let mut ropes = Vec::new();
    let windows = keys.windows(&family.windows, layers)?;
    let reach = windows.into_iter().enumerate().map(|(layer, window)| {
        let own = match window {
            _ if step.is_some_and(|step| (layer + 1) % step == 0) => RopeConfig::none(family.rope),
            Some(_) => local.clone(),
            None => rope.clone(),
        };
        let rope = ropes.iter().position(|known| *known == own).unwrap_or_else(|| {
            ropes.push(own);
            ropes.len() - 1
        });
        Reach { window, rope }
    });
    Ok((reach.collect(), ropes))
}
