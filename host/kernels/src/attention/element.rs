//! Numbers of KV blocks, as the vectors of an instruction set load them.
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code; each function documents its contract")]

use half::f16;

use crate::simd::Simd;

/// A number of keys and values.
pub(super) trait Element {
    /// Size of a number.
    const BYTES: usize;
    /// True if the numbers have scales.
    const SCALED: bool;

    /// Loads a vector.
    ///
    /// # Safety
    /// As for [`Simd`]: `from` is valid for a vector of these numbers.
    unsafe fn load<S: Simd>(from: *const u8) -> S::F;

    /// Loads a number.
    ///
    /// # Safety
    /// `from` is valid for it, at any alignment.
    unsafe fn load_one(from: *const u8) -> f32;
}

pub(super) struct Half;

impl Element for Half {
    const BYTES: usize = 2;
    const SCALED: bool = false;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::F {
        S::load_f16(from.cast())
    }

    #[inline(always)]
    unsafe fn load_one(from: *const u8) -> f32 {
        f16::from_bits(from.cast::<u16>().read_unaligned()).to_f32()
    }
}

pub(super) struct Byte;

impl Element for Byte {
    const BYTES: usize = 1;
    const SCALED: bool = true;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::F {
        S::to_f32(S::load_i8(from))
    }

    #[inline(always)]
    unsafe fn load_one(from: *const u8) -> f32 {
        f32::from(from.cast::<i8>().read())
    }
}
