//! The shape of a decoder, read once from a file's metadata. One graph serves every architecture.

use std::ops::RangeInclusive;

use infer_kernels::{AttentionShape, Rope, RopeStyle};

use super::gguf::{Gguf, GgufError, quoted};

/// The parameters of a forward pass.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DecoderConfig {
    pub(super) layers: usize,
    /// Width of the residual stream.
    pub(super) hidden: usize,
    /// Width between gate·up and down.
    pub(super) feed_forward: usize,
    pub(super) attention: AttentionShape,
    pub(super) epsilon: f32,
    /// Maximum tokens of one sequence: the file's context, or the configured one if that is
    /// smaller.
    pub(super) context: usize,
    pub(super) rope: RopeConfig,
    /// Query, key and value are one tensor, and so are gate and up.
    pub(super) fused: bool,
}

/// Rotary position embedding (RoPE).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RopeConfig {
    style: RopeStyle,
    dims: usize,
    base: f32,
    /// Frequency divisors, one for each pair of dimensions.
    factors: Option<Vec<f32>>,
    attention_scale: f32,
}

impl RopeConfig {
    pub(super) fn build(&self, positions: usize) -> Rope {
        let factors = self.factors.as_deref();
        Rope::new(self.style, self.dims, self.base, factors, self.attention_scale, positions)
    }
}

impl DecoderConfig {
    /// Reads the metadata of a `phi3`, `llama` or `qwen2` file. `context` limits the tokens of a
    /// sequence.
    ///
    /// # Errors
    ///
    /// For another architecture, a missing key, a value that is out of range, or an unknown kind of
    /// RoPE scaling.
    pub(super) fn read(gguf: &Gguf, context: usize) -> Result<Self, GgufError> {
        let architecture = gguf.architecture()?;
        let style = match architecture {
            "llama" => RopeStyle::Pairs,
            "phi3" | "qwen2" => RopeStyle::Halves,
            other => {
                let message = format!("is {}, expected `phi3`, `llama` or `qwen2`", quoted(other));
                return Err(GgufError::key("general.architecture", message));
            }
        };
        let keys = Keys { gguf, architecture };
        let layers = keys.number("block_count", 1..=512)?;
        let hidden = keys.number("embedding_length", 1..=65_536)?;
        let feed_forward = keys.number("feed_forward_length", 1..=262_144)?;
        let query_heads = keys.number("attention.head_count", 1..=1_024)?;
        let kv_heads = keys.optional("attention.head_count_kv", 1..=1_024)?.unwrap_or(query_heads);
        let head_dim = keys.optional("attention.key_length", 2..=256)?;
        let head_dim = match head_dim {
            Some(head_dim) => head_dim,
            None if hidden % query_heads == 0 => hidden / query_heads,
            None => {
                return Err(keys.wrong(
                    "attention.head_count",
                    format!("is {query_heads}, which does not divide the embedding length {hidden}"),
                ));
            }
        };
        let value_length = keys.optional("attention.value_length", 2..=256)?.unwrap_or(head_dim);
        if query_heads % kv_heads != 0 {
            let message = format!("is {kv_heads}, which does not divide the {query_heads} query heads");
            return Err(keys.wrong("attention.head_count_kv", message));
        }
        if head_dim % 2 != 0 || head_dim > 256 || value_length != head_dim {
            let message = format!(
                "is {head_dim}, and the value length is {value_length}; expected equal, even sizes of at \
                 most 256"
            );
            return Err(keys.wrong("attention.key_length", message));
        }
        let window = keys.optional("attention.sliding_window", 0..=1 << 30)?.filter(|&window| window > 0);
        let trained = keys.number("context_length", 1..=1 << 30)?;
        let context = trained.min(context);
        let epsilon_key = "attention.layer_norm_rms_epsilon";
        let epsilon = gguf.require_f32(&keys.key(epsilon_key))?;
        if !(epsilon > 0.0 && epsilon < 1.0) {
            return Err(
                keys.wrong(epsilon_key, format!("is {epsilon}, expected a number above 0 and below 1"))
            );
        }
        let rope = keys.rope(style, head_dim, context)?;
        let attention = AttentionShape { window, ..AttentionShape::new(query_heads, kv_heads, head_dim) };
        let fused = architecture == "phi3";
        Ok(DecoderConfig { layers, hidden, feed_forward, attention, epsilon, context, rope, fused })
    }
}

/// Metadata keys under the architecture's prefix.
struct Keys<'g> {
    gguf: &'g Gguf,
    architecture: &'g str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn wrong(&self, name: &str, message: impl Into<String>) -> GgufError {
        GgufError::key(&self.key(name), message)
    }

    fn optional(&self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, GgufError> {
        let value = self.gguf.u32(&self.key(name))?;
        value.map(|value| self.within(name, value, range)).transpose()
    }

    fn number(&self, name: &str, range: RangeInclusive<usize>) -> Result<usize, GgufError> {
        self.within(name, self.gguf.require_u32(&self.key(name))?, range)
    }

    fn within(&self, name: &str, value: u32, range: RangeInclusive<usize>) -> Result<usize, GgufError> {
        let value = value as usize;
        if !range.contains(&value) {
            return Err(
                self.wrong(name, format!("is {value}, expected {} to {}", range.start(), range.end()))
            );
        }
        Ok(value)
    }

    fn float(&self, name: &str) -> Result<Option<f32>, GgufError> {
        self.gguf.f32(&self.key(name))
    }

    fn rope(&self, style: RopeStyle, head_dim: usize, context: usize) -> Result<RopeConfig, GgufError> {
        let dims = self.optional("rope.dimension_count", 2..=256)?.unwrap_or(head_dim);
        if dims % 2 != 0 || dims > head_dim {
            let message = format!("is {dims}, expected an even number up to the head size, {head_dim}");
            return Err(self.wrong("rope.dimension_count", message));
        }
        let base = self.float("rope.freq_base")?.unwrap_or(10_000.0);
        if !(base.is_finite() && base >= 1.0) {
            return Err(
                self.wrong("rope.freq_base", format!("is {base}, expected a finite number of at least 1"))
            );
        }
        let attention_scale = self.float("rope.scaling.attn_factor")?.unwrap_or(1.0);
        let scaling = self.gguf.str(&self.key("rope.scaling.type"))?;
        let mut factors = self.factors(dims, context, scaling == Some("longrope"))?;
        // As in llama.cpp: a factor without a type is linear, and a factor of 0 means no scaling.
        let linear = match scaling {
            Some("none" | "longrope") => None,
            None | Some("linear") => match self.float("rope.scaling.factor")? {
                None => self.float("rope.scale_linear")?,
                factor => factor,
            },
            Some(other) => {
                let message = format!("is {}, expected `none`, `linear` or `longrope`", quoted(other));
                return Err(self.wrong("rope.scaling.type", message));
            }
        };
        if let Some(factor) = linear.filter(|factor| *factor != 0.0) {
            let all = factors.get_or_insert_with(|| vec![1.0; dims / 2]);
            all.iter_mut().for_each(|own| *own *= factor);
        }
        let usable = |factor: &f32| factor.is_finite() && *factor > 0.0;
        if !factors.iter().flatten().chain([&attention_scale]).all(usable) {
            return Err(self.wrong("rope", "has a factor that is not a finite number above 0"));
        }
        Ok(RopeConfig { style, dims, base, factors, attention_scale })
    }

    /// Reads the frequency factors. LongRoPE has two lists: one for sequences within the original
    /// context, and one for longer sequences. The configured context selects the list, because
    /// stored keys cannot be rotated again. Llama 3 files have a single list.
    fn factors(&self, dims: usize, context: usize, required: bool) -> Result<Option<Vec<f32>>, GgufError> {
        const LISTS: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];
        let original = self.optional("rope.scaling.original_context_length", 1..=1 << 30)?;
        let long = original.is_some_and(|original| context > original);
        let name = LISTS[usize::from(long)];
        for name in [name, "rope_freqs.weight"] {
            if let Some(tensor) = self.gguf.tensor(name) {
                return tensor.vector(dims / 2).map(Some);
            }
        }
        if required || LISTS.iter().any(|list| self.gguf.tensor(list).is_some()) {
            let message = format!(
                "is missing, and a context of {context} tokens needs it; convert the model again, or set \
                 another `context_tokens`"
            );
            return Err(GgufError::tensor(name, message));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::gguf::write::Writer;
    use crate::weights::bytes::Bytes;

    fn writer() -> Writer {
        Writer::new("llama")
            .u32("llama.block_count", 1)
            .u32("llama.embedding_length", 8)
            .u32("llama.feed_forward_length", 8)
            .u32("llama.attention.head_count", 2)
            .u32("llama.context_length", 64)
            .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    }

    fn factors(writer: &Writer) -> Result<Option<Vec<f32>>, GgufError> {
        let gguf = Gguf::parse(Bytes::Owned(writer.build()))?;
        DecoderConfig::read(&gguf, 64).map(|config| config.rope.factors)
    }

    #[test]
    fn rope_factors_match_llama_cpp() {
        let (kind, factor, old) =
            ("llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.rope.scale_linear");
        let cases = [
            (writer(), None),
            (writer().f32(factor, 4.0), Some(4.0)),
            (writer().f32(old, 4.0), Some(4.0)),
            (writer().f32(factor, 2.0).f32(old, 4.0), Some(2.0)),
            (writer().text(kind, "linear").f32(factor, 4.0), Some(4.0)),
            (writer().text(kind, "none").f32(factor, 4.0), None),
            (writer().f32(factor, 0.0), None),
        ];
        for (index, (writer, expected)) in cases.into_iter().enumerate() {
            assert_eq!(factors(&writer).unwrap(), expected.map(|factor| vec![factor; 2]), "case {index}");
        }
    }

    #[test]
    fn longrope_without_its_list_is_rejected() {
        let list =
            |writer: Writer, name: &str| writer.tensor(name, &[2], 0, [1.5_f32.to_le_bytes(); 2].concat());
        let (short, long) = ("rope_factors_short.weight", "rope_factors_long.weight");
        let original = "llama.rope.scaling.original_context_length";
        let scaled = || writer().text("llama.rope.scaling.type", "longrope");
        let cases = [
            (scaled(), short),
            (scaled().u32(original, 32), long),
            (list(writer().u32(original, 32), short), long),
            (list(writer().u32(original, 64), long), short),
        ];
        for (writer, missing) in cases {
            let error = factors(&writer).unwrap_err().to_string();
            let expected = format!("tensor `{missing}` is missing, and a context of 64 tokens needs it");
            assert!(error.starts_with(&expected), "{error}");
        }
        assert_eq!(factors(&list(scaled(), short)).unwrap(), Some(vec![1.5; 2]));
        // The 4,096-token file of Phi-3 gives its training context, and has no lists.
        assert_eq!(factors(&writer().u32(original, 64)).unwrap(), None);
    }
}
