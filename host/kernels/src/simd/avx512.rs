//! AVX-512 with VNNI: 16 lanes, and products of bytes in one instruction.
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code under the contract of `Simd`")]

use std::arch::x86_64::*;

use super::{Job, Simd};

#[derive(Clone, Copy)]
pub(crate) struct Avx512Vnni;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn enter<J: Job<Avx512Vnni>>(job: J) {
    job.run();
}

impl Simd for Avx512Vnni {
    type I = __m512i;
    type F = __m512;
    const LANES: usize = 16;
    const TILE: usize = 6;
    const QUERIES: usize = 8;
    const SIGNED_8: bool = false;
    const TOKENS: usize = 1;

    unsafe fn enter<J: Job<Self>>(job: J) {
        enter(job);
    }

    #[inline(always)]
    fn run_length(_bits: u32) -> usize {
        usize::MAX
    }
    #[inline(always)]
    unsafe fn begin(sum: __m512i) -> __m512i {
        sum
    }
    #[inline(always)]
    unsafe fn dot(_bits: u32, partial: __m512i, codes: __m512i, input: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(partial, codes, input)
    }
    #[inline(always)]
    unsafe fn end(_sum: __m512i, partial: __m512i) -> __m512i {
        partial
    }
    #[inline(always)]
    unsafe fn dot_pairs(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        _mm512_dpwssd_epi32(sum, a, b)
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512i {
        _mm512_loadu_si512(from.cast())
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, value: __m512i) {
        _mm512_storeu_si512(to.cast(), value);
    }
    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> __m512i {
        _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> __m512i {
        _mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: __m512i) {
        _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(value));
    }
    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> __m512i {
        _mm512_set1_epi32(value)
    }
    #[inline(always)]
    unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
        _mm512_and_si512(a, b)
    }
    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        _mm512_or_si512(a, b)
    }
    #[inline(always)]
    unsafe fn merge(a: __m512i, b: __m512i, mask: __m512i) -> __m512i {
        // Truth table of `a | (b & mask)`.
        _mm512_ternarylogic_epi32::<0xF8>(a, b, mask)
    }
    #[inline(always)]
    unsafe fn look_up(table: &[u8; 16], bytes: __m512i) -> __m512i {
        let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
        _mm512_shuffle_epi8(table, bytes)
    }
    #[inline(always)]
    unsafe fn shl16(value: __m512i, bits: i32) -> __m512i {
        _mm512_sll_epi16(value, _mm_cvtsi32_si128(bits))
    }
    #[inline(always)]
    unsafe fn shr16(value: __m512i, bits: i32) -> __m512i {
        _mm512_srl_epi16(value, _mm_cvtsi32_si128(bits))
    }
    #[inline(always)]
    unsafe fn shl32(value: __m512i, bits: i32) -> __m512i {
        _mm512_sll_epi32(value, _mm_cvtsi32_si128(bits))
    }
    #[inline(always)]
    unsafe fn shr32(value: __m512i, bits: i32) -> __m512i {
        _mm512_srl_epi32(value, _mm_cvtsi32_si128(bits))
    }

    #[inline(always)]
    unsafe fn load_f32(from: *const f32) -> __m512 {
        _mm512_loadu_ps(from)
    }
    #[inline(always)]
    unsafe fn store_f32(to: *mut f32, value: __m512) {
        _mm512_storeu_ps(to, value);
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> __m512 {
        _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> __m512 {
        let numbers = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(numbers))
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: __m512) {
        _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value));
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        _mm512_set1_ps(value)
    }
    #[inline(always)]
    unsafe fn to_f32(value: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(value)
    }
    #[inline(always)]
    unsafe fn to_i32(value: __m512) -> __m512i {
        _mm512_cvtps_epi32(value)
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        _mm512_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        _mm512_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        _mm512_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn abs(a: __m512) -> __m512 {
        _mm512_abs_ps(a)
    }
    #[inline(always)]
    unsafe fn reduce_max(a: __m512) -> f32 {
        _mm512_reduce_max_ps(a)
    }
    #[inline(always)]
    unsafe fn reduce_add(a: __m512) -> f32 {
        _mm512_reduce_add_ps(a)
    }
    #[inline(always)]
    unsafe fn scale_by_power(value: __m512, power: __m512) -> __m512 {
        _mm512_scalef_ps(value, power)
    }
    #[inline(always)]
    unsafe fn round(value: __m512) -> __m512 {
        _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(value)
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        _mm_prefetch::<_MM_HINT_T0>(from.cast());
    }
    #[inline(always)]
    unsafe fn prefetch_second_level(from: *const u8) {
        _mm_prefetch::<_MM_HINT_T1>(from.cast());
    }
}
