//! What the machine can do at most: products of bytes from registers, and bytes read from memory.

use std::hint::black_box;
use std::time::Instant;

use infer_kernels::{Pool, instruction_set};

/// Far more than the last-level cache.
const READ_BYTES: usize = 512 << 20;

/// The best of some runs.
fn best(mut run: impl FnMut() -> f64) -> f64 {
    (0..7).map(|_| run()).fold(0.0, f64::max)
}

/// Billions of bytes a second that all threads read together.
pub(crate) fn read_gigabytes(pool: &Pool) -> f64 {
    let values = vec![1u64; READ_BYTES / 8];
    let tasks = pool.threads() * 64;
    let chunk = values.len() / tasks;
    best(|| {
        let start = Instant::now();
        pool.run(tasks, |task| {
            black_box(values[task * chunk..][..chunk].iter().fold(0, |all, value| all ^ value));
        });
        READ_BYTES as f64 / start.elapsed().as_secs_f64() / 1e9
    })
}

/// Billions of int8 operations a second of all threads together, where the instruction set in force has an instruction for them.
pub(crate) fn int8_gigaops(pool: &Pool) -> Option<f64> {
    const ROUNDS: usize = 2_000_000;
    let operations = peak_of(instruction_set())?;
    Some(best(|| {
        let start = Instant::now();
        pool.run(pool.threads(), |_| {
            operations.1(ROUNDS);
        });
        (pool.threads() * ROUNDS * operations.0) as f64 / start.elapsed().as_secs_f64() / 1e9
    }))
}

/// Operations of a round, and what does so many rounds.
fn peak_of(set: &str) -> Option<(usize, fn(usize))> {
    #[cfg(target_arch = "x86_64")]
    match set {
        // SAFETY: the kernels chose this set because the CPU has it.
        "avx512-vnni" => return Some((CHAINS * 128, |rounds| unsafe { vnni_512(rounds) })),
        // SAFETY: as above.
        "avx-vnni" => return Some((CHAINS * 64, |rounds| unsafe { vnni_256(rounds) })),
        _ => {}
    }
    let _ = set;
    None
}

/// Independent sums: enough for two instructions a cycle of four cycles each.
#[cfg(target_arch = "x86_64")]
const CHAINS: usize = 12;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn vnni_512(rounds: usize) {
    use std::arch::x86_64::{_mm512_dpbusd_epi32, _mm512_set1_epi8, _mm512_setzero_si512};
    let mut sums = [_mm512_setzero_si512(); CHAINS];
    let (mut a, b) = (_mm512_set1_epi8(1), black_box(_mm512_set1_epi8(2)));
    for _ in 0..rounds {
        // SAFETY: no memory is touched; the register only looks changed, so that rounds are not folded into one.
        unsafe { std::arch::asm!("/* {0} */", inout(zmm_reg) a, options(nomem, nostack, preserves_flags)) };
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, a, b);
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn vnni_256(rounds: usize) {
    use std::arch::x86_64::{_mm256_dpbusd_avx_epi32, _mm256_set1_epi8, _mm256_setzero_si256};
    let mut sums = [_mm256_setzero_si256(); CHAINS];
    let (mut a, b) = (_mm256_set1_epi8(1), black_box(_mm256_set1_epi8(2)));
    for _ in 0..rounds {
        // SAFETY: as above.
        unsafe { std::arch::asm!("/* {0} */", inout(ymm_reg) a, options(nomem, nostack, preserves_flags)) };
        for sum in &mut sums {
            *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
        }
    }
    black_box(sums);
}
