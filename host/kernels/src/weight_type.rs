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
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl WeightType {
    /// Every type, in the order of the enum.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Returns the type with this number in GGUF files, if it is supported.
    pub fn from_ggml(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.to_ggml() == number)
    }

    /// Number of this type in GGUF files.
    pub fn to_ggml(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
        }
    }

    /// Number of values in one block.
    pub fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of one block in a file.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
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
        f.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        })
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
        assert_eq!(WeightType::from_ggml(7), None);
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
