//! Weight types of GGUF files that the kernels support, with block sizes from the specification of
//! the format.

use std::fmt;

/// Encoding of a matrix's values.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "variants have the names of the format")]
pub enum WeightType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Bf16,
    Mxfp4,
}

impl WeightType {
    /// Every type, in the order of the enum and of the numbers in GGUF files.
    pub const ALL: [Self; 16] = [
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Iq4Nl,
        Self::Iq4Xs,
        Self::Bf16,
        Self::Mxfp4,
    ];

    /// Number in GGUF files, name, values of a block, bytes of a block.
    const fn entry(self) -> (u32, &'static str, usize, usize) {
        match self {
            Self::F32 => (0, "F32", 1, 4),
            Self::F16 => (1, "F16", 1, 2),
            Self::Q4_0 => (2, "Q4_0", 32, 18),
            Self::Q4_1 => (3, "Q4_1", 32, 20),
            Self::Q5_0 => (6, "Q5_0", 32, 22),
            Self::Q5_1 => (7, "Q5_1", 32, 24),
            Self::Q8_0 => (8, "Q8_0", 32, 34),
            Self::Q2K => (10, "Q2_K", 256, 84),
            Self::Q3K => (11, "Q3_K", 256, 110),
            Self::Q4K => (12, "Q4_K", 256, 144),
            Self::Q5K => (13, "Q5_K", 256, 176),
            Self::Q6K => (14, "Q6_K", 256, 210),
            Self::Iq4Nl => (20, "IQ4_NL", 32, 18),
            Self::Iq4Xs => (23, "IQ4_XS", 256, 136),
            Self::Bf16 => (30, "BF16", 1, 2),
            Self::Mxfp4 => (39, "MXFP4", 32, 17),
        }
    }

    /// Returns the type with this number in GGUF files, if it is supported.
    pub fn from_ggml(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.to_ggml() == number)
    }

    /// Number of this type in GGUF files.
    pub fn to_ggml(self) -> u32 {
        self.entry().0
    }

    /// Number of values in one block.
    pub const fn block_elements(self) -> usize {
        self.entry().2
    }

    /// Bytes of one block in a file.
    pub const fn block_bytes(self) -> usize {
        self.entry().3
    }

    /// Bytes of a row of `columns` values in a file; `None` if the row has an incomplete block or
    /// overflows.
    pub fn row_bytes(self, columns: usize) -> Option<usize> {
        if !columns.is_multiple_of(self.block_elements()) {
            return None;
        }
        (columns / self.block_elements()).checked_mul(self.block_bytes())
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.entry().1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ggml_numbers_round_trip() {
        for ty in WeightType::ALL {
            assert_eq!(WeightType::from_ggml(ty.to_ggml()), Some(ty));
        }
        assert_eq!(WeightType::from_ggml(16), None);
        assert_eq!(WeightType::from_ggml(u32::MAX), None);
    }

    #[test]
    fn row_bytes_requires_whole_blocks() {
        assert_eq!(WeightType::Q4_0.row_bytes(896), Some(28 * 18));
        assert_eq!(WeightType::Q4K.row_bytes(896), None);
        assert_eq!(WeightType::Q4K.row_bytes(3072), Some(12 * 144));
        assert_eq!(WeightType::F32.row_bytes(usize::MAX), None);
        assert_eq!(WeightType::Q6K.row_bytes(0), Some(0));
    }
}
