//! Rotary position embedding (RoPE) as a file's metadata describes it.

use infer_kernels::{Rope, RopeStyle};

use super::keys::Keys;
use crate::language::gguf::{GgufError, quoted};

/// Parameters of a rotation. It has no dimensions in layers without one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RopeConfig {
    pub(super) style: RopeStyle,
    pub(crate) dims: usize,
    pub(super) base: f32,
    /// Frequency divisors, one for each pair of dimensions.
    pub(super) factors: Option<Vec<f32>>,
    pub(super) attention_scale: f32,
}

impl RopeConfig {
    /// No rotation.
    pub(super) fn none(style: RopeStyle) -> Self {
        RopeConfig { style, dims: 0, base: 1.0, factors: None, attention_scale: 1.0 }
    }

    /// The same dimensions, rotated with another base and without scaling.
    pub(super) fn unscaled(&self, base: f32) -> Self {
        RopeConfig { base, factors: None, attention_scale: 1.0, ..self.clone() }
    }

    pub(crate) fn build(&self, positions: usize) -> Rope {
        let factors = self.factors.as_deref();
        Rope::new(self.style, self.dims, self.base, factors, self.attention_scale, positions)
    }
}

impl Keys<'_> {
    /// The rotation of layers that attend to everything.
    pub(super) fn rope(
        &self,
        style: RopeStyle,
        head_dim: usize,
        context: usize,
    ) -> Result<RopeConfig, GgufError> {
        let dims = self.optional("rope.dimension_count", 2..=256)?.unwrap_or(head_dim);
        if dims % 2 != 0 || dims > head_dim {
            let message = format!("is {dims}, expected an even number up to the head size, {head_dim}");
            return Err(self.wrong("rope.dimension_count", message));
        }
        let base = self.base("rope.freq_base")?.unwrap_or(10_000.0);
        let mut attention_scale = self.float("rope.scaling.attn_factor")?.unwrap_or(1.0);
        let scaling = self.gguf.str(&self.key("rope.scaling.type"))?;
        let mut factors = self.factors(dims, context, scaling == Some("longrope"))?;
        // As in llama.cpp: a factor without a type is linear, and a factor of 0 means no scaling.
        let factor = match self.float("rope.scaling.factor")? {
            None => self.float("rope.scale_linear")?,
            factor => factor,
        };
        let divisors = match (scaling, factor.filter(|factor| *factor != 0.0)) {
            (Some("none" | "longrope"), _) => None,
            (None | Some("linear"), factor) => factor.map(|factor| vec![factor; dims / 2]),
            (Some("yarn"), factor) => {
                let factor = factor.unwrap_or(1.0);
                attention_scale *= 1.0 + 0.1 * factor.max(1.0).ln();
                Some(self.yarn(dims, base, factor)?)
            }
            (Some(other), _) => {
                let message =
                    format!("is {}, expected `none`, `linear`, `longrope` or `yarn`", quoted(other));
                return Err(self.wrong("rope.scaling.type", message));
            }
        };
        if let Some(divisors) = divisors {
            let all = factors.get_or_insert_with(|| vec![1.0; dims / 2]);
            all.iter_mut().zip(divisors).for_each(|(own, divisor)| *own *= divisor);
        }
        let usable = |factor: &f32| factor.is_finite() && *factor > 0.0;
        if !factors.iter().flatten().chain([&attention_scale]).all(usable) {
            return Err(self.wrong("rope", "has a factor that is not a finite number above 0"));
        }
        Ok(RopeConfig { style, dims, base, factors, attention_scale })
    }

    /// A base of the rotation.
    pub(super) fn base(&self, name: &str) -> Result<Option<f32>, GgufError> {
        let base = self.float(name)?;
        if base.is_some_and(|base| base < 1.0) {
            let message = format!("is {}, expected a number of at least 1", base.unwrap_or_default());
            return Err(self.wrong(name, message));
        }
        Ok(base)
    }

    /// Divisors of YaRN (Peng et al. 2023): 1 for pairs that turn more than `yarn_beta_fast` times
    /// in the original context, `factor` for those that turn less than `yarn_beta_slow` times, and
    /// a mixture of both frequencies between them.
    fn yarn(&self, dims: usize, base: f32, factor: f32) -> Result<Vec<f32>, GgufError> {
        let trained = self.number("context_length", 1..=1 << 30)?;
        let original = self.optional("rope.scaling.original_context_length", 1..=1 << 30)?.unwrap_or(trained);
        let turns = |name: &str, default: f32| -> Result<f32, GgufError> {
            Ok(self.factor(&format!("rope.scaling.{name}"))?.unwrap_or(default))
        };
        let (fast, slow) = (turns("yarn_beta_fast", 32.0)?, turns("yarn_beta_slow", 1.0)?);
        // The pair that turns this many times in the original context.
        let pair = |turns: f32| {
            let radians = turns * std::f32::consts::TAU;
            dims as f32 * (original as f32 / radians).ln() / (2.0 * base.ln())
        };
        let first = pair(fast).floor().max(0.0);
        let last = pair(slow).ceil().min(dims as f32 - 1.0);
        let divisor = |index: usize| {
            let interpolated = ((index as f32 - first) / (last - first).max(0.001)).clamp(0.0, 1.0);
            1.0 / (interpolated / factor + 1.0 - interpolated)
        };
        Ok((0..dims / 2).map(divisor).collect())
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
