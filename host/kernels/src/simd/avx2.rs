//! AVX2 with FMA and F16C: 8 lanes. A second set adds AVX-VNNI, which multiplies bytes with one
//! instruction instead of three.
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code under the contract of `Simd`")]

use std::arch::x86_64::*;

use super::{Job, Simd};

#[derive(Clone, Copy)]
pub(crate) struct Avx2;

#[derive(Clone, Copy)]
pub(crate) struct AvxVnni;

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn enter_avx2<J: Job<Avx2>>(job: J) {
    job.run();
}

#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn enter_avx_vnni<J: Job<AvxVnni>>(job: J) {
    job.run();
}

/// Operations that both sets share: all except products of bytes.
macro_rules! common {
    () => {
        type I = __m256i;
        type F = __m256;
        const LANES: usize = 8;
        const TILE: usize = 4;
        const QUERIES: usize = 4;

        #[inline(always)]
        unsafe fn load(from: *const u8) -> __m256i {
            _mm256_loadu_si256(from.cast())
        }
        #[inline(always)]
        unsafe fn store(to: *mut u8, value: __m256i) {
            _mm256_storeu_si256(to.cast(), value);
        }
        #[inline(always)]
        unsafe fn load_u8(from: *const u8) -> __m256i {
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))
        }
        #[inline(always)]
        unsafe fn load_i8(from: *const u8) -> __m256i {
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))
        }
        #[inline(always)]
        unsafe fn store_i8(to: *mut i8, value: __m256i) {
            let words = _mm_packs_epi32(_mm256_castsi256_si128(value), _mm256_extracti128_si256::<1>(value));
            _mm_storel_epi64(to.cast(), _mm_packs_epi16(words, words));
        }
        #[inline(always)]
        unsafe fn splat_i32(value: i32) -> __m256i {
            _mm256_set1_epi32(value)
        }
        #[inline(always)]
        unsafe fn and(a: __m256i, b: __m256i) -> __m256i {
            _mm256_and_si256(a, b)
        }
        #[inline(always)]
        unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
            _mm256_or_si256(a, b)
        }
        #[inline(always)]
        unsafe fn merge(a: __m256i, b: __m256i, mask: __m256i) -> __m256i {
            _mm256_or_si256(a, _mm256_and_si256(b, mask))
        }
        #[inline(always)]
        unsafe fn look_up(table: &[u8; 16], bytes: __m256i) -> __m256i {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, bytes)
        }
        #[inline(always)]
        unsafe fn shl16(value: __m256i, bits: i32) -> __m256i {
            _mm256_sll_epi16(value, _mm_cvtsi32_si128(bits))
        }
        #[inline(always)]
        unsafe fn shr16(value: __m256i, bits: i32) -> __m256i {
            _mm256_srl_epi16(value, _mm_cvtsi32_si128(bits))
        }
        #[inline(always)]
        unsafe fn shl32(value: __m256i, bits: i32) -> __m256i {
            _mm256_sll_epi32(value, _mm_cvtsi32_si128(bits))
        }
        #[inline(always)]
        unsafe fn shr32(value: __m256i, bits: i32) -> __m256i {
            _mm256_srl_epi32(value, _mm_cvtsi32_si128(bits))
        }

        #[inline(always)]
        unsafe fn load_f32(from: *const f32) -> __m256 {
            _mm256_loadu_ps(from)
        }
        #[inline(always)]
        unsafe fn store_f32(to: *mut f32, value: __m256) {
            _mm256_storeu_ps(to, value);
        }
        #[inline(always)]
        unsafe fn load_f16(from: *const u16) -> __m256 {
            _mm256_cvtph_ps(_mm_loadu_si128(from.cast()))
        }
        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> __m256 {
            let numbers = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(numbers))
        }
        #[inline(always)]
        unsafe fn store_f16(to: *mut u16, value: __m256) {
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value));
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> __m256 {
            _mm256_set1_ps(value)
        }
        #[inline(always)]
        unsafe fn to_f32(value: __m256i) -> __m256 {
            _mm256_cvtepi32_ps(value)
        }
        #[inline(always)]
        unsafe fn to_i32(value: __m256) -> __m256i {
            _mm256_cvtps_epi32(value)
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            _mm256_add_ps(a, b)
        }
        #[inline(always)]
        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            _mm256_sub_ps(a, b)
        }
        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            _mm256_mul_ps(a, b)
        }
        #[inline(always)]
        unsafe fn div(a: __m256, b: __m256) -> __m256 {
            _mm256_div_ps(a, b)
        }
        #[inline(always)]
        unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
            _mm256_fmadd_ps(a, b, c)
        }
        #[inline(always)]
        unsafe fn max(a: __m256, b: __m256) -> __m256 {
            _mm256_max_ps(a, b)
        }
        #[inline(always)]
        unsafe fn abs(a: __m256) -> __m256 {
            _mm256_andnot_ps(_mm256_set1_ps(-0.0), a)
        }
        #[inline(always)]
        unsafe fn reduce_max(a: __m256) -> f32 {
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        }
        #[inline(always)]
        unsafe fn reduce_add(a: __m256) -> f32 {
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        }
        #[inline(always)]
        unsafe fn scale_by_power(value: __m256, power: __m256) -> __m256 {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(power), _mm256_set1_epi32(127));
            _mm256_mul_ps(value, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }
        #[inline(always)]
        unsafe fn round(value: __m256) -> __m256 {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value)
        }
        #[inline(always)]
        unsafe fn prefetch(from: *const u8) {
            _mm_prefetch::<_MM_HINT_T0>(from.cast());
        }
        #[inline(always)]
        unsafe fn prefetch_second_level(from: *const u8) {
            _mm_prefetch::<_MM_HINT_T1>(from.cast());
        }
    };
}

impl Simd for Avx2 {
    common!();
    const SIGNED_8: bool = true;
    const TOKENS: usize = 1;

    unsafe fn enter<J: Job<Self>>(job: J) {
        enter_avx2(job);
    }

    /// Sums of pairs in 16 bits hold 8 groups of codes of up to 4 bits (8 · 2 · 15 · 127 = 30,480),
    /// 4 of 5 bits, 2 of 6 bits and 1 of 8 bits.
    #[inline(always)]
    fn run_length(bits: u32) -> usize {
        match bits {
            ..=4 => 8,
            5 => 4,
            6 => 2,
            _ => 1,
        }
    }
    #[inline(always)]
    unsafe fn begin(_sum: __m256i) -> __m256i {
        _mm256_setzero_si256()
    }
    #[inline(always)]
    unsafe fn dot(bits: u32, partial: __m256i, codes: __m256i, input: __m256i) -> __m256i {
        if bits == 8 {
            // Unsigned 8-bit codes overflow 16-bit sums; magnitudes up to 128 do not.
            let signed = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
            let products = _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(input, signed));
            return _mm256_add_epi16(partial, products);
        }
        _mm256_add_epi16(partial, _mm256_maddubs_epi16(codes, input))
    }
    #[inline(always)]
    unsafe fn end(sum: __m256i, partial: __m256i) -> __m256i {
        _mm256_add_epi32(sum, _mm256_madd_epi16(partial, _mm256_set1_epi16(1)))
    }
    #[inline(always)]
    unsafe fn dot_pairs(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
    }
}

impl Simd for AvxVnni {
    common!();
    const SIGNED_8: bool = false;
    const TOKENS: usize = 1;

    unsafe fn enter<J: Job<Self>>(job: J) {
        enter_avx_vnni(job);
    }

    #[inline(always)]
    fn run_length(_bits: u32) -> usize {
        usize::MAX
    }
    #[inline(always)]
    unsafe fn begin(sum: __m256i) -> __m256i {
        sum
    }
    #[inline(always)]
    unsafe fn dot(_bits: u32, partial: __m256i, codes: __m256i, input: __m256i) -> __m256i {
        _mm256_dpbusd_avx_epi32(partial, codes, input)
    }
    #[inline(always)]
    unsafe fn end(_sum: __m256i, partial: __m256i) -> __m256i {
        partial
    }
    #[inline(always)]
    unsafe fn dot_pairs(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        _mm256_dpwssd_avx_epi32(sum, a, b)
    }
}
