//! The types of a file's tensors.

use super::blocks::BlockType;

/// The mix of types that a file's tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mix {
    /// llama.cpp's Q4_K_M: Q4_K with some Q5_K and Q6_K
    #[value(name = "q4_k_m")]
    Q4KM,
    /// Q4_0, and Q6_K for the output
    #[value(name = "q4_0")]
    Q4_0,
    /// Q8_0
    #[value(name = "q8_0")]
    Q8_0,
    /// Q5_1, and Q6_K for the output, like the following
    #[value(name = "q5_1")]
    Q5_1,
    /// Q2_K
    #[value(name = "q2_k_s")]
    Q2KS,
    /// Q3_K
    #[value(name = "q3_k_s")]
    Q3KS,
    /// IQ4_NL
    #[value(name = "iq4_nl")]
    Iq4Nl,
    /// IQ4_XS
    #[value(name = "iq4_xs")]
    Iq4Xs,
    /// MXFP4
    #[value(name = "mxfp4")]
    Mxfp4,
    /// BF16, also for the output
    #[value(name = "bf16")]
    Bf16,
}

impl Mix {
    /// Name on the command line and in file names.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// Value of `general.file_type`, in llama.cpp's numbers.
    pub(super) fn file_type(self) -> u32 {
        self.entry().1
    }

    /// Name, number of the file type, and type of most matrices.
    pub(super) fn entry(self) -> (&'static str, u32, BlockType) {
        match self {
            Mix::Q4KM => ("q4_k_m", 15, BlockType::Q4K),
            Mix::Q4_0 => ("q4_0", 2, BlockType::Q4_0),
            Mix::Q8_0 => ("q8_0", 7, BlockType::Q8_0),
            Mix::Q5_1 => ("q5_1", 9, BlockType::Q5_1),
            Mix::Q2KS => ("q2_k_s", 21, BlockType::Q2K),
            Mix::Q3KS => ("q3_k_s", 11, BlockType::Q3K),
            Mix::Iq4Nl => ("iq4_nl", 25, BlockType::Iq4Nl),
            Mix::Iq4Xs => ("iq4_xs", 30, BlockType::Iq4Xs),
            Mix::Mxfp4 => ("mxfp4", 38, BlockType::Mxfp4),
            Mix::Bf16 => ("bf16", 32, BlockType::Bf16),
        }
    }

    /// Type of a matrix, as llama.cpp's quantiser chooses it; without its exceptions for types of
    /// fewer bits.
    pub(super) fn type_of(self, tensor: &str, layer: usize, layers: usize, columns: usize) -> BlockType {
        // The first and last eighth of the layers, and every third between them, get more bits.
        let more =
            layer < layers / 8 || layer >= 7 * layers / 8 || (layer.saturating_sub(layers / 8)) % 3 == 2;
        let ty = match (self, tensor) {
            (Mix::Q8_0 | Mix::Bf16, _) => self.entry().2,
            (_, "output.weight") => BlockType::Q6K,
            (Mix::Q4KM, "attn_qkv.weight") => BlockType::Q5K,
            (Mix::Q4KM, "ffn_down.weight" | "attn_v.weight") if more => BlockType::Q6K,
            _ => self.entry().2,
        };
        // Rows that are not whole blocks of 256 get blocks of 32.
        match ty {
            _ if columns.is_multiple_of(ty.elements()) => ty,
            BlockType::Q2K | BlockType::Q3K | BlockType::Q4K | BlockType::Q5K | BlockType::Iq4Xs => {
                BlockType::Q5_0
            }
            _ => BlockType::Q8_0,
        }
    }
}
