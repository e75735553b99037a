//! Weights that were unpacked once for many tokens: one byte per code, scales and minima in f32.
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code under the contract of `Format`")]

use std::marker::PhantomData;

use super::formats::{Format, dword_rows};
use super::lanes::Lanes;
use crate::layout::{Minima, PANEL};
use crate::simd::Simd;

#[inline(always)]
unsafe fn f32_rows<S: Simd, const V: usize>(at: *const u8, row: usize) -> [S::F; V] {
    let mut values = [S::splat(0.0); V];
    for (v, value) in values.iter_mut().enumerate() {
        *value = S::load_f32(at.cast::<f32>().add(row + v * S::LANES));
    }
    values
}

/// Groups of `W` with scales and minima in f32, and one byte per code.
pub(crate) struct Unpacked<W>(PhantomData<W>);

impl<W: Format> Unpacked<W> {
    const SCALES: usize = W::GROUP * PANEL;
    const MINIMUM: usize = Self::SCALES + W::GROUP / W::SUB * PANEL * 4;
    const PAIRS: usize = match W::MINIMA {
        Minima::None => Self::MINIMUM,
        _ => Self::MINIMUM + PANEL * 4,
    };

    /// Unpacks one group of a panel to `to`, which has room for `Self::BYTES`.
    #[inline(always)]
    pub(crate) unsafe fn unpack<S: Simd, L: Lanes<S>>(group: *const u8, to: *mut u8) {
        let f32_to = |at: usize, row: usize| to.add(at + row * 4).cast::<f32>();
        for row in (0..PANEL).step_by(S::LANES) {
            for pair in 0..W::GROUP / 8 {
                let [[first], [second]] = W::codes::<S, 1>(group, pair, row);
                let [first, second] = L::interleave(first, second);
                S::store(to.add(pair * 8 * PANEL + row * 4), first);
                S::store(to.add((pair * 8 + 4) * PANEL + row * 4), second);
            }
            for sub in 0..W::GROUP / W::SUB {
                let [scale] = W::scale::<S, 1>(group, sub, row);
                S::store_f32(f32_to(Self::SCALES + sub * PANEL * 4, row), scale);
            }
            if !matches!(W::MINIMA, Minima::None) {
                let [minimum] = W::minimum::<S, 1>(group, row);
                S::store_f32(f32_to(Self::MINIMUM, row), minimum);
            }
            if matches!(W::MINIMA, Minima::SubBlocks) {
                for i in 0..W::GROUP / W::SUB / 2 {
                    let [pair] = W::minimum_pair::<S, 1>(group, i, row);
                    S::store(to.add(Self::PAIRS + (i * PANEL + row) * 4), pair);
                }
            }
        }
    }
}

impl<W: Format> Format for Unpacked<W> {
    const BITS: u32 = W::BITS;
    const GROUP: usize = W::GROUP;
    const SUB: usize = W::SUB;
    const BYTES: usize = match W::MINIMA {
        Minima::SubBlocks => Self::PAIRS + W::GROUP / W::SUB / 2 * PANEL * 4,
        _ => Self::PAIRS,
    };
    const TOGETHER: usize = 1;
    const OFFSET: i32 = W::OFFSET;
    const MINIMA: Minima = W::MINIMA;
    const MANY: Option<usize> = None;

    #[inline(always)]
    unsafe fn codes<S: Simd, const V: usize>(group: *const u8, pair: usize, row: usize) -> [[S::I; V]; 2] {
        let first = group.add(pair * 8 * PANEL);
        [dword_rows::<S, V>(first, row), dword_rows::<S, V>(first.add(4 * PANEL), row)]
    }

    #[inline(always)]
    unsafe fn scale<S: Simd, const V: usize>(group: *const u8, sub: usize, row: usize) -> [S::F; V] {
        f32_rows::<S, V>(group.add(Self::SCALES + sub * PANEL * 4), row)
    }

    #[inline(always)]
    unsafe fn minimum<S: Simd, const V: usize>(group: *const u8, row: usize) -> [S::F; V] {
        f32_rows::<S, V>(group.add(Self::MINIMUM), row)
    }

    #[inline(always)]
    unsafe fn minimum_pair<S: Simd, const V: usize>(group: *const u8, i: usize, row: usize) -> [S::I; V] {
        dword_rows::<S, V>(group.add(Self::PAIRS + i * PANEL * 4), row)
    }
}
