//! Families of decoders: the facts that a file does not state about itself, one entry for each
//! value of `general.architecture`.
//!
//! [`DecoderConfig`](super::config::DecoderConfig) reads a file's metadata under its entry. The
//! decoder reads both, and never a name. A family that differs in no other way than these fields
//! needs one entry here.

use infer_kernels::{Activation, RopeStyle};

/// One family. Entries name their differences from [`LLAMA`].
#[derive(Debug, PartialEq)]
pub(super) struct Architecture {
    /// Value of `general.architecture`, and prefix of the metadata keys.
    pub(super) name: &'static str,
    pub(super) rope: RopeStyle,
    /// Every layer of this number has no rotation: 4 for layers 3, 7, 11 and so on (NoPE).
    pub(super) unrotated: Option<usize>,
    pub(super) windows: Windows,
    /// Query, key and value are one tensor, and so are gate and up.
    pub(super) fused: bool,
    /// Query, key and value may have biases.
    pub(super) biases: bool,
    /// Each head of queries and keys has an RMS norm before its rotation: `attn_q_norm`,
    /// `attn_k_norm`.
    pub(super) head_norms: bool,
    /// The results of attention and of the feed-forward network have an RMS norm before they are
    /// added to the residual stream: `post_attention_norm`, `post_ffw_norm`.
    pub(super) post_norms: bool,
    /// The feed-forward network consists of experts; a router chooses some of them for each token,
    /// and weighs them by the softmax over the chosen ones.
    pub(super) experts: bool,
    pub(super) activation: Activation,
    /// Embeddings are multiplied by the square root of their width.
    pub(super) root_embeddings: bool,
    /// The file has factors of embeddings, residual connections and scores, and a divisor of
    /// logits.
    pub(super) scales: bool,
    /// Number of layers of the model that divides scores by the root of hidden / heads, not by that
    /// of the key size. The file does not tell which of the two is meant.
    pub(super) wide_scores: Option<usize>,
    /// Soft cap of scores, unless the file has another; 0 for none.
    pub(super) score_cap: f32,
    /// Soft cap of logits, unless the file has another; 0 for none.
    pub(super) logit_cap: f32,
    /// The table of embeddings always produces the logits. In other families it does so if the file
    /// has no `output.weight`.
    pub(super) tied: bool,
}

/// Layers that attend to the last positions only.
#[derive(Debug, PartialEq)]
pub(super) struct Windows {
    /// Positions of the window, unless the file says otherwise.
    pub(super) default: Option<usize>,
    /// The last layer of each `period` layers has no window. With 0, all layers have it.
    pub(super) period: usize,
    /// Base of the rotation in layers with a window, if it differs.
    pub(super) local_base: Option<f32>,
}

/// Touvron et al. 2023: RMS norms before attention and feed-forward network, rotated pairs, SiLU.
const LLAMA: Architecture = Architecture {
    name: "llama",
    rope: RopeStyle::Pairs,
    unrotated: None,
    windows: Windows { default: None, period: 0, local_base: None },
    fused: false,
    biases: true,
    head_norms: false,
    post_norms: false,
    experts: false,
    activation: Activation::Silu,
    root_embeddings: false,
    scales: false,
    wide_scores: None,
    score_cap: 0.0,
    logit_cap: 0.0,
    tied: false,
};

/// Gemma Team 2024: Llama with norms on both sides, GELU and scaled embeddings.
const GEMMA: Architecture = Architecture {
    rope: RopeStyle::Halves,
    biases: false,
    post_norms: true,
    activation: Activation::GeluTanh,
    root_embeddings: true,
    ..LLAMA
};

/// Every family that the engine supports.
pub(super) static ARCHITECTURES: &[Architecture] = &[
    LLAMA,
    Architecture { name: "phi3", rope: RopeStyle::Halves, fused: true, ..LLAMA },
    Architecture { name: "qwen2", rope: RopeStyle::Halves, ..LLAMA },
    Architecture { name: "qwen3", rope: RopeStyle::Halves, head_norms: true, ..LLAMA },
    Architecture { name: "smollm3", unrotated: Some(4), ..LLAMA },
    Architecture { name: "granite", scales: true, ..LLAMA },
    Architecture {
        name: "gemma3",
        windows: Windows { default: None, period: 6, local_base: Some(10_000.0) },
        head_norms: true,
        wide_scores: Some(62),
        ..GEMMA
    },
    Architecture {
        name: "gemma2",
        windows: Windows { default: Some(4_096), period: 2, local_base: None },
        wide_scores: Some(46),
        score_cap: 50.0,
        logit_cap: 30.0,
        tied: true,
        ..GEMMA
    },
    Architecture { name: "qwen3moe", rope: RopeStyle::Halves, head_norms: true, experts: true, ..LLAMA },
    Architecture { name: "granitemoe", scales: true, experts: true, ..LLAMA },
    Architecture { name: "gemma", post_norms: false, tied: true, ..GEMMA },
];
