//! Storage of the keys and values of a token in a KV block.
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code; each function documents its contract")]

use half::f16;

use super::shape::{AttentionShape, BLOCK_TOKENS, KEY_GROUP, KvType, Offsets};
use crate::limits::MAX_HEAD_DIM;
use crate::simd::Simd;

/// Groups whose values are all smaller count as zero: the inverse of their scale is not finite.
const SMALLEST: f32 = 1e-30;

/// Stores keys and values of one KV head of a token in slot `slot` of `block`, which is the head's
/// part of a layer.
///
/// # Safety
/// As for [`Simd`]. `keys`, `values` and `block` have the lengths of `shape`.
#[inline(always)]
pub(crate) unsafe fn store_head<S: Simd>(
    shape: &AttentionShape,
    block: &mut [u8],
    slot: usize,
    keys: &[f32],
    values: &[f32],
) {
    let Offsets { values: at, key_scales, value_scales, .. } = shape.offsets();
    match shape.kv_type {
        KvType::F16 => {
            let mut halves = [0u8; 2 * MAX_HEAD_DIM];
            to_halves::<S>(keys, &mut halves[..2 * keys.len()]);
            for (d, key) in halves[..2 * keys.len()].chunks_exact(2).enumerate() {
                block[2 * (d * BLOCK_TOKENS + slot)..][..2].copy_from_slice(key);
            }
            to_halves::<S>(values, &mut block[at + 2 * slot * values.len()..][..2 * values.len()]);
        }
        KvType::Int8 => {
            let mut codes = [0u8; MAX_HEAD_DIM];
            for (group, keys) in keys.chunks(KEY_GROUP).enumerate() {
                let scale = to_codes::<S>(keys, &mut codes[..keys.len()]);
                for (d, &code) in codes[..keys.len()].iter().enumerate() {
                    block[(group * KEY_GROUP + d) * BLOCK_TOKENS + slot] = code;
                }
                block[key_scales + 4 * (group * BLOCK_TOKENS + slot)..][..4]
                    .copy_from_slice(&scale.to_le_bytes());
            }
            let scale = to_codes::<S>(values, &mut block[at + slot * values.len()..][..values.len()]);
            block[value_scales + 4 * slot..][..4].copy_from_slice(&scale.to_le_bytes());
        }
    }
}

/// Rounds to f16; `to` has two bytes for each value.
#[inline(always)]
unsafe fn to_halves<S: Simd>(from: &[f32], to: &mut [u8]) {
    let whole = from.len() - from.len() % S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        S::store_f16(to.as_mut_ptr().add(2 * i).cast(), S::load_f32(from.as_ptr().add(i)));
    }
    for i in whole..from.len() {
        to[2 * i..][..2].copy_from_slice(&f16::from_f32(from[i]).to_le_bytes());
    }
}

/// Rounds to signed bytes, as many as values, and returns their scale: the largest magnitude is
/// 127. If a value is not finite, the scale is NaN.
#[inline(always)]
unsafe fn to_codes<S: Simd>(from: &[f32], to: &mut [u8]) -> f32 {
    let whole = from.len() - from.len() % S::LANES;
    let zero = S::splat(0.0);
    // Zero times a value is NaN unless the value is finite.
    let (mut largest, mut finite) = (zero, zero);
    for i in (0..whole).step_by(S::LANES) {
        let values = S::load_f32(from.as_ptr().add(i));
        largest = S::max(largest, S::abs(values));
        finite = S::mul_add(values, zero, finite);
    }
    let (mut largest, mut finite) = (S::reduce_max(largest), S::reduce_add(finite));
    for &value in &from[whole..] {
        largest = largest.max(value.abs());
        finite += value * 0.0;
    }
    if finite.is_nan() || largest < SMALLEST {
        to.fill(0);
        return if finite.is_nan() { f32::NAN } else { 0.0 };
    }
    let inverse = 127.0 / largest;
    for i in (0..whole).step_by(S::LANES) {
        let scaled = S::mul(S::load_f32(from.as_ptr().add(i)), S::splat(inverse));
        S::store_i8(to.as_mut_ptr().add(i).cast(), S::to_i32(scaled));
    }
    for i in whole..from.len() {
        to[i] = ((from[i] * inverse).round_ties_even() as i8).cast_unsigned();
    }
    largest / 127.0
}
