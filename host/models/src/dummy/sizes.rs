//! The models whose sizes a dummy can have: hyper-parameters, and the tensors that follow from
//! them. The numbers are those of each model's `config.json` on the Hugging Face hub.

use infer_kernels::WeightType;

use super::mix::Mix;

/// A model whose sizes a dummy can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Model {
    /// Phi-3 Mini 4k, 3.8 billion parameters
    #[value(name = "phi3")]
    Phi3,
    /// Phi-4-mini, 3.8 billion parameters
    #[value(name = "phi-4-mini")]
    Phi4Mini,
    /// Qwen3 0.6B
    #[value(name = "qwen3-0.6b")]
    Qwen3,
    /// Llama 3.2 1B
    #[value(name = "llama-3.2-1b")]
    Llama32,
    /// Gemma 3 1B
    #[value(name = "gemma-3-1b")]
    Gemma3,
}

impl Model {
    pub(super) fn sizes(self) -> &'static Sizes {
        match self {
            Model::Phi3 => &PHI3,
            Model::Phi4Mini => &PHI4_MINI,
            Model::Qwen3 => &QWEN3,
            Model::Llama32 => &LLAMA32,
            Model::Gemma3 => &GEMMA3,
        }
    }
}

/// Hyper-parameters that determine the shapes of tensors.
pub(super) struct Sizes {
    pub(super) title: &'static str,
    /// Value of `general.architecture`.
    pub(super) architecture: &'static str,
    /// Tokens.
    pub(super) vocabulary: usize,
    /// The vocabulary and most keys are those of weights/phi3/vocab.gguf, and are not made up.
    pub(super) real_vocabulary: bool,
    pub(super) embedding: usize,
    pub(super) feed_forward: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    /// Features of a head of queries, keys or values.
    pub(super) head: usize,
    /// Query, key and value are one tensor, and so are gate and up.
    pub(super) fused: bool,
    /// The table of embeddings produces the logits.
    pub(super) tied: bool,
    /// The heads of queries and keys have norms.
    pub(super) head_norms: bool,
    /// The results of attention and of the feed-forward network have norms.
    pub(super) post_norms: bool,
    /// Frequency factors of the rotation: names, and the number of pairs. A dummy's are 1.
    pub(super) factors: (&'static [&'static str], usize),
    /// Context and further keys of the architecture.
    pub(super) keys: &'static [(&'static str, Scalar)],
}

const PHI3: Sizes = Sizes {
    title: "Phi-3 Mini",
    architecture: "phi3",
    vocabulary: 32_064,
    real_vocabulary: true,
    embedding: 3_072,
    feed_forward: 8_192,
    layers: 32,
    heads: 32,
    kv_heads: 32,
    head: 96,
    fused: true,
    tied: false,
    head_norms: false,
    post_norms: false,
    factors: (&[], 0),
    keys: &[("attention.sliding_window", Scalar::U32(2_047))],
};

const PHI4_MINI: Sizes = Sizes {
    title: "Phi-4-mini",
    vocabulary: 200_064,
    real_vocabulary: false,
    heads: 24,
    kv_heads: 8,
    head: 128,
    tied: true,
    factors: (&["rope_factors_long.weight", "rope_factors_short.weight"], 48),
    keys: &[
        ("context_length", Scalar::U32(131_072)),
        ("attention.layer_norm_rms_epsilon", Scalar::F32(1e-5)),
        ("attention.sliding_window", Scalar::U32(262_144)),
        ("rope.dimension_count", Scalar::U32(96)),
        ("rope.freq_base", Scalar::F32(10_000.0)),
        ("rope.scaling.original_context_length", Scalar::U32(4_096)),
        // sqrt(1 + ln(32) / ln(4096))
        ("rope.scaling.attn_factor", Scalar::F32(1.190_238)),
    ],
    ..PHI3
};

const QWEN3: Sizes = Sizes {
    title: "Qwen3 0.6B",
    architecture: "qwen3",
    vocabulary: 151_936,
    real_vocabulary: false,
    embedding: 1_024,
    feed_forward: 3_072,
    layers: 28,
    heads: 16,
    kv_heads: 8,
    head: 128,
    fused: false,
    tied: true,
    head_norms: true,
    keys: &[
        ("context_length", Scalar::U32(40_960)),
        ("attention.layer_norm_rms_epsilon", Scalar::F32(1e-6)),
        ("rope.freq_base", Scalar::F32(1e6)),
    ],
    ..PHI3
};

const LLAMA32: Sizes = Sizes {
    title: "Llama 3.2 1B",
    architecture: "llama",
    vocabulary: 128_256,
    real_vocabulary: false,
    embedding: 2_048,
    feed_forward: 8_192,
    layers: 16,
    heads: 32,
    kv_heads: 8,
    head: 64,
    fused: false,
    tied: true,
    factors: (&["rope_freqs.weight"], 32),
    keys: &[
        ("context_length", Scalar::U32(131_072)),
        ("attention.layer_norm_rms_epsilon", Scalar::F32(1e-5)),
        ("rope.freq_base", Scalar::F32(500_000.0)),
        ("rope.dimension_count", Scalar::U32(64)),
    ],
    ..PHI3
};

const GEMMA3: Sizes = Sizes {
    title: "Gemma 3 1B",
    architecture: "gemma3",
    vocabulary: 262_144,
    real_vocabulary: false,
    embedding: 1_152,
    feed_forward: 6_912,
    layers: 26,
    heads: 4,
    kv_heads: 1,
    head: 256,
    fused: false,
    tied: true,
    head_norms: true,
    post_norms: true,
    keys: &[
        ("context_length", Scalar::U32(32_768)),
        ("attention.layer_norm_rms_epsilon", Scalar::F32(1e-6)),
        ("attention.sliding_window", Scalar::U32(512)),
        ("rope.freq_base", Scalar::F32(1e6)),
    ],
    ..PHI3
};

/// A number of the metadata.
#[derive(Clone, Copy)]
pub(super) enum Scalar {
    U32(u32),
    F32(f32),
}

/// A tensor of the file.
pub(super) struct Tensor {
    pub(super) name: String,
    /// 1 for a vector.
    pub(super) rows: usize,
    /// A multiple of the type's block.
    pub(super) columns: usize,
    pub(super) ty: WeightType,
}

impl Tensor {
    /// Size of the data; for the shapes here a multiple of the alignment.
    pub(super) fn bytes(&self) -> usize {
        self.rows * self.columns / self.ty.block_elements() * self.ty.block_bytes()
    }
}

/// Returns all tensors, in the order of the file.
pub(super) fn tensors(sizes: &Sizes, mix: Mix) -> Vec<Tensor> {
    let Sizes { vocabulary, embedding, feed_forward, layers, .. } = *sizes;
    let vector = |name: String, columns| Tensor { name, rows: 1, columns, ty: WeightType::F32 };
    let matrix = |name: &str, layer: Option<usize>, rows, columns| {
        let ty = mix.type_of(name, layer.unwrap_or(0), layers, columns);
        let name = layer.map_or(name.to_owned(), |layer| format!("blk.{layer}.{name}"));
        Tensor { name, rows, columns, ty }
    };
    let (queries, keys) = (sizes.heads * sizes.head, sizes.kv_heads * sizes.head);
    let mut all = Vec::new();
    for name in sizes.factors.0 {
        all.push(vector((*name).to_owned(), sizes.factors.1));
    }
    // Without a matrix of its own, the output determines the type of the table.
    let mut table = matrix("token_embd.weight", None, vocabulary, embedding);
    if sizes.tied {
        table.ty = mix.type_of("output.weight", 0, layers, embedding);
    }
    all.push(table);
    for layer in 0..layers {
        let norm = |name, columns| vector(format!("blk.{layer}.{name}.weight"), columns);
        all.extend(["attn_norm", "ffn_norm"].map(|name| norm(name, embedding)));
        if sizes.post_norms {
            all.extend(["post_attention_norm", "post_ffw_norm"].map(|name| norm(name, embedding)));
        }
        if sizes.head_norms {
            all.extend(["attn_q_norm", "attn_k_norm"].map(|name| norm(name, sizes.head)));
        }
        let own = |name, rows, columns| matrix(name, Some(layer), rows, columns);
        if sizes.fused {
            all.push(own("attn_qkv.weight", queries + 2 * keys, embedding));
        } else {
            all.push(own("attn_q.weight", queries, embedding));
            all.push(own("attn_k.weight", keys, embedding));
            all.push(own("attn_v.weight", keys, embedding));
        }
        all.push(own("attn_output.weight", embedding, queries));
        if sizes.fused {
            all.push(own("ffn_up.weight", 2 * feed_forward, embedding));
        } else {
            all.push(own("ffn_gate.weight", feed_forward, embedding));
            all.push(own("ffn_up.weight", feed_forward, embedding));
        }
        all.push(own("ffn_down.weight", embedding, feed_forward));
    }
    all.push(vector("output_norm.weight".to_owned(), embedding));
    if !sizes.tied {
        all.push(matrix("output.weight", None, vocabulary, embedding));
    }
    all
}
