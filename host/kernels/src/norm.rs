//! Element-wise steps on one row: RMS norm, and the gated product of a feed-forward layer.

use crate::simd::dispatch::{InstructionSet, with_simd};
use crate::simd::{Job, Simd};

/// Writes `values / rms(values) * weight` of each row of `weight.len()` columns to `out`, where rms
/// is the root of the mean square plus `epsilon`.
///
/// # Panics
/// If `values` has an incomplete row, or `out` has another length.
pub fn rms_norm(values: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert_eq!(values.len(), out.len(), "rms norm: `values` and `out` must have equal lengths");
    if values.is_empty() {
        return;
    }
    assert!(values.len().is_multiple_of(weight.len()), "rms norm: `values` has an incomplete row");
    let set = InstructionSet::chosen();
    for (row, out) in values.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        rms_norm_row(set, row, weight, epsilon, out);
    }
}

/// Normalises one row; the three slices have the same length.
pub(crate) fn rms_norm_row(
    set: InstructionSet,
    values: &[f32],
    weight: &[f32],
    epsilon: f32,
    out: &mut [f32],
) {
    assert!(
        values.len() == weight.len() && values.len() == out.len(),
        "rms norm: slices must have equal lengths"
    );
    let job = RmsNorm { values, weight, epsilon, out };
    // SAFETY: `set` is available; the slices have the same length.
    unsafe { with_simd!(set, S => <S as Simd>::enter(job)) };
}

struct RmsNorm<'a> {
    values: &'a [f32],
    weight: &'a [f32],
    epsilon: f32,
    out: &'a mut [f32],
}

impl<S: Simd> Job<S> for RmsNorm<'_> {
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn, reason = "vector code")]
    unsafe fn run(self) {
        let len = self.values.len();
        let whole = len - len % S::LANES;
        let (x, w, out) = (self.values.as_ptr(), self.weight.as_ptr(), self.out.as_mut_ptr());
        let mut sums = [S::splat(0.0); 4];
        for i in (0..whole).step_by(S::LANES) {
            let value = S::load_f32(x.add(i));
            let sum = &mut sums[i / S::LANES % 4];
            *sum = S::mul_add(value, value, *sum);
        }
        let mut sum = S::reduce_add(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
        for value in &self.values[whole..] {
            sum += value * value;
        }
        let scale = 1.0 / (sum / len as f32 + self.epsilon).sqrt();
        for i in (0..whole).step_by(S::LANES) {
            let value = S::mul(S::load_f32(x.add(i)), S::splat(scale));
            S::store_f32(out.add(i), S::mul(value, S::load_f32(w.add(i))));
        }
        for i in whole..len {
            self.out[i] = self.values[i] * scale * self.weight[i];
        }
    }
}

/// `gate / (1 + e^-gate) * up`
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn, reason = "vector code")]
pub(crate) unsafe fn silu_product<S: Simd>(gate: S::F, up: S::F) -> S::F {
    let power = S::exp(S::mul(gate, S::splat(-1.0)));
    S::mul(S::div(gate, S::add(S::splat(1.0), power)), up)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn rms_norm_matches_definition_on_every_set() {
        let mut random = Random::new(5);
        for len in [1, 7, 16, 33, 96, 896] {
            let (values, weight) = (random.values(len), random.values(len));
            let mean = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / len as f64;
            for set in InstructionSet::available() {
                let mut out = vec![0.0; len];
                rms_norm_row(set, &values, &weight, 1e-5, &mut out);
                for i in 0..len {
                    let expected = f64::from(values[i]) / (mean + 1e-5).sqrt() * f64::from(weight[i]);
                    assert!(
                        (f64::from(out[i]) - expected).abs() < 1e-6 * (1.0 + expected.abs()),
                        "{} {len}",
                        set.name()
                    );
                }
            }
        }
    }
}
