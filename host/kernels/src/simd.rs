//! Vectors of an instruction set. The kernels are written once over [`Simd`]; each instruction set
//! is one file here.
//!
//! An instruction set compiles a kernel through [`Simd::enter`], which carries the CPU features:
//! everything a [`Job`] calls is inlined into it, so all of it is `#[inline(always)]`.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod dispatch;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;

/// Work that is compiled for an instruction set.
pub(crate) trait Job<S: Simd> {
    /// Does the work.
    ///
    /// # Safety
    /// Called through [`Simd::enter`] alone; the job's pointers are good for what it reads and
    /// writes.
    unsafe fn run(self);
}

/// Vectors of 32-bit lanes, and what the kernels do with them.
///
/// # Safety
/// Every function wants the CPU features of its instruction set; pointers need no alignment, and
/// are good for one vector (of 4-byte lanes, or of 2- or 1-byte elements where the name says so).
pub(crate) trait Simd: Copy + 'static {
    /// Integers: four bytes, two 16-bit or one 32-bit number a lane.
    type I: Copy;
    /// f32 numbers.
    type F: Copy;
    const LANES: usize;
    /// Tokens of a register tile, two vectors of rows wide.
    const TILE: usize;
    /// Queries of a register tile of attention, two vectors of keys wide.
    const QUERIES: usize;
    /// 8-bit codes are taken as signed: `dot` of 8 bits takes off their offset of 128 itself.
    const SIGNED_8: bool;

    /// Runs `job`, compiled for this instruction set.
    unsafe fn enter<J: Job<Self>>(job: J);

    /// How many products of unsigned codes of so many bits one partial sum holds before `end`.
    fn run_length(bits: u32) -> usize;
    /// A partial sum that starts from `sum`, or from zero where `end` adds `sum`.
    unsafe fn begin(sum: Self::I) -> Self::I;
    /// Adds products of four unsigned codes of so many bits and four signed bytes in each lane.
    unsafe fn dot(bits: u32, partial: Self::I, codes: Self::I, input: Self::I) -> Self::I;
    /// `sum`, from which `partial` was begun, with the products.
    unsafe fn end(sum: Self::I, partial: Self::I) -> Self::I;
    /// Adds products of two signed 16-bit numbers in each lane.
    unsafe fn dot_pairs(sum: Self::I, a: Self::I, b: Self::I) -> Self::I;

    unsafe fn load(from: *const u8) -> Self::I;
    unsafe fn store(to: *mut u8, value: Self::I);
    /// Bytes to lanes, without and with sign.
    unsafe fn load_u8(from: *const u8) -> Self::I;
    unsafe fn load_i8(from: *const u8) -> Self::I;
    /// Lanes to bytes; values are in -128..=127.
    unsafe fn store_i8(to: *mut i8, value: Self::I);
    unsafe fn splat_i32(value: i32) -> Self::I;
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    /// `a | (b & mask)`
    unsafe fn merge(a: Self::I, b: Self::I, mask: Self::I) -> Self::I;
    /// Shifts of 16-bit numbers, and of 32-bit lanes.
    unsafe fn shl16(value: Self::I, bits: i32) -> Self::I;
    unsafe fn shr16(value: Self::I, bits: i32) -> Self::I;
    unsafe fn shl32(value: Self::I, bits: i32) -> Self::I;
    unsafe fn shr32(value: Self::I, bits: i32) -> Self::I;

    unsafe fn load_f32(from: *const f32) -> Self::F;
    unsafe fn store_f32(to: *mut f32, value: Self::F);
    unsafe fn load_f16(from: *const u16) -> Self::F;
    unsafe fn store_f16(to: *mut u16, value: Self::F);
    unsafe fn splat(value: f32) -> Self::F;
    unsafe fn to_f32(value: Self::I) -> Self::F;
    /// To the nearest integer, ties to even.
    unsafe fn to_i32(value: Self::F) -> Self::I;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The greater; `b` where either is not a number.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn abs(a: Self::F) -> Self::F;
    unsafe fn reduce_max(a: Self::F) -> f32;
    unsafe fn reduce_add(a: Self::F) -> f32;
    /// `value * 2^power` for whole powers in -126..=127.
    unsafe fn scale_by_power(value: Self::F, power: Self::F) -> Self::F;
    /// To the nearest whole number, ties to even.
    unsafe fn round(value: Self::F) -> Self::F;

    /// Asks for the cache line at `from`; any address will do.
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        let _ = from;
    }

    /// As `prefetch`, to the second-level cache.
    #[inline(always)]
    unsafe fn prefetch_second_level(from: *const u8) {
        let _ = from;
    }

    /// e^x to 2 ulp for x in -87..=88, held to that range outside it: 0 becomes 1e-38 and infinity
    /// 1.6e38.
    #[inline(always)]
    #[allow(unsafe_op_in_unsafe_fn, reason = "vector operations from end to end, under the trait's contract")]
    unsafe fn exp(x: Self::F) -> Self::F {
        let minus = Self::splat(-1.0);
        let x = Self::max(Self::splat(-87.0), x);
        let x = Self::mul(minus, Self::max(Self::splat(-88.0), Self::mul(minus, x)));
        let power = Self::round(Self::mul(x, Self::splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts, the first with zeros at its end, so that the difference is exact.
        let rest = Self::mul_add(power, Self::splat(-0.693_359_4), x);
        let rest = Self::mul_add(power, Self::splat(2.121_944_4e-4), rest);
        let mut p = Self::splat(1.0 / 720.0);
        for factor in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = Self::mul_add(p, rest, Self::splat(factor));
        }
        Self::scale_by_power(p, power)
    }
}
