//! The types of a file's tensors.

use clap::ValueEnum as _;
use infer_kernels::WeightType;

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
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no mix is hidden");
        value.get_name().to_owned()
    }

    /// Value of `general.file_type`, in llama.cpp's numbers.
    pub(super) fn file_type(self) -> u32 {
        self.entry().0
    }

    /// Type of most matrices.
    pub(super) fn usual_type(self) -> WeightType {
        self.entry().1
    }

    fn entry(self) -> (u32, WeightType) {
        match self {
            Mix::Q4KM => (15, WeightType::Q4K),
            Mix::Q4_0 => (2, WeightType::Q4_0),
            Mix::Q8_0 => (7, WeightType::Q8_0),
            Mix::Q5_1 => (9, WeightType::Q5_1),
            Mix::Q2KS => (21, WeightType::Q2K),
            Mix::Q3KS => (11, WeightType::Q3K),
            Mix::Iq4Nl => (25, WeightType::Iq4Nl),
            Mix::Iq4Xs => (30, WeightType::Iq4Xs),
            Mix::Mxfp4 => (38, WeightType::Mxfp4),
            Mix::Bf16 => (32, WeightType::Bf16),
        }
    }

    /// Type of a matrix, as llama.cpp's quantiser chooses it; without its exceptions for types of
    /// fewer bits.
    pub(super) fn type_of(self, tensor: &str, layer: usize, layers: usize, columns: usize) -> WeightType {
        // The first and last eighth of the layers, and every third between them, get more bits.
        let more =
            layer < layers / 8 || layer >= 7 * layers / 8 || (layer.saturating_sub(layers / 8)) % 3 == 2;
        let ty = match (self, tensor) {
            (Mix::Q8_0 | Mix::Bf16, _) => self.usual_type(),
            (_, "output.weight") => WeightType::Q6K,
            (Mix::Q4KM, "attn_qkv.weight") => WeightType::Q5K,
            (Mix::Q4KM, "ffn_down.weight" | "attn_v.weight") if more => WeightType::Q6K,
            _ => self.usual_type(),
        };
        // Rows that are not whole blocks of 256 get blocks of 32.
        match ty {
            _ if columns.is_multiple_of(ty.block_elements()) => ty,
            WeightType::Q2K | WeightType::Q3K | WeightType::Q4K | WeightType::Q5K | WeightType::Iq4Xs => {
                WeightType::Q5_0
            }
            _ => WeightType::Q8_0,
        }
    }
}
