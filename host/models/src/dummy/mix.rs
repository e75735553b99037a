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
}

impl Mix {
    /// Name on the command line and in file names.
    pub fn name(self) -> &'static str {
        match self {
            Mix::Q4KM => "q4_k_m",
            Mix::Q4_0 => "q4_0",
            Mix::Q8_0 => "q8_0",
        }
    }

    /// Value of `general.file_type`, in llama.cpp's numbers.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Mix::Q4KM => 15,
            Mix::Q4_0 => 2,
            Mix::Q8_0 => 7,
        }
    }

    /// Type of a matrix, as llama.cpp's quantiser chooses it.
    pub(super) fn type_of(self, tensor: &str, layer: usize, layers: usize, columns: usize) -> BlockType {
        // The first and last eighth of the layers, and every third between them, get more bits.
        let more =
            layer < layers / 8 || layer >= 7 * layers / 8 || (layer.saturating_sub(layers / 8)) % 3 == 2;
        let ty = match (self, tensor) {
            (Mix::Q8_0, _) => BlockType::Q8_0,
            (_, "output.weight") => BlockType::Q6K,
            (Mix::Q4_0, _) => BlockType::Q4_0,
            (Mix::Q4KM, "attn_qkv.weight") => BlockType::Q5K,
            (Mix::Q4KM, "ffn_down.weight" | "attn_v.weight") if more => BlockType::Q6K,
            (Mix::Q4KM, _) => BlockType::Q4K,
        };
        // Rows that are not whole blocks of 256 get blocks of 32.
        match ty {
            _ if columns.is_multiple_of(ty.elements()) => ty,
            BlockType::Q4K | BlockType::Q5K => BlockType::Q5_0,
            _ => BlockType::Q8_0,
        }
    }
}
