//! Decoding of packed weights: one [`Format`] for each quantised type, and [`Unpacked`] for a range
//! that was expanded to whole bytes once and is used for many tokens. Offsets follow the table in
//! `pack`.
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code under the contract of `Format`")]

use std::marker::PhantomData;

use crate::WeightType;
use crate::pack::{PANEL, Parts, parts};
use crate::simd::Simd;

/// Minima that are added or subtracted, besides the offset.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Minima {
    None,
    /// One f16 per group, added: Q4_1.
    Group,
    /// Six-bit numbers per sub-block with an f16 scale, subtracted: Q4_K, Q5_K.
    SubBlocks,
}

/// Access to the groups of a panel in memory.
///
/// # Safety
/// `group` points to a whole group; `row` is the first of `V` whole vectors of rows in the panel.
pub(crate) trait Format {
    const BITS: u32;
    /// Number of columns of a group, and of a sub-block with its own weight scale.
    const GROUP: usize;
    const SUB: usize;
    const BYTES: usize;
    /// Offset of the low bits of the codes.
    const CODES: usize;
    const OFFSET: i32;
    const MINIMA: Minima;

    /// Returns the codes of eight columns of a group, in two steps of four.
    unsafe fn codes<S: Simd, const V: usize>(group: *const u8, pair: usize, row: usize) -> [[S::I; V]; 2];
    /// Returns the scales of a sub-block.
    unsafe fn scale<S: Simd, const V: usize>(group: *const u8, sub: usize, row: usize) -> [S::F; V];
    /// Returns the minima of a group, or their scales.
    unsafe fn minimum<S: Simd, const V: usize>(group: *const u8, row: usize) -> [S::F; V];
    /// Returns the minima of sub-blocks `2 i` and `2 i + 1` as two 16-bit numbers per lane.
    unsafe fn minimum_pair<S: Simd, const V: usize>(group: *const u8, i: usize, row: usize) -> [S::I; V];
}

#[inline(always)]
unsafe fn f16_rows<S: Simd, const V: usize>(at: *const u8, row: usize) -> [S::F; V] {
    let mut values = [S::splat(0.0); V];
    for (v, value) in values.iter_mut().enumerate() {
        *value = S::load_f16(at.cast::<u16>().add(row + v * S::LANES));
    }
    values
}

#[inline(always)]
unsafe fn f32_rows<S: Simd, const V: usize>(at: *const u8, row: usize) -> [S::F; V] {
    let mut values = [S::splat(0.0); V];
    for (v, value) in values.iter_mut().enumerate() {
        *value = S::load_f32(at.cast::<f32>().add(row + v * S::LANES));
    }
    values
}

/// Loads four bytes per row.
#[inline(always)]
unsafe fn dword_rows<S: Simd, const V: usize>(at: *const u8, row: usize) -> [S::I; V] {
    let mut values = [S::splat_i32(0); V];
    for (v, value) in values.iter_mut().enumerate() {
        *value = S::load(at.add((row + v * S::LANES) * 4));
    }
    values
}

/// Splits `low` into lower and upper nibbles.
#[inline(always)]
unsafe fn nibbles<S: Simd, const V: usize>(low: [S::I; V]) -> [[S::I; V]; 2] {
    let mask = S::splat_i32(0x0f0f_0f0f);
    let mut codes = [low, low];
    for v in 0..V {
        codes[0][v] = S::and(low[v], mask);
        codes[1][v] = S::and(S::shr16(low[v], 4), mask);
    }
    codes
}

/// Shifts left by `bits`, or right if `bits` is negative.
#[inline(always)]
unsafe fn shift16<S: Simd>(value: S::I, bits: i32) -> S::I {
    if bits > 0 {
        S::shl16(value, bits)
    } else if bits < 0 {
        S::shr16(value, -bits)
    } else {
        value
    }
}

/// Adds the bits above the nibbles. A shift by `shift` moves those of the first four columns to bit
/// 4, and one by `shift - width` those of the second four.
#[inline(always)]
unsafe fn with_high<S: Simd, const V: usize>(
    mut codes: [[S::I; V]; 2],
    high: [S::I; V],
    shift: i32,
    width: i32,
) -> [[S::I; V]; 2] {
    let mask = S::splat_i32(if width == 1 { 0x1010_1010 } else { 0x3030_3030 });
    for v in 0..V {
        codes[0][v] = S::merge(codes[0][v], shift16::<S>(high[v], shift), mask);
        codes[1][v] = S::merge(codes[1][v], shift16::<S>(high[v], shift - width), mask);
    }
    codes
}

macro_rules! formats {
    ($($name:ident: $bits:literal bits, $group:literal / $sub:literal, offset $offset:literal, $minima:ident;)*) => {$(
        pub(crate) struct $name;

        impl Format for $name {
            const BITS: u32 = $bits;
            const GROUP: usize = $group;
            const SUB: usize = $sub;
            const BYTES: usize = {
                let parts = parts(WeightType::$name);
                match $bits {
                    4 => parts.high,
                    5 => parts.high + $group / 32 * 128,
                    6 => parts.high + $group / 16 * 128,
                    _ => parts.codes + $group * PANEL,
                }
            };
            const CODES: usize = parts(WeightType::$name).codes;
            const OFFSET: i32 = $offset;
            const MINIMA: Minima = Minima::$minima;

            #[inline(always)]
            unsafe fn codes<S: Simd, const V: usize>(group: *const u8, pair: usize, row: usize) -> [[S::I; V]; 2] {
                const PARTS: Parts = parts(WeightType::$name);
                if $bits == 8 {
                    let first = group.add(PARTS.codes + pair * 8 * PANEL);
                    return [dword_rows::<S, V>(first, row), dword_rows::<S, V>(first.add(4 * PANEL), row)];
                }
                let codes = nibbles::<S, V>(dword_rows::<S, V>(group.add(PARTS.codes + pair * 4 * PANEL), row));
                match $bits {
                    5 => {
                        let high = dword_rows::<S, V>(group.add(PARTS.high + pair / 4 * 4 * PANEL), row);
                        with_high::<S, V>(codes, high, 4 - 2 * (pair % 4) as i32, 1)
                    }
                    6 => {
                        let high = dword_rows::<S, V>(group.add(PARTS.high + pair / 2 * 4 * PANEL), row);
                        with_high::<S, V>(codes, high, 4 - 4 * (pair % 2) as i32, 2)
                    }
                    _ => codes,
                }
            }

            #[inline(always)]
            unsafe fn scale<S: Simd, const V: usize>(group: *const u8, sub: usize, row: usize) -> [S::F; V] {
                let mut scales = f16_rows::<S, V>(group, row);
                if $group == 256 {
                    let at = group.add(parts(WeightType::$name).sub + sub * PANEL + row);
                    for (v, scale) in scales.iter_mut().enumerate() {
                        let of_sub = if $sub == 16 {
                            S::load_i8(at.add(v * S::LANES))
                        } else {
                            S::and(S::load_u8(at.add(v * S::LANES)), S::splat_i32(63))
                        };
                        *scale = S::mul(*scale, S::to_f32(of_sub));
                    }
                }
                scales
            }

            #[inline(always)]
            unsafe fn minimum<S: Simd, const V: usize>(group: *const u8, row: usize) -> [S::F; V] {
                f16_rows::<S, V>(group.add(64), row)
            }

            #[inline(always)]
            unsafe fn minimum_pair<S: Simd, const V: usize>(group: *const u8, i: usize, row: usize) -> [S::I; V] {
                let at = group.add(parts(WeightType::$name).sub + row);
                let mut pairs = [S::splat_i32(0); V];
                for (v, pair) in pairs.iter_mut().enumerate() {
                    let bytes = |line: usize| at.add(line * PANEL + v * S::LANES);
                    let (first, second) = (S::load_u8(bytes(2 * i)), S::load_u8(bytes(2 * i + 1)));
                    let high = S::load_u8(bytes(8 + i));
                    let fifteen = S::splat_i32(15);
                    let first = S::or(S::shr32(first, 6), S::shl32(S::and(high, fifteen), 2));
                    let second = S::or(S::shr32(second, 6), S::shl32(S::shr32(high, 4), 2));
                    *pair = S::or(first, S::shl32(second, 16));
                }
                pairs
            }
        }
    )*};
}

formats! {
    Q4_0: 4 bits, 32 / 32, offset 8, None;
    Q4_1: 4 bits, 32 / 32, offset 0, Group;
    Q5_0: 5 bits, 32 / 32, offset 16, None;
    Q8_0: 8 bits, 32 / 32, offset 128, None;
    Q4K: 4 bits, 256 / 32, offset 0, SubBlocks;
    Q5K: 5 bits, 256 / 32, offset 0, SubBlocks;
    Q6K: 6 bits, 256 / 16, offset 32, None;
}

/// Groups of `W` with scales and minima in f32, and one byte per code. Codes of 4 bits stay packed
/// two per byte, since two operations per vector separate them.
pub(crate) struct Unpacked<W>(PhantomData<W>);

impl<W: Format> Unpacked<W> {
    const SCALES: usize = W::GROUP * PANEL / if W::BITS == 4 { 2 } else { 1 };
    const MINIMUM: usize = Self::SCALES + W::GROUP / W::SUB * PANEL * 4;
    const PAIRS: usize = match W::MINIMA {
        Minima::None => Self::MINIMUM,
        _ => Self::MINIMUM + PANEL * 4,
    };

    /// Unpacks one group of a panel to `to`, which has room for `Self::BYTES`.
    #[inline(always)]
    pub(crate) unsafe fn unpack<S: Simd>(group: *const u8, to: *mut u8) {
        let f32_to = |at: usize, row: usize| to.add(at + row * 4).cast::<f32>();
        if W::BITS == 4 {
            for at in (0..Self::SCALES).step_by(4 * S::LANES) {
                S::store(to.add(at), S::load(group.add(W::CODES + at)));
            }
        }
        for row in (0..PANEL).step_by(S::LANES) {
            for pair in 0..if W::BITS == 4 { 0 } else { W::GROUP / 8 } {
                let [first, second] = W::codes::<S, 1>(group, pair, row);
                S::store(to.add(pair * 8 * PANEL + row * 4), first[0]);
                S::store(to.add((pair * 8 + 4) * PANEL + row * 4), second[0]);
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
                for i in 0..W::GROUP / 64 {
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
        Minima::SubBlocks => Self::PAIRS + W::GROUP / 64 * PANEL * 4,
        _ => Self::PAIRS,
    };
    const CODES: usize = 0;
    const OFFSET: i32 = W::OFFSET;
    const MINIMA: Minima = W::MINIMA;

    #[inline(always)]
    unsafe fn codes<S: Simd, const V: usize>(group: *const u8, pair: usize, row: usize) -> [[S::I; V]; 2] {
        if W::BITS == 4 {
            return nibbles::<S, V>(dword_rows::<S, V>(group.add(pair * 4 * PANEL), row));
        }
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
