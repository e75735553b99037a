//! Vector operations. Kernels are written once, generic over [`Simd`]; each instruction set is one
//! file here.
//!
//! A kernel is compiled for an instruction set through [`Simd::enter`], which enables the CPU
//! features. Everything that a [`Job`] calls must be inlined into it, and is therefore
//! `#[inline(always)]`.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod dispatch;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;

/// Code that is compiled for an instruction set.
pub(crate) trait Job<S: Simd> {
    /// Runs the job.
    ///
    /// # Safety
    /// Call only through [`Simd::enter`]. The job's pointers are valid for its reads and writes.
    unsafe fn run(self);
}

/// Vectors of 32-bit lanes and the operations that kernels use.
///
/// # Safety
/// Every function requires the CPU features of its instruction set. Pointers need no alignment, and
/// are valid for one vector (of 4-byte lanes, or of 2- or 1-byte elements where the name says so).
pub(crate) trait Simd: Copy + 'static {
    /// Integers: four 8-bit, two 16-bit or one 32-bit number per lane.
    type I: Copy;
    /// One f32 per lane.
    type F: Copy;
    const LANES: usize;
    /// Number of tokens in a register tile that is two vectors of rows wide.
    const TILE: usize;
    /// Number of queries in a register tile of attention that is two vectors of keys wide.
    const QUERIES: usize;
    /// True if 8-bit codes are signed: `dot` with 8 bits then subtracts their offset of 128 itself.
    const SIGNED_8: bool;
    /// Number of tokens whose sums share a vector, unless there is one token only. Tiles then have
    /// a multiple of them, and the input holds as many steps of four columns for each.
    const TOKENS: usize;

    /// Runs `job`, compiled for this instruction set.
    unsafe fn enter<J: Job<Self>>(job: J);

    /// Number of products of unsigned `bits`-bit codes that a partial sum can hold before `end`:
    /// `usize::MAX` for any number.
    fn run_length(bits: u32) -> usize;
    /// Returns a partial sum that starts from `sum`, or from zero where `end` adds `sum`.
    unsafe fn begin(sum: Self::I) -> Self::I;
    /// Adds the products of four unsigned `bits`-bit codes and four signed bytes in each lane.
    unsafe fn dot(bits: u32, partial: Self::I, codes: Self::I, input: Self::I) -> Self::I;
    /// Returns `sum` plus the products in `partial`, which was begun from it.
    unsafe fn end(sum: Self::I, partial: Self::I) -> Self::I;
    /// Adds the products of two signed 16-bit numbers in each lane.
    unsafe fn dot_pairs(sum: Self::I, a: Self::I, b: Self::I) -> Self::I;

    unsafe fn load(from: *const u8) -> Self::I;
    unsafe fn store(to: *mut u8, value: Self::I);
    /// Loads bytes into lanes, zero-extended and sign-extended.
    unsafe fn load_u8(from: *const u8) -> Self::I;
    unsafe fn load_i8(from: *const u8) -> Self::I;
    /// Stores lanes as bytes; values are in -128..=127.
    unsafe fn store_i8(to: *mut i8, value: Self::I);
    unsafe fn splat_i32(value: i32) -> Self::I;
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    /// `a | (b & mask)`
    unsafe fn merge(a: Self::I, b: Self::I, mask: Self::I) -> Self::I;
    /// Replaces each byte, which is in 0..16, by its entry of `table`.
    unsafe fn look_up(table: &[u8; 16], bytes: Self::I) -> Self::I;
    /// Shifts of 16-bit numbers and of 32-bit lanes.
    unsafe fn shl16(value: Self::I, bits: i32) -> Self::I;
    unsafe fn shr16(value: Self::I, bits: i32) -> Self::I;
    unsafe fn shl32(value: Self::I, bits: i32) -> Self::I;
    unsafe fn shr32(value: Self::I, bits: i32) -> Self::I;

    unsafe fn load_f32(from: *const f32) -> Self::F;
    unsafe fn store_f32(to: *mut f32, value: Self::F);
    unsafe fn load_f16(from: *const u16) -> Self::F;
    unsafe fn load_bf16(from: *const u16) -> Self::F;
    unsafe fn store_f16(to: *mut u16, value: Self::F);
    unsafe fn splat(value: f32) -> Self::F;
    unsafe fn to_f32(value: Self::I) -> Self::F;
    /// Rounds to the nearest integer, ties to even.
    unsafe fn to_i32(value: Self::F) -> Self::I;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Maximum of both; `b` if either is NaN.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn abs(a: Self::F) -> Self::F;
    unsafe fn reduce_max(a: Self::F) -> f32;
    unsafe fn reduce_add(a: Self::F) -> f32;
    /// Returns `value * 2^power` for integral powers in -126..=127.
    unsafe fn scale_by_power(value: Self::F, power: Self::F) -> Self::F;
    /// Rounds to the nearest integral value, ties to even.
    unsafe fn round(value: Self::F) -> Self::F;

    /// Prefetches the cache line at `from`, which may be any address.
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        let _ = from;
    }

    /// Prefetches to the second-level cache.
    #[inline(always)]
    unsafe fn prefetch_second_level(from: *const u8) {
        let _ = from;
    }

    /// e^x to 2 ulp for x in -87..=88. Arguments outside are clamped to that range: the minimum
    /// result is 1e-38 and the maximum 1.6e38.
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn, reason = "vector code under the contract of the trait")]
    unsafe fn exp(x: Self::F) -> Self::F {
        let minus = Self::splat(-1.0);
        let x = Self::max(Self::splat(-87.0), x);
        let x = Self::mul(minus, Self::max(Self::splat(-88.0), Self::mul(minus, x)));
        let power = Self::round(Self::mul(x, Self::splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts. The first one ends in zero bits, so that the difference is exact.
        let rest = Self::mul_add(power, Self::splat(-0.693_359_4), x);
        let rest = Self::mul_add(power, Self::splat(2.121_944_4e-4), rest);
        let mut p = Self::splat(1.0 / 720.0);
        for factor in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = Self::mul_add(p, rest, Self::splat(factor));
        }
        Self::scale_by_power(p, power)
    }

    /// The hyperbolic tangent, to 2e-7 in absolute terms.
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn, reason = "vector code under the contract of the trait")]
    unsafe fn tanh(x: Self::F) -> Self::F {
        let power = Self::exp(Self::add(x, x));
        let rest = Self::div(Self::splat(2.0), Self::add(power, Self::splat(1.0)));
        Self::sub(Self::splat(1.0), rest)
    }
}
