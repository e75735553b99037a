"""Make the small text models of tests/data/text-models, in the form of a Hugging Face export.

Each folder has `config.json`, `tokenizer.json` and `onnx/model.onnx`. The tokenizers are trained on
the sentences of corpus.py. The weights are random, with a seed; the head is scaled so that scores
differ between texts. The graphs are those of torch's TorchScript exporter, which optimum uses too,
with its names: inputs `input_ids`, `attention_mask` and, for BERT, `token_type_ids`; outputs
`logits` or `last_hidden_state`; axes `batch_size` and `sequence_length`.

    pip install -r requirements-make.txt
    python make.py                 # all models, into tests/data/text-models
    python make.py roberta wordlevel --out /tmp/models

The same versions of the packages on the same processor make the same bytes.
"""

import argparse
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import onnxruntime
import torch
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16

import corpus
import small_tokenizers

DATA = Path(__file__).resolve().parent.parent / "data" / "text-models"
OPSET = 17
HIDDEN = 32
# Texts beyond this length are truncated; small, so that the tests have such texts.
MAX_TOKENS = 128
# Standard deviation of the random weights. With transformers's 0.02, all texts score alike.
WEIGHT_DEVIATION = 0.25
# Standard deviation of a logit over the sentences of the corpus.
LOGIT_DEVIATION = 2.0

JIGSAW = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
BERT = dict(
    hidden_size=HIDDEN,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=2 * HIDDEN,
    max_position_embeddings=MAX_TOKENS,
)


@dataclass
class Model:
    """One folder: configuration, tokenizer and exported graphs."""

    tokenizer: Callable[[], transformers.PreTrainedTokenizerFast]
    config: Callable[..., transformers.PretrainedConfig]
    network: type[transformers.PreTrainedModel]
    options: dict
    labels: list[str] = field(default_factory=list)
    # None, or `single_label_classification` and so on, as in config.json.
    problem_type: str | None = None
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    output: str = "logits"
    integers: torch.dtype = torch.int64
    # Also `model_fp16.onnx` and `model_quantized.onnx`. The fp16 file keeps f32 outputs or not.
    variants: bool = False
    fp16_keeps_outputs: bool = True
    # Weights of 7 bits, with a scale per channel, in the int8 file: sums of products then fit in 16
    # bits on every processor.
    int8_reduced: bool = False
    # Further files of the folder, by name.
    files: dict[str, object] = field(default_factory=dict)


WITH_TYPES = ("input_ids", "attention_mask", "token_type_ids")

MODELS = {
    "distilbert": Model(
        tokenizer=small_tokenizers.distilbert,
        config=transformers.DistilBertConfig,
        network=transformers.DistilBertForSequenceClassification,
        options=dict(
            dim=HIDDEN,
            n_layers=2,
            n_heads=4,
            hidden_dim=2 * HIDDEN,
            max_position_embeddings=MAX_TOKENS,
        ),
        labels=["neutral", "positive", "negative"],
        problem_type="single_label_classification",
        variants=True,
        int8_reduced=True,
    ),
    "roberta": Model(
        tokenizer=small_tokenizers.roberta,
        config=transformers.RobertaConfig,
        network=transformers.RobertaForSequenceClassification,
        # RoBERTa's positions start at 2.
        options=BERT | dict(max_position_embeddings=MAX_TOKENS + 2, type_vocab_size=1),
        labels=JIGSAW,
        problem_type="multi_label_classification",
        variants=True,
        fp16_keeps_outputs=False,
    ),
    "xlm-roberta": Model(
        tokenizer=small_tokenizers.xlm_roberta,
        config=transformers.XLMRobertaConfig,
        network=transformers.XLMRobertaForSequenceClassification,
        options=BERT | dict(max_position_embeddings=MAX_TOKENS + 2, type_vocab_size=1),
        labels=["not-toxic", "toxic"],
    ),
    "deberta-v2": Model(
        tokenizer=small_tokenizers.deberta_v2,
        config=transformers.DebertaV2Config,
        network=transformers.DebertaV2ForSequenceClassification,
        options=BERT
        | dict(
            relative_attention=True,
            position_buckets=16,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
            type_vocab_size=0,
            pooler_hidden_size=HIDDEN,
        ),
        labels=["SAFE", "INJECTION"],
        problem_type="single_label_classification",
    ),
    "modernbert": Model(
        tokenizer=small_tokenizers.modernbert,
        config=transformers.ModernBertConfig,
        network=transformers.ModernBertForSequenceClassification,
        options=dict(
            hidden_size=HIDDEN,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=2 * HIDDEN,
            max_position_embeddings=MAX_TOKENS,
            local_attention=16,
            global_attn_every_n_layers=3,
            reference_compile=False,
        ),
        labels=["ham", "spam"],
    ),
    "wordlevel": Model(
        tokenizer=small_tokenizers.wordlevel,
        config=transformers.BertConfig,
        network=transformers.BertForSequenceClassification,
        options=BERT,
        labels=["en", "ru", "zh", "ar"],
        problem_type="single_label_classification",
        inputs=WITH_TYPES,
        integers=torch.int32,
    ),
    "bert-ner": Model(
        tokenizer=small_tokenizers.bert_cased,
        config=transformers.BertConfig,
        network=transformers.BertForTokenClassification,
        options=BERT,
        labels=["O", "B-PER", "I-PER", "B-EMAIL", "I-EMAIL", "B-PHONE", "I-PHONE"],
        inputs=WITH_TYPES,
    ),
    "minilm-embedding": Model(
        tokenizer=small_tokenizers.minilm,
        config=transformers.BertConfig,
        network=transformers.BertModel,
        options=BERT,
        inputs=WITH_TYPES,
        output="last_hidden_state",
        files={
            "modules.json": [
                {
                    "idx": index,
                    "name": str(index),
                    "path": path,
                    "type": f"sentence_transformers.models.{kind}",
                }
                for index, (path, kind) in enumerate(
                    [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
                )
            ],
            "1_Pooling/config.json": {
                "word_embedding_dimension": HIDDEN,
                "pooling_mode_cls_token": False,
                "pooling_mode_mean_tokens": True,
                "pooling_mode_max_tokens": False,
                "pooling_mode_mean_sqrt_len_tokens": False,
            },
            "sentence_bert_config.json": {"max_seq_length": MAX_TOKENS, "do_lower_case": False},
        },
    ),
    "cross-encoder": Model(
        tokenizer=small_tokenizers.bert_uncased,
        config=transformers.BertConfig,
        network=transformers.BertForSequenceClassification,
        options=BERT
        | dict(sbert_ce_default_activation_function="torch.nn.modules.linear.Identity"),
        labels=["LABEL_0"],
        inputs=WITH_TYPES,
    ),
}


class Exported(torch.nn.Module):
    """A network with positional inputs and one output, as the exporter wants it."""

    def __init__(self, network: transformers.PreTrainedModel, model: Model):
        super().__init__()
        self.network = network
        self.names = model.inputs
        self.output = model.output

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.network(**dict(zip(self.names, tensors)), return_dict=True)[self.output]


def configured(
    model: Model, tokenizer: transformers.PreTrainedTokenizerFast
) -> transformers.PretrainedConfig:
    """Returns the configuration, with labels, ids of the control tokens and problem type."""
    special = {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id")
        for name in ("pad", "bos", "eos", "cls", "sep")
        if getattr(tokenizer, f"{name}_token") is not None
    }
    options = dict(model.options, vocab_size=len(tokenizer), **special)
    if model.labels:
        options |= dict(
            id2label=dict(enumerate(model.labels)),
            label2id={label: index for index, label in enumerate(model.labels)},
        )
    if model.problem_type:
        options["problem_type"] = model.problem_type
    config = model.config(**options)
    config.architectures = [model.network.__name__]
    return config


def randomize(network: transformers.PreTrainedModel, seed: int) -> None:
    """Sets all weights: matrices and biases random, normalizations near one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(network.named_parameters()):
            values = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(values * WEIGHT_DEVIATION)
            elif name.endswith("weight"):
                parameter.copy_(1 + 0.1 * values)
            else:
                parameter.copy_(0.1 * values)


def scale_head(
    network: transformers.PreTrainedModel, model: Model, tokenizer, texts: list[str]
) -> None:
    """Gives each logit the mean 0 and the deviation LOGIT_DEVIATION over `texts`."""
    if model.output != "logits":
        return
    if model.labels == ["LABEL_0"]:
        texts = list(zip(texts, reversed(texts)))
    rows = []
    with torch.no_grad():
        for text in texts:
            pair = text if isinstance(text, tuple) else (text,)
            tensors = tokenizer(*pair, return_tensors="pt", truncation=True, max_length=MAX_TOKENS)
            logits = network(**{name: tensors[name] for name in model.inputs}).logits
            rows.append(logits.reshape(-1, logits.shape[-1]))
        logits = torch.cat(rows)
        head = network.classifier
        head = getattr(head, "out_proj", head)
        scale = LOGIT_DEVIATION / logits.std(0)
        head.weight *= scale[:, None]
        head.bias.copy_(scale * (head.bias - logits.mean(0)))
        if "O" in model.labels:
            # More tokens outside of spans, and longer spans.
            head.bias += torch.tensor(
                [{"O": 1.5, "I": 1.0}.get(label[0], 0.0) for label in model.labels]
            )


def export(network: transformers.PreTrainedModel, model: Model, path: Path) -> None:
    """Writes the graph with torch's TorchScript exporter."""
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [5, 6, 7, 8, 9, 10]], dtype=model.integers)
    ones = torch.ones_like(ids)
    examples = {"input_ids": ids, "attention_mask": ones, "token_type_ids": torch.zeros_like(ids)}
    axes = {0: "batch_size", 1: "sequence_length"}
    is_per_token = (
        model.output == "last_hidden_state" or "TokenClassification" in model.network.__name__
    )
    dynamic = {name: axes for name in model.inputs} | {
        model.output: axes if is_per_token else {0: "batch_size"}
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Exported(network, model).eval(),
            tuple(examples[name] for name in model.inputs),
            path,
            input_names=list(model.inputs),
            output_names=[model.output],
            dynamic_axes=dynamic,
            opset_version=OPSET,
            do_constant_folding=True,
            dynamo=False,
        )


def add_variants(model: Model, folder: Path) -> None:
    """Writes the fp16 and the dynamic int8 form of `model.onnx` beside it."""
    full = folder / "model.onnx"
    half = convert_float_to_float16(onnx.load(full), keep_io_types=model.fp16_keeps_outputs)
    onnx.save(half, folder / "model_fp16.onnx")
    quantize_dynamic(
        full,
        folder / "model_quantized.onnx",
        weight_type=QuantType.QInt8,
        per_channel=model.int8_reduced,
        reduce_range=model.int8_reduced,
    )


def check(network: transformers.PreTrainedModel, model: Model, tokenizer, folder: Path) -> str:
    """Compares ONNX Runtime with torch; returns a summary.

    The lengths differ from that of the exporter's example: one short text, and a batch with padding
    and with a text of MAX_TOKENS tokens.
    """
    short, long = "Ada reads.", "Привет! 我喜欢这本书 😀 " * 20
    batches = []
    for texts in ([short], [short, long]):
        pairs = [texts, list(reversed(texts))] if model.labels == ["LABEL_0"] else [texts]
        tensors = tokenizer(
            *pairs, return_tensors="pt", padding=True, truncation=True, max_length=MAX_TOKENS
        )
        tensors = {name: tensors[name] for name in model.inputs}
        with torch.no_grad():
            expected = network(**tensors, return_dict=True)[model.output].numpy()
        real = tensors["attention_mask"].numpy().astype(bool) if expected.ndim == 3 else ...
        feeds = {name: value.to(model.integers).numpy() for name, value in tensors.items()}
        batches.append((feeds, expected, real))
    summary = []
    for path in sorted((folder / "onnx").glob("*.onnx")):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = [value.name for value in session.get_inputs()]
        assert found == list(model.inputs), (
            f"{path}: expected the inputs {model.inputs}, found {found}"
        )
        distance = 0.0
        for feeds, expected, real in batches:
            outputs = session.run([model.output], feeds)[0]
            distance = max(distance, float(np.abs(outputs[real] - expected[real]).max()))
        tolerance = {"model": 1e-4, "model_fp16": 0.05, "model_quantized": 2.0}[path.stem]
        assert distance < tolerance, f"{path}: differs from torch by {distance}"
        summary.append(f"{path.stem} {path.stat().st_size:,} bytes, distance {distance:.1e}")
    return "; ".join(summary)


def make(name: str, out: Path, texts: list[str]) -> None:
    """Writes the folder of one model."""
    model = MODELS[name]
    folder = out / name
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    tokenizer = model.tokenizer()
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            (folder / file).write_bytes((Path(scratch) / file).read_bytes())
    torch.manual_seed(corpus.SEED)
    config = configured(model, tokenizer)
    network = model.network(config).eval()
    randomize(network, corpus.SEED)
    scale_head(network, model, tokenizer, texts)
    (folder / "config.json").write_text(config.to_json_string(use_diff=True))
    for file, content in model.files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(content, indent=2) + "\n")
    export(network, model, folder / "onnx" / "model.onnx")
    if model.variants:
        add_variants(model, folder / "onnx")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    graphs = check(network, model, tokenizer, folder)
    print(f"{name}: {size:,} bytes, {len(tokenizer)} tokens; {graphs}")


def main() -> None:
    """Makes the named models, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(MODELS)}")
    parser.add_argument("--out", type=Path, default=DATA, help="default: %(default)s")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in MODELS]
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)}; known are {', '.join(MODELS)}")
    torch.set_num_threads(1)
    # onnxruntime advises a step before quantization that these graphs do not need.
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    texts = corpus.sentences(96)
    for name in arguments.names or MODELS:
        make(name, arguments.out, texts)


if __name__ == "__main__":
    main()
