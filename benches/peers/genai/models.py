"""Write the models of genai.py: layers of a GGUF file, as GGUF, for OpenVINO and for onnxruntime.

    python models.py cut FULL.gguf PART.gguf
    python models.py openvino PART.gguf FOLDER GROUP
    python models.py onnx PART.gguf FOLDER GROUP HEAD
    python models.py tokens PART.gguf WORD ...         prints the id of each word after a space

The architecture is phi3. A matrix of type Q4_0 keeps its values if GROUP is 32; otherwise it is
quantised again, to symmetric int4 with a scale for each GROUP columns. Graphs are those that the
exporters of the two projects write (optimum-intel; onnxruntime-genai's model builder), with their
usual types: in OpenVINO int8 for the embeddings and the output, with a scale for each row; in ONNX
f32 embeddings, and HEAD bits (4 or 8) for the output, which is computed for the last token only.
"""

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, dequantize

# Layers 2 to 9 of 32: half of them have the larger types of Q4_K_M, as in the whole.
FIRST, LAYERS = 2, 8
CONTEXT = 4096
WINDOW = 2047


def cut(full: Path, part: Path) -> None:
    """Writes a GGUF file with some layers of another."""
    reader = GGUFReader(full)
    writer = GGUFWriter(part, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == GGUFValueType.ARRAY else None
        value = LAYERS if field.name.endswith(".block_count") else field.contents()
        writer.add_key_value(field.name, value, kind, element)
    for tensor in reader.tensors:
        name = tensor.name
        if name.startswith("blk."):
            _, number, rest = name.split(".", 2)
            if not FIRST <= int(number) < FIRST + LAYERS:
                continue
            name = f"blk.{int(number) - FIRST}.{rest}"
        writer.add_tensor(name, tensor.data, raw_shape=tensor.data.shape, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Source:
    """The sizes and weights of a GGUF file."""

    def __init__(self, file: Path) -> None:
        reader = GGUFReader(file)
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}

        def key(name: str) -> int | float:
            return reader.fields[f"phi3.{name}"].contents()

        self.layers, self.width, self.heads = key("block_count"), key("embedding_length"), key("attention.head_count")
        self.epsilon = key("attention.layer_norm_rms_epsilon")
        self.base = reader.fields["phi3.rope.freq_base"].contents() if "phi3.rope.freq_base" in reader.fields else 10_000.0
        self.head = self.width // self.heads
        self.vocabulary = len(self.matrix("output"))

    def vector(self, name: str) -> np.ndarray:
        """Returns a vector, f32."""
        return np.array(self.tensors[f"{name}.weight"].data, np.float32)

    def matrix(self, name: str) -> np.ndarray:
        """Returns a matrix [rows, columns], f32."""
        tensor = self.tensors[f"{name}.weight"]
        return dequantize(tensor.data, tensor.tensor_type).astype(np.float32)

    def int4(self, name: str, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns numbers 0 to 15 [rows, groups, group], whose zero is 8, and f16 scales."""
        tensor = self.tensors[f"{name}.weight"]
        if tensor.tensor_type == GGMLQuantizationType.Q4_0 and group == 32:
            blocks = tensor.data.reshape(len(tensor.data), -1, 18)
            scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0]
            return np.concatenate([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], axis=-1), scales
        return quantised(self.matrix(name), group, 4)

    def rotation(self) -> np.ndarray:
        """Returns the frequency of each pair of a head's features."""
        return self.base ** (-np.arange(0, self.head, 2) / self.head)


def quantised(matrix: np.ndarray, group: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns numbers of `bits` [rows, groups, group], whose zero is their middle, and scales."""
    half = 1 << (bits - 1)
    groups = matrix.reshape(len(matrix), -1, group)
    scales = (np.abs(groups).max(axis=-1) / (half - 1)).astype(np.float16)
    divisors = np.where(scales == 0, 1, scales).astype(np.float32)[..., None]
    return np.clip(np.rint(groups / divisors) + half, 0, 2 * half - 1).astype(np.uint8), scales


def pairs(numbers: np.ndarray) -> np.ndarray:
    """Returns two numbers of 4 bits in each byte, the first in the low bits."""
    return numbers[..., 0::2] | numbers[..., 1::2] << 4


def openvino(source: Source, folder: Path, group: int) -> None:
    """Writes a stateful model for OpenVINO GenAI, as optimum-intel exports it."""
    import openvino as ov
    from openvino import opset13 as op

    def numbers(*values: int) -> ov.Node:
        return op.constant(np.array(values, np.int64))

    def linear(x: ov.Node, name: str) -> ov.Node:
        values, scales = source.int4(name, group)
        rows, groups, _ = values.shape
        # The nibble of x - 8 in two's complement is that of x with its highest bit flipped.
        packed = ov.Tensor(np.ascontiguousarray(pairs(values ^ 8)), ov.Shape(values.shape), ov.Type.i4)
        scaled = op.multiply(op.convert(op.constant(packed, shared_memory=False), "f16"), op.constant(scales.reshape(rows, groups, 1)))
        whole = op.reshape(scaled, numbers(rows, groups * group), False)
        return op.matmul(x, op.convert(whole, "f32"), False, True)

    def int8(name: str) -> ov.Node:
        matrix = source.matrix(name)
        values, scales = quantised(matrix, matrix.shape[1], 8)
        values = (values[:, 0].astype(np.int16) - 128).astype(np.int8)
        return op.convert(op.multiply(op.convert(op.constant(values), "f16"), op.constant(scales)), "f32")

    def norm(x: ov.Node, name: str) -> ov.Node:
        square = op.reduce_mean(op.power(x, op.constant(np.float32(2))), numbers(-1), True)
        root = op.sqrt(op.add(square, op.constant(np.float32(source.epsilon))))
        scaled = op.multiply(x, op.divide(op.constant(np.float32(1)), root))
        return op.multiply(op.constant(source.vector(name)), scaled)

    def heads(x: ov.Node) -> ov.Node:
        return op.transpose(op.reshape(x, numbers(0, 0, source.heads, source.head), True), numbers(0, 2, 1, 3))

    def rotated(x: ov.Node) -> ov.Node:
        low, high = op.variadic_split(x, numbers(-1), numbers(source.head // 2, source.head // 2)).outputs()
        turned = op.concat([op.multiply(high, op.constant(np.float32(-1))), low], -1)
        return op.add(op.multiply(x, cosines), op.multiply(turned, sines))

    def kept(x: ov.Node, state: str) -> tuple[ov.Node, ov.Node]:
        shape = ov.PartialShape([-1, source.heads, -1, source.head])
        old = op.read_value(op.broadcast(op.constant(np.float32(0)), empty), state, ov.Type.f32, shape)
        both = op.concat([op.gather(old, beams, op.constant(np.int64(0))), x], 2)
        return both, op.assign(both, state)

    tokens, mask, positions, beams = inputs = [
        op.parameter(ov.PartialShape(shape), getattr(ov.Type, kind), name=name)
        for name, shape, kind in [
            ("input_ids", [-1, -1], "i64"), ("attention_mask", [-1, -1], "i64"), ("position_ids", [-1, -1], "i64"), ("beam_idx", [-1], "i32"),
        ]
    ]  # fmt: skip
    for one in inputs:
        one.output(0).tensor.set_names({one.get_friendly_name()})
    zero = op.constant(np.int64(0))
    batch = op.gather(op.shape_of(tokens), numbers(0), zero)
    empty = op.concat([batch, numbers(source.heads, 0, source.head)], 0)
    frequencies = op.constant(source.rotation().astype(np.float32).reshape(1, -1, 1))
    angles = op.multiply(frequencies, op.convert(op.unsqueeze(positions, numbers(1)), "f32"))
    angles = op.transpose(angles, numbers(0, 2, 1))
    angles = op.concat([angles, angles], -1)
    cosines, sines = (op.unsqueeze(made, numbers(1)) for made in (op.cos(angles), op.sin(angles)))
    length = op.gather(op.shape_of(mask), op.constant(np.int64(1)), zero)
    columns = op.unsqueeze(op.range(zero, length, op.constant(np.int64(1)), "i64"), numbers(0, 1, 2))
    rows = op.unsqueeze(positions, numbers(1, 3))
    future = op.select(op.less_equal(columns, rows), op.constant(np.float32(0)), op.constant(np.float32(-65504)))

    x, sinks = op.gather(int8("token_embd"), tokens, zero), []
    for layer in range(source.layers):
        at = f"blk.{layer}"
        parts = op.variadic_split(linear(norm(x, f"{at}.attn_norm"), f"{at}.attn_qkv"), numbers(-1), numbers(*[source.width] * 3))
        q, k, v = (heads(part) for part in parts.outputs())
        k, keys = kept(rotated(k), f"past_key_values.{layer}.keypresent.{layer}.key")
        v, values = kept(v, f"past_key_values.{layer}.valuepresent.{layer}.value")
        sinks += [keys, values]
        mixed = op.scaled_dot_product_attention(rotated(q), k, v, future)
        joined = op.reshape(op.transpose(mixed, numbers(0, 2, 1, 3)), numbers(0, 0, source.width), True)
        x = op.add(x, linear(joined, f"{at}.attn_output"))
        both = linear(norm(x, f"{at}.ffn_norm"), f"{at}.ffn_up")
        wide = both.get_output_partial_shape(0)[2].get_length() // 2
        gate, up = op.variadic_split(both, numbers(-1), numbers(wide, wide)).outputs()
        x = op.add(x, linear(op.multiply(up, op.swish(gate)), f"{at}.ffn_down"))
    logits = op.matmul(norm(x, "output_norm"), int8("output"), False, True)
    logits.output(0).tensor.set_names({"logits"})
    model = ov.Model([op.result(logits)], sinks, inputs, "phi3")
    ov.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)
    config = {"model_type": "phi3", "num_hidden_layers": source.layers, "vocab_size": source.vocabulary}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": source.vocabulary - 1}))


def onnx(source: Source, folder: Path, group: int, head: int) -> None:
    """Writes a model for onnxruntime-genai, as its model builder does for int4 on a CPU."""
    from onnx import TensorProto, helper, numpy_helper, save_model

    nodes, weights = [], []

    def weight(name: str, values: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(kind: str, inputs: list[str], outputs: str | list[str], domain: str = "", **attributes: object) -> str:
        names = [outputs] if isinstance(outputs, str) else outputs
        nodes.append(helper.make_node(kind, inputs, names, names[0], domain=domain, **attributes))
        return names[0]

    def nbits(x: str, name: str, values: np.ndarray, scales: np.ndarray, bits: int = 4) -> str:
        rows, groups, size = values.shape
        packed = weight(f"{name}.B", pairs(values) if bits == 4 else values)
        scaled = weight(f"{name}.scales", scales.astype(np.float32))
        return node(
            "MatMulNBits", [x, packed, scaled], name, domain="com.microsoft", K=groups * size, N=rows, bits=bits,
            block_size=size, accuracy_level=4,
        )  # fmt: skip

    def linear(x: str, name: str) -> str:
        return nbits(x, name, *source.int4(name, group))

    def norm(x: str, added: str | None, name: str) -> tuple[str, str]:
        """Returns the norm of x plus the added, and the sum."""
        scale = weight(f"{name}.weight", source.vector(name))
        if added is None:
            return node("SimplifiedLayerNormalization", [x, scale], name, axis=-1, epsilon=source.epsilon, stash_type=1), x
        total = f"{name}/sum"
        outputs = [name, "", "", total]
        return node("SkipSimplifiedLayerNormalization", [x, added, scale], outputs, "com.microsoft", epsilon=source.epsilon), total

    def state(kind: str, layer: int, part: str, length: str) -> helper.ValueInfoProto:
        shape = ["batch_size", source.heads, length, source.head]
        return helper.make_tensor_value_info(f"{kind}.{layer}.{part}", TensorProto.FLOAT, shape)

    angles = np.outer(np.arange(CONTEXT), source.rotation())
    cosines, sines = weight("cos_cache", np.cos(angles).astype(np.float32)), weight("sin_cache", np.sin(angles).astype(np.float32))
    ones, axis = weight("one", np.array([1], np.int64)), weight("axis", np.array([1], np.int64))
    count = node("ReduceSum", ["attention_mask", axis], "count", keepdims=0)
    lengths = node("Cast", [node("Sub", [count, ones], "last")], "seqlens_k", to=TensorProto.INT32)
    whole = node("Gather", [node("Shape", ["attention_mask"], "shape"), weight("second", np.array(1, np.int64))], "length", axis=0)
    total = node("Cast", [whole], "total_seq_len", to=TensorProto.INT32)

    x, added = node("Gather", [weight("token_embd", source.matrix("token_embd")), "input_ids"], "embedded"), None
    for layer in range(source.layers):
        at = f"blk.{layer}"
        normed, x = norm(x, added, f"{at}.attn_norm")
        qkv = linear(normed, f"{at}.attn_qkv")
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        mixed = node(
            "GroupQueryAttention", [qkv, "", "", *past, lengths, total, cosines, sines],
            [f"{at}.attn", f"present.{layer}.key", f"present.{layer}.value"], "com.microsoft", num_heads=source.heads,
            kv_num_heads=source.heads, scale=source.head**-0.5, do_rotary=1, rotary_interleaved=0, local_window_size=WINDOW,
        )  # fmt: skip
        normed, x = norm(x, linear(mixed, f"{at}.attn_output"), f"{at}.ffn_norm")
        values, scales = source.int4(f"{at}.ffn_up", group)
        half = len(values) // 2
        gate = nbits(normed, f"{at}.gate", values[:half], scales[:half])
        up = nbits(normed, f"{at}.up", values[half:], scales[half:])
        active = node("Mul", [gate, node("Sigmoid", [gate], f"{at}.sigmoid")], f"{at}.active")
        added = linear(node("Mul", [active, up], f"{at}.product"), f"{at}.ffn_down")
    normed, _ = norm(x, added, "output_norm")
    ends = [weight("from", np.array([-1], np.int64)), weight("to", np.array([1 << 62], np.int64))]
    nbits(node("Slice", [normed, *ends, axis], "last_hidden"), "logits", *quantised(source.matrix("output"), 32, head), head)
    parts = [(layer, part) for layer in range(source.layers) for part in ("key", "value")]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch_size", length]) for name, length in [
        ("input_ids", "sequence_length"), ("attention_mask", "total_sequence_length"),
    ]]  # fmt: skip
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch_size", 1, source.vocabulary])]
    graph = helper.make_graph(
        nodes, "phi3", inputs + [state("past_key_values", *one, "past_sequence_length") for one in parts],
        outputs + [state("present", *one, "total_sequence_length") for one in parts], weights,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    (folder / "model.onnx.data").unlink(missing_ok=True)
    save_model(model, folder / "model.onnx", save_as_external_data=True, all_tensors_to_one_file=True, location="model.onnx.data")
    config = {
        "model": {
            "type": "phi3", "vocab_size": source.vocabulary, "context_length": CONTEXT, "bos_token_id": 1,
            "eos_token_id": source.vocabulary - 1, "pad_token_id": source.vocabulary - 1,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": "model.onnx", "head_size": source.head, "hidden_size": source.width,
                "num_attention_heads": source.heads, "num_key_value_heads": source.heads, "num_hidden_layers": source.layers,
                "inputs": {
                    "input_ids": "input_ids", "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits", "present_key_names": "present.%d.key", "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {"max_length": CONTEXT, "past_present_share_buffer": True, "do_sample": False, "num_beams": 1},
    }  # fmt: skip
    (folder / "genai_config.json").write_text(json.dumps(config, indent=1))


def main() -> None:
    """Writes one model."""
    match sys.argv[1:]:
        case ["cut", full, part]:
            cut(Path(full), Path(part))
        case ["openvino", part, folder, group]:
            openvino(Source(Path(part)), Path(folder), int(group))
        case ["onnx", part, folder, group, head]:
            onnx(Source(Path(part)), Path(folder), int(group), int(head))
        case ["tokens", part, *words]:
            pieces = GGUFReader(part).fields["tokenizer.ggml.tokens"].contents()
            numbers = {piece: number for number, piece in enumerate(pieces)}
            print(json.dumps({word: numbers[f"\u2581{word}"] for word in words}))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
