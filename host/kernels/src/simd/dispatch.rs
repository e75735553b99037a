//! Choice of the instruction set: the best that the CPU has, unless a lower one is requested.

use std::sync::atomic::{AtomicU8, Ordering};

use thiserror::Error;

/// Supported instruction sets, best first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum InstructionSet {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    NeonI8mm,
    #[cfg(target_arch = "aarch64")]
    NeonDotprod,
    Portable,
}

/// A name that is not an instruction set of this CPU.
#[derive(Debug, Error)]
#[error("instruction set `{name}`: expected one that this CPU has ({available}); omit it to use the best")]
pub struct UnknownInstructionSet {
    name: String,
    available: String,
}

impl InstructionSet {
    const ALL: &'static [Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Avx512Vnni,
        #[cfg(target_arch = "x86_64")]
        Self::AvxVnni,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "aarch64")]
        Self::NeonI8mm,
        #[cfg(target_arch = "aarch64")]
        Self::NeonDotprod,
        Self::Portable,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm => "neon-i8mm",
            #[cfg(target_arch = "aarch64")]
            Self::NeonDotprod => "neon-dotprod",
            Self::Portable => "portable",
        }
    }

    /// Checks for exactly the features that `Simd::enter` of the set enables.
    fn is_available(self) -> bool {
        #[cfg(target_arch = "aarch64")]
        use std::arch::is_aarch64_feature_detected as has;
        #[cfg(target_arch = "x86_64")]
        use std::arch::is_x86_feature_detected as has;
        #[cfg(target_arch = "x86_64")]
        let avx2 = || has!("avx2") && has!("fma") && has!("f16c");
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq");
                avx2() && avx512 && has!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => avx2() && has!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2(),
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm => has!("dotprod") && has!("i8mm"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDotprod => has!("dotprod"),
            Self::Portable => true,
        }
    }

    /// Instruction sets that this CPU has, best first.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|set| set.is_available())
    }

    /// The instruction set in use.
    pub(crate) fn chosen() -> Self {
        let index = CHOSEN.load(Ordering::Relaxed);
        if let Some(&set) = Self::ALL.get(usize::from(index)) {
            return set;
        }
        let best = Self::available().next().unwrap_or(Self::Portable);
        CHOSEN.store(best as u8, Ordering::Relaxed);
        best
    }
}

/// Index into `InstructionSet::ALL`; beyond its end before the first use.
static CHOSEN: AtomicU8 = AtomicU8::new(u8::MAX);

/// Name of the instruction set in use: `avx512-vnni`, `avx-vnni`, `avx2`, `neon-i8mm`,
/// `neon-dotprod` or `portable`.
pub fn instruction_set() -> &'static str {
    InstructionSet::chosen().name()
}

/// Names of the instruction sets of this architecture, best first, also of those that this CPU does
/// not have. The last one is `portable`.
pub fn instruction_sets() -> Vec<&'static str> {
    InstructionSet::ALL.iter().copied().map(InstructionSet::name).collect()
}

/// Names of the instruction sets of this CPU, best first.
fn available() -> Vec<&'static str> {
    InstructionSet::available().map(InstructionSet::name).collect()
}

/// Selects a lower instruction set than the best, for tests and comparisons.
///
/// # Errors
/// If this CPU has no set of that name.
pub fn set_instruction_set(name: &str) -> Result<(), UnknownInstructionSet> {
    let Some(set) = InstructionSet::available().find(|set| set.name() == name) else {
        return Err(UnknownInstructionSet { name: name.to_owned(), available: available().join(", ") });
    };
    CHOSEN.store(set as u8, Ordering::Relaxed);
    Ok(())
}

/// Evaluates an expression with `$S` as the vectors of an instruction set.
macro_rules! with_simd {
    ($set:expr, $S:ident => $body:expr) => {
        match $set {
            #[cfg(target_arch = "x86_64")]
            $crate::simd::dispatch::InstructionSet::Avx512Vnni => {
                type $S = $crate::simd::avx512::Avx512Vnni;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            $crate::simd::dispatch::InstructionSet::AvxVnni => {
                type $S = $crate::simd::avx2::AvxVnni;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            $crate::simd::dispatch::InstructionSet::Avx2 => {
                type $S = $crate::simd::avx2::Avx2;
                $body
            }
            #[cfg(target_arch = "aarch64")]
            $crate::simd::dispatch::InstructionSet::NeonI8mm => {
                type $S = $crate::simd::neon::NeonI8mm;
                $body
            }
            #[cfg(target_arch = "aarch64")]
            $crate::simd::dispatch::InstructionSet::NeonDotprod => {
                type $S = $crate::simd::neon::NeonDotprod;
                $body
            }
            $crate::simd::dispatch::InstructionSet::Portable => {
                type $S = $crate::simd::portable::Portable;
                $body
            }
        }
    };
}
pub(crate) use with_simd;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scripts that emulate a CPU set the variable to the sets that they expect, since a test of an
    /// unavailable set would pass without running.
    #[test]
    fn available_sets_match_expectation() {
        if let Ok(expected) = std::env::var("INFER_TEST_INSTRUCTION_SETS") {
            assert_eq!(available().join(","), expected);
        }
    }

    #[test]
    fn portable_is_available_and_unknown_names_rejected() {
        assert_eq!((instruction_sets().last(), available().last()), (Some(&"portable"), Some(&"portable")));
        let error = set_instruction_set("mmx").unwrap_err().to_string();
        assert!(error.starts_with("instruction set `mmx`: expected one that this CPU has ("), "{error}");
        assert!(available().contains(&instruction_set()));
    }
}
