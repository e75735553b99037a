"""The families and files of tests/data/language, which small_models.py writes."""

from dataclasses import dataclass, field

from gguf import GGMLQuantizationType as Type
from reference import Case

WINDOW = 8
TIED = 0.25  # deviation of tied embeddings: small, or each token would predict itself


@dataclass
class Family:
    """The properties of all files of an architecture.

    Epsilons are large, so that a test detects an engine that ignores them.
    """

    epsilon: float = 0.1
    rope_base: float = 1e5
    tied: bool = False
    fused: bool = False
    biases: bool = False
    head_norms: bool = False
    post_norms: bool = False
    root_embeddings: bool = False


FAMILIES = {
    "phi3": Family(rope_base=1e4, fused=True),
    "llama": Family(),
    "qwen2": Family(epsilon=0.01, rope_base=1e6, tied=True, biases=True),
    "qwen3": Family(rope_base=1e6, tied=True, head_norms=True),
    "smollm3": Family(tied=True),
    "granite": Family(),
    "gemma3": Family(rope_base=1e6, tied=True, head_norms=True, post_norms=True, root_embeddings=True),
    "qwen3moe": Family(rope_base=1e6, head_norms=True),
    "granitemoe": Family(),
    "gemma": Family(tied=True, root_embeddings=True),
    "gemma2": Family(tied=True, post_norms=True, root_embeddings=True),
}


@dataclass
class Spec:
    """One file."""

    name: str
    kinds: dict[str, Type]  # by the tensor's name in its layer; "" is the default
    width: int
    heads: int
    kv_heads: int
    hidden: int
    layers: int = 2
    pre: str = "default"  # "default": SentencePiece, as in llama; else byte-level BPE with this pre-tokenizer
    window: int = 0
    rope_dims: int = 0
    long_factors: bool = False
    rope_factors: bool = False
    cases: list[Case] = field(default_factory=lambda: [Case()])
    head_dim: int = 0  # 0: width / heads
    value_dim: int = 0  # 0: that of keys
    tied: bool | None = None  # None: as in the family
    logit_divisor: float = 1.0
    experts: int = 0
    keys: dict[str, object] = field(default_factory=dict)  # further metadata
    peer: bool = True  # llama.cpp can run the file

    def __post_init__(self) -> None:
        self.head_dim = self.head_dim or self.width // self.heads
        self.value_dim = self.value_dim or self.head_dim
        self.tied = self.family.tied if self.tied is None else self.tied

    @property
    def family(self) -> Family:
        """The family of its architecture."""
        return FAMILIES[self.architecture]

    @property
    def embedding_deviation(self) -> float:
        """Standard deviation of the table of embeddings."""
        return TIED * (self.width**-0.5 if self.family.root_embeddings else 1.0) if self.tied else 1.0

    @property
    def architecture(self) -> str:
        """The first word of the name."""
        return self.name.split("-")[0]


MIX = {
    "": Type.Q4_K, "attn_v": Type.Q6_K, "attn_output": Type.Q5_0, "ffn_down": Type.Q6_K, "attn_k": Type.Q5_K,
    "token_embd": Type.Q8_0,
}  # fmt: skip

# A type of each further encoding.
FEW_BITS = {
    "": Type.Q3_K, "attn_k": Type.BF16, "attn_v": Type.IQ4_XS, "attn_output": Type.Q5_1, "ffn_up": Type.MXFP4,
    "ffn_down": Type.Q2_K, "token_embd": Type.IQ4_NL,
}  # fmt: skip

GRANITE = {"attention.scale": 0.4, "embedding_scale": 1.5, "residual_scale": 0.6}
EVERY_SECOND = {"attention.sliding_window_pattern": 2}
LISTED = {"attention.sliding_window_pattern": [True, False, True]}
LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
CAPPED = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0}
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}

SPECS = [
    Spec("phi3-f32", {"": Type.F32}, 64, 2, 2, 96),
    Spec("phi3-q4_0-head96", {"": Type.Q4_0}, 192, 2, 2, 192),
    Spec("phi3-q4_k", {"": Type.Q4_K}, 256, 4, 2, 256),
    Spec("phi3-q8_0-window", {"": Type.Q8_0}, 64, 2, 1, 128, window=WINDOW),
    Spec("phi3-q8_0-long", {"": Type.Q8_0}, 64, 2, 2, 128, long_factors=True, cases=[Case(), Case(long_factors=True)]),
    Spec("phi3-q8_0-partial", {"": Type.Q8_0}, 64, 2, 2, 128, rope_dims=24),
    Spec("llama-f16", {"": Type.F16}, 64, 4, 2, 96),
    Spec("llama-q4_1", {"": Type.Q4_1}, 128, 4, 2, 256, pre="smollm"),
    Spec("llama-q5_k", {"": Type.Q5_K}, 256, 4, 1, 256, rope_factors=True),
    Spec("qwen2-q5_0", {"": Type.Q5_0}, 128, 4, 2, 256, pre="qwen2"),
    Spec("qwen2-q6_k", {"": Type.Q6_K}, 256, 4, 2, 256, layers=1, pre="qwen2"),
    Spec("qwen2-mixed", MIX, 256, 4, 1, 256, layers=1, pre="qwen2"),
    Spec("qwen2-few-bits", FEW_BITS, 256, 4, 1, 256, layers=1, pre="qwen2"),
    Spec("qwen3-f16", {"": Type.F16}, 64, 4, 2, 96, head_dim=32, pre="qwen2"),
    Spec("qwen3-q8_0", {"": Type.Q8_0}, 64, 4, 2, 96, pre="qwen2"),
    Spec("qwen3-q4_0", {"": Type.Q4_0}, 128, 2, 1, 192, head_dim=128, pre="qwen2"),
    # Llama 3.2 has a tied head; Mistral Nemo has heads that are wider than width / heads.
    Spec("llama-q8_0-llama3", {"": Type.Q8_0}, 64, 4, 2, 96, rope_factors=True, tied=True, pre="smollm"),
    Spec("llama-q4_0-mistral", {"": Type.Q4_0}, 64, 4, 2, 96, head_dim=32),
    Spec("smollm3-f16", {"": Type.F16}, 64, 4, 2, 96, layers=4, pre="smollm"),
    Spec("smollm3-q8_0", {"": Type.Q8_0}, 64, 2, 1, 96, layers=5, pre="smollm"),
    Spec("smollm3-q4_0", {"": Type.Q4_0}, 64, 4, 4, 96, layers=4, pre="smollm"),
    Spec("granite-f16", {"": Type.F16}, 64, 4, 2, 96, pre="smollm", logit_divisor=4.0, keys=GRANITE),
    Spec("granite-q8_0", {"": Type.Q8_0}, 64, 4, 2, 96, tied=True, pre="smollm", logit_divisor=0.5, keys=GRANITE),
    Spec("granite-q5_0", {"": Type.Q5_0}, 64, 2, 2, 96, pre="smollm", logit_divisor=4.0),
    Spec("gemma3-f16", {"": Type.F16}, 64, 4, 2, 96, head_dim=32, window=WINDOW, keys=EVERY_SECOND | LINEAR),
    Spec("gemma3-q8_0", {"": Type.Q8_0}, 64, 4, 1, 96, layers=6, head_dim=32, window=WINDOW),
    Spec("gemma3-q4_0", {"": Type.Q4_0}, 64, 2, 2, 96, layers=3, window=WINDOW, keys=LISTED),
    Spec("phi3-q8_0-phi4", {"": Type.Q8_0}, 64, 2, 1, 128, rope_dims=24, tied=True, long_factors=True,
         cases=[Case(), Case(long_factors=True)]),
    Spec("gemma2-f16", {"": Type.F16}, 64, 4, 2, 96, head_dim=32, window=WINDOW, keys=CAPPED),
    Spec("gemma2-q8_0", {"": Type.Q8_0}, 64, 2, 1, 96, layers=4, window=WINDOW),
    Spec("gemma2-q5_0", {"": Type.Q5_0}, 64, 2, 2, 96, keys=CAPPED),
    Spec("qwen3moe-f16", {"": Type.F16}, 64, 4, 2, 32, pre="qwen2", head_dim=32, experts=4),
    Spec("qwen3moe-q8_0", {"": Type.Q8_0}, 64, 4, 2, 64, pre="qwen2", experts=5),
    Spec("qwen3moe-q4_0", {"": Type.Q4_0}, 64, 2, 1, 64, pre="qwen2", experts=8),
    Spec("granitemoe-f16", {"": Type.F16}, 64, 4, 2, 32, pre="smollm", experts=4, logit_divisor=4.0, keys=GRANITE),
    Spec("granitemoe-q8_0", {"": Type.Q8_0}, 64, 4, 2, 64, pre="smollm", experts=4, logit_divisor=2.0, keys=GRANITE),
    Spec("granitemoe-q5_0", {"": Type.Q5_0}, 64, 2, 2, 64, pre="smollm", experts=4, logit_divisor=2.0),
    Spec("gemma-f16", {"": Type.F16}, 64, 4, 1, 96, head_dim=32),
    Spec("gemma-q8_0", {"": Type.Q8_0}, 64, 4, 1, 96, layers=3),
    Spec("gemma-q4_0", {"": Type.Q4_0}, 64, 2, 2, 96),
    Spec("llama-q8_0-yarn", {"": Type.Q8_0}, 64, 2, 2, 96, keys=YARN),
    Spec("llama-f16-value", {"": Type.F16}, 64, 2, 1, 96, value_dim=16, peer=False),  # llama.cpp asserts equal sizes
]  # fmt: skip
