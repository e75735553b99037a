//! Vectors of whole numbers: WebAssembly's instructions, and on other machines plain Rust with the
//! same results.

#[cfg(target_arch = "wasm32")]
use wasm as arithmetic;

#[cfg(not(target_arch = "wasm32"))]
use portable as arithmetic;

/// I16x8 16-bit numbers.
#[derive(Clone, Copy)]
pub(super) struct I16x8(arithmetic::I16x8);

/// I32x4 32-bit numbers. Sums wrap.
#[derive(Clone, Copy)]
pub(super) struct I32x4(arithmetic::I32x4);

impl I16x8 {
    #[inline(always)]
    pub(super) fn new(numbers: [i16; 8]) -> I16x8 {
        I16x8(arithmetic::new(numbers))
    }

    /// Clamps numbers to 16 bits.
    #[inline(always)]
    pub(super) fn clamped(low: I32x4, high: I32x4) -> I16x8 {
        I16x8(arithmetic::clamped(low.0, high.0))
    }

    /// The first four numbers of both, interleaved.
    #[inline(always)]
    pub(super) fn zip_low(self, other: I16x8) -> I16x8 {
        I16x8(arithmetic::zip_low(self.0, other.0))
    }

    /// The last four numbers of both, interleaved.
    #[inline(always)]
    pub(super) fn zip_high(self, other: I16x8) -> I16x8 {
        I16x8(arithmetic::zip_high(self.0, other.0))
    }

    /// For each pair of neighbours, the sum of their products with two factors.
    #[inline(always)]
    pub(super) fn dot(self, first: i16, second: i16) -> I32x4 {
        I32x4(arithmetic::dot(self.0, first, second))
    }

    /// True if a number is outside of -512 to 511.
    #[inline(always)]
    pub(super) fn exceed_512<const N: usize>(numbers: [I16x8; N]) -> bool {
        arithmetic::exceed_512(numbers.map(|vector| vector.0))
    }

    /// Samples from differences to the middle: those of `self`, then those of `other`.
    #[inline(always)]
    pub(super) fn levels(self, other: I16x8) -> [u8; 16] {
        arithmetic::levels(self.0, other.0)
    }
}

impl I32x4 {
    #[inline(always)]
    pub(super) fn add(self, other: I32x4) -> I32x4 {
        I32x4(arithmetic::add(self.0, other.0))
    }

    #[inline(always)]
    pub(super) fn sub(self, other: I32x4) -> I32x4 {
        I32x4(arithmetic::sub(self.0, other.0))
    }

    /// Divides by 2^`bits` and rounds.
    #[inline(always)]
    pub(super) fn down(self, bits: u32) -> I32x4 {
        I32x4(arithmetic::down(self.0, bits))
    }
}

#[cfg(target_arch = "wasm32")]
mod wasm {
    use std::arch::wasm32::*;

    pub(super) type I16x8 = v128;
    pub(super) type I32x4 = v128;

    #[inline(always)]
    pub(super) fn new(numbers: [i16; 8]) -> v128 {
        bytemuck::cast(numbers)
    }

    #[inline(always)]
    pub(super) fn clamped(low: v128, high: v128) -> v128 {
        i16x8_narrow_i32x4(low, high)
    }

    #[inline(always)]
    pub(super) fn zip_low(one: v128, other: v128) -> v128 {
        i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(one, other)
    }

    #[inline(always)]
    pub(super) fn zip_high(one: v128, other: v128) -> v128 {
        i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(one, other)
    }

    #[inline(always)]
    pub(super) fn dot(numbers: v128, first: i16, second: i16) -> v128 {
        let factors = i16x8(first, second, first, second, first, second, first, second);
        i32x4_dot_i16x8(numbers, factors)
    }

    #[inline(always)]
    pub(super) fn exceed_512<const N: usize>(numbers: [v128; N]) -> bool {
        let shifted = numbers.map(|number| i16x8_add(number, i16x8_splat(512)));
        let bits = shifted.into_iter().fold(i16x8_splat(0), |bits, number| v128_or(bits, number));
        v128_any_true(v128_and(bits, i16x8_splat(!1023)))
    }

    #[inline(always)]
    pub(super) fn levels(one: v128, other: v128) -> [u8; 16] {
        let middle = i16x8_splat(128);
        bytemuck::cast(u8x16_narrow_i16x8(i16x8_add_sat(one, middle), i16x8_add_sat(other, middle)))
    }

    #[inline(always)]
    pub(super) fn add(one: v128, other: v128) -> v128 {
        i32x4_add(one, other)
    }

    #[inline(always)]
    pub(super) fn sub(one: v128, other: v128) -> v128 {
        i32x4_sub(one, other)
    }

    #[inline(always)]
    pub(super) fn down(numbers: v128, bits: u32) -> v128 {
        i32x4_shr(i32x4_add(numbers, i32x4_splat(1 << (bits - 1))), bits)
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod portable {
    use std::array::from_fn;

    pub(super) type I16x8 = [i16; 8];
    pub(super) type I32x4 = [i32; 4];

    #[inline(always)]
    pub(super) fn new(numbers: I16x8) -> I16x8 {
        numbers
    }

    #[inline(always)]
    pub(super) fn clamped(low: I32x4, high: I32x4) -> I16x8 {
        let number = |at: usize| if at < 4 { low[at] } else { high[at - 4] };
        from_fn(|at| number(at).clamp(i16::MIN.into(), i16::MAX.into()) as i16)
    }

    #[inline(always)]
    pub(super) fn zip_low(one: I16x8, other: I16x8) -> I16x8 {
        from_fn(|at| if at % 2 == 0 { one[at / 2] } else { other[at / 2] })
    }

    #[inline(always)]
    pub(super) fn zip_high(one: I16x8, other: I16x8) -> I16x8 {
        from_fn(|at| if at % 2 == 0 { one[4 + at / 2] } else { other[4 + at / 2] })
    }

    #[inline(always)]
    pub(super) fn dot(numbers: I16x8, first: i16, second: i16) -> I32x4 {
        let product = |number: i16, factor: i16| i32::from(number) * i32::from(factor);
        from_fn(|at| product(numbers[2 * at], first).wrapping_add(product(numbers[2 * at + 1], second)))
    }

    #[inline(always)]
    pub(super) fn exceed_512<const N: usize>(numbers: [I16x8; N]) -> bool {
        numbers.as_flattened().iter().any(|number| !(-512..512).contains(number))
    }

    #[inline(always)]
    pub(super) fn levels(one: I16x8, other: I16x8) -> [u8; 16] {
        let number = |at: usize| if at < 8 { one[at] } else { other[at - 8] };
        from_fn(|at| number(at).saturating_add(128).clamp(0, 255) as u8)
    }

    #[inline(always)]
    pub(super) fn add(one: I32x4, other: I32x4) -> I32x4 {
        from_fn(|at| one[at].wrapping_add(other[at]))
    }

    #[inline(always)]
    pub(super) fn sub(one: I32x4, other: I32x4) -> I32x4 {
        from_fn(|at| one[at].wrapping_sub(other[at]))
    }

    #[inline(always)]
    pub(super) fn down(numbers: I32x4, bits: u32) -> I32x4 {
        numbers.map(|number| number.wrapping_add(1 << (bits - 1)) >> bits)
    }
}
