//! Decoding of packed weights: one [`Format`] for each quantised type. Offsets follow the table in
//! `pack`.
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code under the contract of `Format`")]

use crate::WeightType;
use crate::layout::{Layout, Minima, PANEL, Scale, SubScales, layout};
use crate::simd::Simd;

/// Access to the groups of a panel in memory.
///
/// # Safety
/// `group` points to a whole group; `row` is the first of `V` whole vectors of rows in the panel.
pub(crate) trait Format {
    /// Bits of a code, after its table.
    const BITS: u32;
    /// Number of columns of a group, and of a sub-block with its own weight scale.
    const GROUP: usize;
    const SUB: usize;
    const BYTES: usize;
    /// Number of sub-blocks whose codes share bytes.
    const TOGETHER: usize;
    const OFFSET: i32;
    const MINIMA: Minima;
    /// Number of tokens from which unpacking pays off; `None` for weights that are unpacked, whose
    /// codes are in the order of `Lanes::interleave`.
    const MANY: Option<usize>;

    /// Returns the codes of eight columns of a group, in two steps of four.
    unsafe fn codes<S: Simd, const V: usize>(group: *const u8, pair: usize, row: usize) -> [[S::I; V]; 2];
    /// Returns the scales of a sub-block.
    unsafe fn scale<S: Simd, const V: usize>(group: *const u8, sub: usize, row: usize) -> [S::F; V];
    /// Returns the minima of a group, or their scales.
    unsafe fn minimum<S: Simd, const V: usize>(group: *const u8, row: usize) -> [S::F; V];
    /// Returns the minima of sub-blocks `2 i` and `2 i + 1` as two 16-bit numbers per lane.
    unsafe fn minimum_pair<S: Simd, const V: usize>(group: *const u8, i: usize, row: usize) -> [S::I; V];
}

/// Loads four bytes per row.
#[inline(always)]
pub(super) unsafe fn dword_rows<S: Simd, const V: usize>(at: *const u8, row: usize) -> [S::I; V] {
    let mut values = [S::splat_i32(0); V];
    for (v, value) in values.iter_mut().enumerate() {
        *value = S::load(at.add((row + v * S::LANES) * 4));
    }
    values
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

/// Loads `width` bits per code of two steps of four columns, the first of which is step `step` of
/// the group. Moves them up by `to` bits and merges them with `codes`.
#[inline(always)]
unsafe fn add_bits<S: Simd, const V: usize>(
    codes: &mut [[S::I; V]; 2],
    at: *const u8,
    row: usize,
    step: usize,
    width: usize,
    to: usize,
) {
    let values = dword_rows::<S, V>(at.add(step * width / 8 * 4 * PANEL), row);
    let first = (step * width % 8) as i32;
    let mask = S::splat_i32((0x0101_0101 * ((1 << width) - 1)) << to);
    let shift = to as i32 - first;
    for v in 0..V {
        codes[0][v] = S::merge(codes[0][v], shift16::<S>(values[v], shift), mask);
        codes[1][v] = S::merge(codes[1][v], shift16::<S>(values[v], shift - width as i32), mask);
    }
}

/// A quantised type whose packed groups are read directly.
pub(crate) trait Packed {
    const LAYOUT: Layout;
}

macro_rules! packed {
    ($($name:ident)*) => {$(
        pub(crate) struct $name;

        impl Packed for $name {
            const LAYOUT: Layout = layout(WeightType::$name);
        }
    )*};
}

packed! { Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2K Q3K Q4K Q5K Q6K Iq4Nl Iq4Xs Mxfp4 }

impl<P: Packed> Format for P {
    const BITS: u32 = P::LAYOUT.code_bits();
    const GROUP: usize = P::LAYOUT.group;
    const SUB: usize = P::LAYOUT.sub;
    const BYTES: usize = P::LAYOUT.bytes();
    const TOGETHER: usize = match P::LAYOUT.high_bits() {
        0 => 1,
        bits => (32 / bits).div_ceil(P::LAYOUT.sub),
    };
    const OFFSET: i32 = P::LAYOUT.offset;
    const MINIMA: Minima = P::LAYOUT.minima;
    // Measured, with 8 to 96 tokens.
    const MANY: Option<usize> = Some(match P::LAYOUT {
        Layout { bits: 8, .. } => usize::MAX,
        Layout {
            bits: 2 | 4,
            scale: Scale::F16,
            sub_scales: SubScales::None | SubScales::FourBitPairs,
            ..
        } => 48,
        _ => 10,
    });

    #[inline(always)]
    unsafe fn codes<S: Simd, const V: usize>(group: *const u8, pair: usize, row: usize) -> [[S::I; V]; 2] {
        let low = group.add(const { P::LAYOUT.low_at() });
        if const { P::LAYOUT.bits == 8 } {
            let first = low.add(pair * 8 * PANEL);
            return [dword_rows::<S, V>(first, row), dword_rows::<S, V>(first.add(4 * PANEL), row)];
        }
        let mut codes = [[S::splat_i32(0); V]; 2];
        let (low_bits, high_bits) = const { (P::LAYOUT.low_bits(), P::LAYOUT.high_bits()) };
        add_bits::<S, V>(&mut codes, low, row, pair * 2, low_bits, 0);
        if high_bits > 0 {
            let high = group.add(const { P::LAYOUT.high_at() });
            add_bits::<S, V>(&mut codes, high, row, pair * 2, high_bits, low_bits);
        }
        if let Some(table) = P::LAYOUT.table {
            for codes in codes.as_flattened_mut() {
                *codes = S::look_up(table, *codes);
            }
        }
        codes
    }

    #[inline(always)]
    unsafe fn scale<S: Simd, const V: usize>(group: *const u8, sub: usize, row: usize) -> [S::F; V] {
        let mut scales = [S::splat(0.0); V];
        for (v, scale) in scales.iter_mut().enumerate() {
            let row = row + v * S::LANES;
            *scale = match P::LAYOUT.scale {
                Scale::F16 => S::load_f16(group.cast::<u16>().add(row)),
                Scale::Power => power_of_two::<S>(S::load_u8(group.add(row))),
            };
            if let Some(of_sub) = sub_scale::<S, P>(group, sub, row) {
                *scale = S::mul(*scale, of_sub);
            }
        }
        scales
    }

    #[inline(always)]
    unsafe fn minimum<S: Simd, const V: usize>(group: *const u8, row: usize) -> [S::F; V] {
        let mut minima = [S::splat(0.0); V];
        for (v, minimum) in minima.iter_mut().enumerate() {
            let at = group.add(const { P::LAYOUT.minima_at() });
            *minimum = S::load_f16(at.cast::<u16>().add(row + v * S::LANES));
        }
        minima
    }

    #[inline(always)]
    unsafe fn minimum_pair<S: Simd, const V: usize>(group: *const u8, i: usize, row: usize) -> [S::I; V] {
        let at = group.add(const { P::LAYOUT.subs_at() } + row);
        let mut pairs = [S::splat_i32(0); V];
        for (v, pair) in pairs.iter_mut().enumerate() {
            let bytes = |line: usize| S::load_u8(at.add(line * PANEL + v * S::LANES));
            let (first, second) = (bytes(2 * i), bytes(2 * i + 1));
            let (first, second) = match P::LAYOUT.sub_scales {
                SubScales::FourBitPairs => (S::shr32(first, 4), S::shr32(second, 4)),
                _ => {
                    let high = bytes(const { P::LAYOUT.subs() } + i);
                    let first_high = S::and(high, S::splat_i32(15));
                    (
                        S::or(S::shr32(first, 6), S::shl32(first_high, 2)),
                        S::or(S::shr32(second, 6), S::shl32(S::shr32(high, 4), 2)),
                    )
                }
            };
            *pair = S::or(first, S::shl32(second, 16));
        }
        pairs
    }
}

/// Returns the scales of a sub-block as a factor of the group's, if the type has sub-blocks.
#[inline(always)]
unsafe fn sub_scale<S: Simd, P: Packed>(group: *const u8, sub: usize, row: usize) -> Option<S::F> {
    let at = group.add(const { P::LAYOUT.subs_at() } + row);
    let of_sub = match P::LAYOUT.sub_scales {
        SubScales::None => return None,
        SubScales::Bytes => S::load_i8(at.add(sub * PANEL)),
        SubScales::SixBitPairs => S::and(S::load_u8(at.add(sub * PANEL)), S::splat_i32(63)),
        SubScales::FourBitPairs => S::and(S::load_u8(at.add(sub * PANEL)), S::splat_i32(15)),
        SubScales::SixBits => {
            let (low, high) = (at.add(sub / 2 * PANEL), at.add((P::LAYOUT.subs() / 2 + sub / 4) * PANEL));
            let low = S::and(S::shr32(S::load_u8(low), (sub % 2 * 4) as i32), S::splat_i32(15));
            let high = S::and(S::shr32(S::load_u8(high), (sub % 4 * 2) as i32), S::splat_i32(3));
            let six = S::or(low, S::shl32(high, 4));
            return Some(S::add(S::to_f32(six), S::splat(-32.0)));
        }
    };
    Some(S::to_f32(of_sub))
}

/// Returns 2^(exponent - 128) for exponents of 0 to 255, in two factors because the ends of this
/// range are outside of [`Simd::scale_by_power`]'s.
#[inline(always)]
unsafe fn power_of_two<S: Simd>(exponent: S::I) -> S::F {
    let (one, bias) = (S::splat(1.0), S::splat(-64.0));
    let half = S::to_f32(S::shr32(exponent, 1));
    let rest = S::sub(S::to_f32(exponent), half);
    S::mul(S::scale_by_power(one, S::add(half, bias)), S::scale_by_power(one, S::add(rest, bias)))
}
