//! NEON with dot products of bytes: 4 lanes. A second set adds I8MM, which multiplies unsigned
//! bytes with signed ones, and small matrices of them.
//!
//! Instructions without a stable intrinsic are written as assembly; each block names the extension
//! that it needs.
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code under the contract of `Simd`")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Job, Simd};

#[derive(Clone, Copy)]
pub(crate) struct NeonDotprod;

#[derive(Clone, Copy)]
pub(crate) struct NeonI8mm;

#[target_feature(enable = "neon,dotprod")]
unsafe fn enter_dotprod<J: Job<NeonDotprod>>(job: J) {
    job.run();
}

#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn enter_i8mm<J: Job<NeonI8mm>>(job: J) {
    job.run();
}

/// Operations that both sets share: all except products of bytes.
macro_rules! common {
    () => {
        type I = int32x4_t;
        type F = float32x4_t;
        const LANES: usize = 4;
        const TILE: usize = 6;
        const QUERIES: usize = 8;

        #[inline(always)]
        fn run_length(_bits: u32) -> usize {
            usize::MAX
        }
        #[inline(always)]
        unsafe fn begin(sum: int32x4_t) -> int32x4_t {
            sum
        }
        #[inline(always)]
        unsafe fn end(_sum: int32x4_t, partial: int32x4_t) -> int32x4_t {
            partial
        }
        #[inline(always)]
        unsafe fn dot_pairs(sum: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
            let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
            let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
            vaddq_s32(sum, vpaddq_s32(low, vmull_high_s16(a, b)))
        }

        #[inline(always)]
        unsafe fn load(from: *const u8) -> int32x4_t {
            vreinterpretq_s32_u8(vld1q_u8(from))
        }
        #[inline(always)]
        unsafe fn store(to: *mut u8, value: int32x4_t) {
            vst1q_u8(to, vreinterpretq_u8_s32(value));
        }
        #[inline(always)]
        unsafe fn load_u8(from: *const u8) -> int32x4_t {
            let bytes = vcreate_u8(u64::from(from.cast::<u32>().read_unaligned()));
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
        }
        #[inline(always)]
        unsafe fn load_i8(from: *const u8) -> int32x4_t {
            let bytes = vcreate_s8(u64::from(from.cast::<u32>().read_unaligned()));
            vmovl_s16(vget_low_s16(vmovl_s8(bytes)))
        }
        #[inline(always)]
        unsafe fn store_i8(to: *mut i8, value: int32x4_t) {
            let words = vmovn_s32(value);
            let bytes = vmovn_s16(vcombine_s16(words, words));
            to.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_s8(bytes)));
        }
        #[inline(always)]
        unsafe fn splat_i32(value: i32) -> int32x4_t {
            vdupq_n_s32(value)
        }
        #[inline(always)]
        unsafe fn and(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            vandq_s32(a, b)
        }
        #[inline(always)]
        unsafe fn or(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            vorrq_s32(a, b)
        }
        #[inline(always)]
        unsafe fn merge(a: int32x4_t, b: int32x4_t, mask: int32x4_t) -> int32x4_t {
            vorrq_s32(a, vandq_s32(b, mask))
        }
        #[inline(always)]
        unsafe fn look_up(table: &[u8; 16], bytes: int32x4_t) -> int32x4_t {
            let table = vld1q_u8(table.as_ptr());
            vreinterpretq_s32_u8(vqtbl1q_u8(table, vreinterpretq_u8_s32(bytes)))
        }
        #[inline(always)]
        unsafe fn shl16(value: int32x4_t, bits: i32) -> int32x4_t {
            let words = vshlq_u16(vreinterpretq_u16_s32(value), vdupq_n_s16(bits as i16));
            vreinterpretq_s32_u16(words)
        }
        #[inline(always)]
        unsafe fn shr16(value: int32x4_t, bits: i32) -> int32x4_t {
            Self::shl16(value, -bits)
        }
        #[inline(always)]
        unsafe fn shl32(value: int32x4_t, bits: i32) -> int32x4_t {
            vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(value), vdupq_n_s32(bits)))
        }
        #[inline(always)]
        unsafe fn shr32(value: int32x4_t, bits: i32) -> int32x4_t {
            Self::shl32(value, -bits)
        }

        #[inline(always)]
        unsafe fn load_f32(from: *const f32) -> float32x4_t {
            vld1q_f32(from)
        }
        #[inline(always)]
        unsafe fn store_f32(to: *mut f32, value: float32x4_t) {
            vst1q_f32(to, value);
        }
        #[inline(always)]
        unsafe fn load_f16(from: *const u16) -> float32x4_t {
            let halves = vld1_u16(from);
            let value;
            asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) value, in(vreg) halves, options(pure, nomem, nostack, preserves_flags));
            value
        }
        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> float32x4_t {
            vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from)))
        }
        #[inline(always)]
        unsafe fn store_f16(to: *mut u16, value: float32x4_t) {
            let halves: uint16x4_t;
            asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) halves, in(vreg) value, options(pure, nomem, nostack, preserves_flags));
            vst1_u16(to, halves);
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> float32x4_t {
            vdupq_n_f32(value)
        }
        #[inline(always)]
        unsafe fn to_f32(value: int32x4_t) -> float32x4_t {
            vcvtq_f32_s32(value)
        }
        #[inline(always)]
        unsafe fn to_i32(value: float32x4_t) -> int32x4_t {
            vcvtnq_s32_f32(value)
        }
        #[inline(always)]
        unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            vaddq_f32(a, b)
        }
        #[inline(always)]
        unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            vsubq_f32(a, b)
        }
        #[inline(always)]
        unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            vmulq_f32(a, b)
        }
        #[inline(always)]
        unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            vdivq_f32(a, b)
        }
        #[inline(always)]
        unsafe fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            vfmaq_f32(c, a, b)
        }
        #[inline(always)]
        unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            vbslq_f32(vcgtq_f32(a, b), a, b)
        }
        #[inline(always)]
        unsafe fn abs(a: float32x4_t) -> float32x4_t {
            vabsq_f32(a)
        }
        #[inline(always)]
        unsafe fn reduce_max(a: float32x4_t) -> f32 {
            vmaxvq_f32(a)
        }
        #[inline(always)]
        unsafe fn reduce_add(a: float32x4_t) -> f32 {
            vaddvq_f32(a)
        }
        #[inline(always)]
        unsafe fn scale_by_power(value: float32x4_t, power: float32x4_t) -> float32x4_t {
            let exponent = vaddq_s32(vcvtnq_s32_f32(power), vdupq_n_s32(127));
            vmulq_f32(value, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
        }
        #[inline(always)]
        unsafe fn round(value: float32x4_t) -> float32x4_t {
            vrndnq_f32(value)
        }
        #[inline(always)]
        unsafe fn prefetch(from: *const u8) {
            asm!("prfm pldl1keep, [{0}]", in(reg) from, options(readonly, nostack, preserves_flags));
        }
        #[inline(always)]
        unsafe fn prefetch_second_level(from: *const u8) {
            asm!("prfm pldl2keep, [{0}]", in(reg) from, options(readonly, nostack, preserves_flags));
        }
    };
}

impl Simd for NeonDotprod {
    common!();
    const SIGNED_8: bool = true;
    const TOKENS: usize = 1;

    unsafe fn enter<J: Job<Self>>(job: J) {
        enter_dotprod(job);
    }

    /// Signed times signed: codes of fewer than 8 bits are not negative, and the offset of 8-bit
    /// codes is subtracted here.
    #[inline(always)]
    unsafe fn dot(bits: u32, partial: int32x4_t, codes: int32x4_t, input: int32x4_t) -> int32x4_t {
        let codes = if bits == 8 { veorq_s32(codes, vdupq_n_s32(0x8080_8080_u32 as i32)) } else { codes };
        let mut sum = partial;
        asm!(
            ".arch_extension dotprod",
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) codes, in(vreg) input,
            options(pure, nomem, nostack, preserves_flags),
        );
        sum
    }
}

impl Simd for NeonI8mm {
    common!();
    const SIGNED_8: bool = false;
    const TOKENS: usize = 2;

    unsafe fn enter<J: Job<Self>>(job: J) {
        enter_i8mm(job);
    }

    #[inline(always)]
    unsafe fn dot(_bits: u32, partial: int32x4_t, codes: int32x4_t, input: int32x4_t) -> int32x4_t {
        let mut sum = partial;
        asm!(
            ".arch_extension i8mm",
            "usdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) codes, in(vreg) input,
            options(pure, nomem, nostack, preserves_flags),
        );
        sum
    }
}

/// Operations on vectors of two rows and two tokens.
///
/// # Safety
/// As for [`Simd`].
impl NeonI8mm {
    /// Adds the products of two rows of eight unsigned codes with two tokens of eight signed bytes:
    /// `[row 0 · token 0, row 0 · token 1, row 1 · token 0, row 1 · token 1]`.
    #[inline(always)]
    pub(crate) unsafe fn dot_matrices(sum: int32x4_t, codes: int32x4_t, input: int32x4_t) -> int32x4_t {
        let mut sum = sum;
        asm!(
            ".arch_extension i8mm",
            "usmmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) codes, in(vreg) input,
            options(pure, nomem, nostack, preserves_flags),
        );
        sum
    }

    /// Interleaves lanes: `[a0, b0, a1, b1]` and `[a2, b2, a3, b3]`.
    #[inline(always)]
    pub(crate) unsafe fn zip_i32(a: int32x4_t, b: int32x4_t) -> [int32x4_t; 2] {
        [vzip1q_s32(a, b), vzip2q_s32(a, b)]
    }
    #[inline(always)]
    pub(crate) unsafe fn zip_f32(a: float32x4_t, b: float32x4_t) -> [float32x4_t; 2] {
        [vzip1q_f32(a, b), vzip2q_f32(a, b)]
    }
    /// The inverse of `zip_f32`.
    #[inline(always)]
    pub(crate) unsafe fn unzip_f32(a: float32x4_t, b: float32x4_t) -> [float32x4_t; 2] {
        [vuzp1q_f32(a, b), vuzp2q_f32(a, b)]
    }
    /// Loads two numbers and repeats them: `[a, b, a, b]`.
    #[inline(always)]
    pub(crate) unsafe fn splat_two_i32(from: *const i32) -> int32x4_t {
        let two = vld1_s32(from);
        vcombine_s32(two, two)
    }
    #[inline(always)]
    pub(crate) unsafe fn splat_two_f32(from: *const f32) -> float32x4_t {
        let two = vld1_f32(from);
        vcombine_f32(two, two)
    }
    #[inline(always)]
    pub(crate) unsafe fn add_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        vaddq_s32(a, b)
    }
}
