//! Measured limits of the machine: arithmetic on registers, and reads from memory.

use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use infer_kernels::{Pool, instruction_set};

use crate::quartiles;

/// Bytes that one bandwidth measurement reads: more than the caches hold.
pub(crate) const READ_BYTES: usize = 64 << 20;

/// Rounds of one arithmetic measurement, about a millisecond.
const ROUNDS: usize = 500_000;

/// The kind of operations that a product consists of.
#[derive(Clone, Copy)]
pub(crate) enum Arithmetic {
    Int8,
    Float,
}

/// All measurements of the limits so far.
pub(crate) struct Limits<'a> {
    pool: &'a Pool,
    source: &'a [u8],
    next: usize,
    gigabytes: Vec<f64>,
    /// Indexed by [`Arithmetic`].
    gigaops: [Vec<f64>; 2],
}

impl<'a> Limits<'a> {
    /// Measures with `pool`. Bandwidth is measured on the two halves of `source` in turn; it is
    /// twice `READ_BYTES` long.
    pub(crate) fn new(pool: &'a Pool, source: &'a [u8]) -> Self {
        Self { pool, source, next: 0, gigabytes: Vec::new(), gigaops: [Vec::new(), Vec::new()] }
    }

    /// Measures the limits now and returns the minimum time of `operations` operations that read
    /// `bytes` bytes from memory, in seconds.
    pub(crate) fn seconds(&mut self, arithmetic: Arithmetic, operations: f64, bytes: f64) -> f64 {
        let reading = bytes / (self.read() * 1e9);
        self.calculate(arithmetic).map_or(reading, |gigaops| reading.max(operations / (gigaops * 1e9)))
    }

    /// Memory bandwidth of all threads together, in GB/s.
    fn read(&mut self) -> f64 {
        let stretch = &self.source[self.next..][..READ_BYTES];
        self.next = (self.next + READ_BYTES) % self.source.len();
        let chunks: Vec<&[u8]> = stretch.chunks(READ_BYTES / (self.pool.threads() * 8)).collect();
        let start = Instant::now();
        self.pool.run(chunks.len(), |chunk| {
            black_box(read(chunks[chunk]));
        });
        self.gigabytes.push(READ_BYTES as f64 / start.elapsed().as_secs_f64() / 1e9);
        self.gigabytes[self.gigabytes.len() - 1]
    }

    /// Arithmetic throughput of all threads together, in GOP/s; `None` where the instruction set
    /// has no such instruction.
    fn calculate(&mut self, arithmetic: Arithmetic) -> Option<f64> {
        let (operations, run) = peak_of(instruction_set(), arithmetic)?;
        let start = Instant::now();
        // SAFETY: the kernels run on this set because the CPU has it.
        self.pool.run(self.pool.threads(), |_| unsafe { run(ROUNDS) });
        let all = (self.pool.threads() * ROUNDS * CHAINS * operations) as f64;
        let gigaops = all / start.elapsed().as_secs_f64() / 1e9;
        self.gigaops[arithmetic as usize].push(gigaops);
        Some(gigaops)
    }
}

impl fmt::Display for Limits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [int8, float] = &self.gigaops;
        for (name, values) in
            [("int8 peak, GOP/s", int8), ("f32 peak, GOP/s", float), ("memory read, GB/s", &self.gigabytes)]
        {
            if !values.is_empty() {
                let [low, median, high] = quartiles(&mut values.clone());
                writeln!(f, "{name}: {median:.0} ({low:.0} to {high:.0}), {} measurements", values.len())?;
            }
        }
        Ok(())
    }
}

/// Reads `bytes` with the same prefetch distance as the kernels.
fn read(bytes: &[u8]) -> u64 {
    let mut all = [0u64; 8];
    for line in bytes.chunks_exact(64) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch touches nothing, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(8192).cast());
        }
        for (all, eight) in all.iter_mut().zip(line.as_chunks().0) {
            *all ^= u64::from_le_bytes(*eight);
        }
    }
    all.iter().fold(0, |all, part| all ^ part)
}

/// Independent sums, so that two instructions with a latency of four cycles can start in each
/// cycle.
const CHAINS: usize = 12;

/// Operations per instruction on a CPU that has `set`, and a function that runs `CHAINS`
/// instructions per round.
fn peak_of(set: &str, arithmetic: Arithmetic) -> Option<(usize, unsafe fn(usize))> {
    match (set, arithmetic) {
        #[cfg(target_arch = "x86_64")]
        ("avx512-vnni", Arithmetic::Int8) => Some((128, x86::int8_512)),
        #[cfg(target_arch = "x86_64")]
        ("avx512-vnni", Arithmetic::Float) => Some((32, x86::float_512)),
        #[cfg(target_arch = "x86_64")]
        ("avx-vnni", Arithmetic::Int8) => Some((64, x86::int8_256)),
        #[cfg(target_arch = "x86_64")]
        ("avx2", Arithmetic::Int8) => Some((64, x86::int8_pairs)),
        #[cfg(target_arch = "x86_64")]
        ("avx-vnni" | "avx2", Arithmetic::Float) => Some((16, x86::float_256)),
        _ => None,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::CHAINS;

    /// Defines a function that applies one operation to independent chains of `sum`, `a` and `b`.
    macro_rules! chains {
        ($name:ident, $features:literal, $class:ident, $zero:expr, $one:expr, |$sum:ident, $a:ident, $b:ident| $operation:expr) => {
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name(rounds: usize) {
                let mut sums = [$zero; CHAINS];
                let (mut $a, $b) = ($one, black_box($one));
                for _ in 0..rounds {
                    for $sum in &mut sums {
                        // SAFETY: the assembly touches no memory. It only makes the register look
                        // changed, so that the compiler cannot fold the loop.
                        unsafe {
                            std::arch::asm!("/* {0} */", inout($class) $a, options(nomem, nostack, preserves_flags));
                        }
                        *$sum = $operation;
                    }
                }
                black_box(sums);
            }
        };
    }

    chains!(
        int8_512,
        "avx512f,avx512vnni",
        zmm_reg,
        _mm512_setzero_si512(),
        _mm512_set1_epi8(1),
        |sum, a, b| _mm512_dpbusd_epi32(*sum, a, b)
    );
    chains!(int8_256, "avx2,avxvnni", ymm_reg, _mm256_setzero_si256(), _mm256_set1_epi8(1), |sum, a, b| {
        _mm256_dpbusd_avx_epi32(*sum, a, b)
    });
    // Sums of pairs in 16 bits. Widening is not included, because it depends on the type.
    chains!(int8_pairs, "avx2", ymm_reg, _mm256_setzero_si256(), _mm256_set1_epi8(1), |sum, a, b| {
        _mm256_add_epi16(*sum, _mm256_maddubs_epi16(a, b))
    });
    chains!(float_512, "avx512f", zmm_reg, _mm512_setzero_ps(), _mm512_set1_ps(1.0), |sum, a, b| {
        _mm512_fmadd_ps(a, b, *sum)
    });
    chains!(float_256, "avx2,fma", ymm_reg, _mm256_setzero_ps(), _mm256_set1_ps(1.0), |sum, a, b| {
        _mm256_fmadd_ps(a, b, *sum)
    });
}
