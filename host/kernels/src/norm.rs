//! Element-wise steps on rows: RMS norm, and the gated product of a feed-forward layer.

use crate::pool::Pool;
use crate::shared::Shared;
use crate::simd::dispatch::{InstructionSet, with_simd};
use crate::simd::{Job, Simd};

/// Activation function of a feed-forward layer's gate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activation {
    /// `x / (1 + e^-x)` (Elfwing et al. 2017)
    Silu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))` (Hendrycks and Gimpel 2016)
    GeluTanh,
}

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

/// Adds `values / rms(values) * weight` of each row of `weight.len()` columns to `out`; see
/// [`rms_norm`].
///
/// # Panics
/// If `values` has an incomplete row, or `out` has another length.
pub fn add_rms_norm(pool: &Pool, values: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert_eq!(values.len(), out.len(), "rms norm: `values` and `out` must have equal lengths");
    let columns = weight.len().max(1);
    assert!(values.len().is_multiple_of(columns), "rms norm: `values` has an incomplete row");
    let out = Shared::new(out);
    let set = InstructionSet::chosen();
    pool.run(values.len() / columns, |row| {
        let values = &values[row * columns..][..columns];
        // SAFETY: `out` is as long as `values`, and this task alone writes this row.
        let out = unsafe { std::slice::from_raw_parts_mut(out.get().add(row * columns), columns) };
        let job = RmsNorm { values, weight, epsilon, out, add: true };
        // SAFETY: `set` is available; the slices have the same length.
        unsafe { with_simd!(set, S => <S as Simd>::enter(job)) };
    });
}

/// Replaces each value by `cap * tanh(value / cap)`.
pub fn soft_cap(pool: &Pool, cap: f32, values: &mut [f32]) {
    /// Values of a task.
    const PART: usize = 8_192;
    let set = InstructionSet::chosen();
    let len = values.len();
    let values = Shared::new(values);
    pool.run(len.div_ceil(PART), |task| {
        let from = task * PART;
        // SAFETY: the range is inside `values`, and this task alone uses it.
        let values = unsafe { std::slice::from_raw_parts_mut(values.get().add(from), PART.min(len - from)) };
        // SAFETY: `set` is available.
        unsafe { with_simd!(set, S => <S as Simd>::enter(SoftCap { cap, values })) };
    });
}

struct SoftCap<'a> {
    cap: f32,
    values: &'a mut [f32],
}

impl<S: Simd> Job<S> for SoftCap<'_> {
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn, reason = "vector code")]
    unsafe fn run(self) {
        let Self { cap, values } = self;
        let whole = values.len() - values.len() % S::LANES;
        for i in (0..whole).step_by(S::LANES) {
            let at = values.as_mut_ptr().add(i);
            S::store_f32(at, soft_capped::<S>(S::load_f32(at), cap));
        }
        for value in &mut values[whole..] {
            *value = cap * (*value / cap).tanh();
        }
    }
}

/// `cap * tanh(value / cap)`, to 2e-7 of the cap.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn, reason = "vector code")]
pub(crate) unsafe fn soft_capped<S: Simd>(value: S::F, cap: f32) -> S::F {
    S::mul(S::tanh(S::mul(value, S::splat(1.0 / cap))), S::splat(cap))
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
    let job = RmsNorm { values, weight, epsilon, out, add: false };
    // SAFETY: `set` is available; the slices have the same length.
    unsafe { with_simd!(set, S => <S as Simd>::enter(job)) };
}

struct RmsNorm<'a> {
    values: &'a [f32],
    weight: &'a [f32],
    epsilon: f32,
    out: &'a mut [f32],
    /// Adds to `out` instead of replacing it.
    add: bool,
}

impl<S: Simd> Job<S> for RmsNorm<'_> {
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn, reason = "vector code")]
    unsafe fn run(self) {
        let Self { values, weight, epsilon, out, add } = self;
        normalise::<S>(values.as_ptr(), weight, epsilon, out.as_mut_ptr(), add);
    }
}

/// Normalises a row in place.
///
/// # Safety
/// As for [`Job::run`]; the slices have the same length.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn, reason = "vector code")]
pub(crate) unsafe fn rms_norm_in_place<S: Simd>(row: &mut [f32], weight: &[f32], epsilon: f32) {
    let row = row.as_mut_ptr();
    normalise::<S>(row, weight, epsilon, row, false);
}

/// Normalises a row, and adds it to `out` or writes it there.
///
/// # Safety
/// As for [`Job::run`]; `values` and `out` have `weight.len()` numbers, and may be the same.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn, reason = "vector code")]
unsafe fn normalise<S: Simd>(values: *const f32, weight: &[f32], epsilon: f32, out: *mut f32, add: bool) {
    let whole = weight.len() - weight.len() % S::LANES;
    let scale = inverse_rms::<S>(std::slice::from_raw_parts(values, weight.len()), epsilon);
    for i in (0..whole).step_by(S::LANES) {
        let value = S::mul(S::load_f32(values.add(i)), S::splat(scale));
        let value = S::mul(value, S::load_f32(weight.as_ptr().add(i)));
        S::store_f32(out.add(i), if add { S::add(S::load_f32(out.add(i)), value) } else { value });
    }
    for (i, weight) in weight.iter().enumerate().skip(whole) {
        let value = *values.add(i) * scale * weight;
        *out.add(i) = if add { *out.add(i) + value } else { value };
    }
}

/// 1 / sqrt(mean of squares + epsilon)
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn, reason = "vector code")]
unsafe fn inverse_rms<S: Simd>(values: &[f32], epsilon: f32) -> f32 {
    let whole = values.len() - values.len() % S::LANES;
    let mut sums = [S::splat(0.0); 4];
    for i in (0..whole).step_by(S::LANES) {
        let value = S::load_f32(values.as_ptr().add(i));
        let sum = &mut sums[i / S::LANES % 4];
        *sum = S::mul_add(value, value, *sum);
    }
    let mut sum = S::reduce_add(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
    for value in &values[whole..] {
        sum += value * value;
    }
    1.0 / (sum / values.len() as f32 + epsilon).sqrt()
}

/// `activation(gate) * up`. Both activations are `gate / (1 + e^-x)`; with GELU, `x` is twice the
/// argument of its tangent, since `(1 + tanh(y)) / 2 = 1 / (1 + e^-2y)`.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn, reason = "vector code")]
pub(crate) unsafe fn gated_product<S: Simd>(activation: Activation, gate: S::F, up: S::F) -> S::F {
    /// -2 * sqrt(2 / pi)
    const GELU: f32 = -1.595_769;
    let minus_x = match activation {
        Activation::Silu => S::mul(gate, S::splat(-1.0)),
        Activation::GeluTanh => {
            let factor = S::mul_add(S::mul(gate, gate), S::splat(GELU * 0.044_715), S::splat(GELU));
            S::mul(gate, factor)
        }
    };
    S::mul(S::div(gate, S::add(S::splat(1.0), S::exp(minus_x))), up)
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

    #[test]
    fn soft_caps_match_definition() {
        let exact: Vec<f32> = (-4_500..4_500).map(|i| i as f32 * 0.05).collect();
        for cap in [0.5, 30.0] {
            let mut capped = exact.clone();
            soft_cap(&Pool::new(2).unwrap(), cap, &mut capped);
            for (&value, found) in exact.iter().zip(capped) {
                let expected = f64::from(cap) * (f64::from(value) / f64::from(cap)).tanh();
                assert!(
                    (f64::from(found) - expected).abs() < 3e-7 * f64::from(cap),
                    "{value}, {cap}: {found}"
                );
            }
        }
    }

    #[test]
    fn norms_of_rows_are_added() {
        let values = [3.0, 4.0, 6.0, 8.0];
        let mut out = [1.0, 1.0, 2.0, 2.0];
        add_rms_norm(&Pool::new(2).unwrap(), &values, &[1.0, 0.5], 0.0, &mut out);
        // Both rows have the direction (3, 4), and a mean square of 12.5 and of 50.
        let scale = 1.0 / 12.5f32.sqrt();
        let expected = [1.0 + 3.0 * scale, 1.0 + 2.0 * scale, 2.0 + 3.0 * scale, 2.0 + 2.0 * scale];
        assert!(out.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{out:?}, {expected:?}");
    }
}
