//! Plain Rust on arrays, which runs on every CPU and leaves vectorisation to the compiler.
#![allow(clippy::needless_range_loop, reason = "two arrays, one index")]
#![allow(unsafe_op_in_unsafe_fn, reason = "pointer reads under the contract of `Simd`")]

use half::f16;

use super::{Job, Simd};

const LANES: usize = 8;

#[derive(Clone, Copy)]
pub(crate) struct Portable;

type I = [u32; LANES];
type F = [f32; LANES];

/// Adding and then subtracting this number rounds to an integral value, ties to even, below 2^22.
const ROUND: f32 = 12_582_912.0;

// Loops, because the compiler vectorises these but not `array::map` and `from_fn`.

#[inline(always)]
fn map<A: Copy, B: Copy + Default>(a: [A; LANES], f: impl Fn(A) -> B) -> [B; LANES] {
    let mut out = [B::default(); LANES];
    for i in 0..LANES {
        out[i] = f(a[i]);
    }
    out
}

#[inline(always)]
fn zip<A: Copy, B: Copy, C: Copy + Default>(
    a: [A; LANES],
    b: [B; LANES],
    f: impl Fn(A, B) -> C,
) -> [C; LANES] {
    let mut out = [C::default(); LANES];
    for i in 0..LANES {
        out[i] = f(a[i], b[i]);
    }
    out
}

/// Shifts both halves of each lane; `keep` masks the bits that remain in a half.
#[inline(always)]
fn halves(value: I, f: impl Fn(u16) -> u16) -> I {
    map(value, |v| u32::from(f(v as u16)) | u32::from(f((v >> 16) as u16)) << 16)
}

impl Simd for Portable {
    type I = I;
    type F = F;
    const LANES: usize = LANES;
    const TILE: usize = 4;
    const QUERIES: usize = 4;
    const SIGNED_8: bool = false;
    const TOKENS: usize = 1;

    unsafe fn enter<J: Job<Self>>(job: J) {
        job.run();
    }

    #[inline(always)]
    fn run_length(_bits: u32) -> usize {
        // Any number, but the compiler's code for one token is a quarter longer without runs.
        8
    }
    #[inline(always)]
    unsafe fn begin(sum: I) -> I {
        sum
    }
    #[inline(always)]
    unsafe fn dot(_bits: u32, partial: I, codes: I, input: I) -> I {
        let products = zip(codes, input, |codes, input| {
            let mut sum = 0i32;
            for shift in [0, 8, 16, 24] {
                sum += i32::from((codes >> shift) as u8) * i32::from((input >> shift) as i8);
            }
            sum
        });
        zip(partial, products, |sum, product| (sum as i32).wrapping_add(product) as u32)
    }
    #[inline(always)]
    unsafe fn end(_sum: I, partial: I) -> I {
        partial
    }
    #[inline(always)]
    unsafe fn dot_pairs(sum: I, a: I, b: I) -> I {
        let half = |v: u32, at: u32| i32::from((v >> at) as i16);
        let products = zip(a, b, |a, b| half(a, 0) * half(b, 0) + half(a, 16) * half(b, 16));
        zip(sum, products, |sum, product| (sum as i32).wrapping_add(product) as u32)
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> I {
        from.cast::<I>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, value: I) {
        to.cast::<I>().write_unaligned(value);
    }
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> I {
        map(from.cast::<[u8; LANES]>().read(), u32::from)
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> I {
        map(from.cast::<[i8; LANES]>().read(), |v| i32::from(v) as u32)
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: I) {
        to.cast::<[i8; LANES]>().write(map(value, |v| v as i8));
    }
    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> I {
        [value as u32; LANES]
    }
    #[inline(always)]
    unsafe fn and(a: I, b: I) -> I {
        zip(a, b, |a, b| a & b)
    }
    #[inline(always)]
    unsafe fn or(a: I, b: I) -> I {
        zip(a, b, |a, b| a | b)
    }
    #[inline(always)]
    unsafe fn merge(a: I, b: I, mask: I) -> I {
        Self::or(a, Self::and(b, mask))
    }
    #[inline(always)]
    unsafe fn look_up(table: &[u8; 16], bytes: I) -> I {
        map(bytes, |four| u32::from_le_bytes(four.to_le_bytes().map(|byte| table[usize::from(byte & 15)])))
    }
    #[inline(always)]
    unsafe fn shl16(value: I, bits: i32) -> I {
        halves(value, |v| v << bits)
    }
    #[inline(always)]
    unsafe fn shr16(value: I, bits: i32) -> I {
        halves(value, |v| v >> bits)
    }
    #[inline(always)]
    unsafe fn shl32(value: I, bits: i32) -> I {
        map(value, |v| v << bits)
    }
    #[inline(always)]
    unsafe fn shr32(value: I, bits: i32) -> I {
        map(value, |v| v >> bits)
    }

    #[inline(always)]
    unsafe fn load_f32(from: *const f32) -> F {
        from.cast::<F>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store_f32(to: *mut f32, value: F) {
        to.cast::<F>().write_unaligned(value);
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> F {
        map(from.cast::<[u16; LANES]>().read_unaligned(), |bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> F {
        map(from.cast::<[u16; LANES]>().read_unaligned(), |bits| f32::from_bits(u32::from(bits) << 16))
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: F) {
        to.cast::<[u16; LANES]>().write_unaligned(map(value, |v| f16::from_f32(v).to_bits()));
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> F {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn to_f32(value: I) -> F {
        map(value, |v| v as i32 as f32)
    }
    #[inline(always)]
    unsafe fn to_i32(value: F) -> I {
        map(value, |v| (v + ROUND).to_bits().wrapping_sub(ROUND.to_bits()))
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn mul_add(a: F, b: F, c: F) -> F {
        zip(zip(a, b, |a, b| a * b), c, |product, c| product + c)
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn abs(a: F) -> F {
        map(a, f32::abs)
    }
    #[inline(always)]
    unsafe fn reduce_max(a: F) -> f32 {
        a.iter().fold(a[0], |max, &v| if max > v { max } else { v })
    }
    #[inline(always)]
    unsafe fn reduce_add(a: F) -> f32 {
        a.iter().sum()
    }
    #[inline(always)]
    unsafe fn scale_by_power(value: F, power: F) -> F {
        zip(value, power, |v, p| v * f32::from_bits((((p as i32).clamp(-126, 127) + 127) << 23) as u32))
    }
    #[inline(always)]
    unsafe fn round(value: F) -> F {
        map(value, |v| (v + ROUND) - ROUND)
    }
}
