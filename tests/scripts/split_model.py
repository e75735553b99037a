"""Write tests/data/language/split-0000N-of-00003.gguf: the model phi3-q8_0-window.gguf in parts.

The package `gguf` divides it, an implementation that is independent of the engine's. The first part
has the metadata and no tensors, as `gguf-split --no-tensor-first-split` writes it.

    pip install gguf==0.19.0 numpy==2.4.6
    python tests/scripts/split_model.py
"""

from pathlib import Path

from gguf import GGUFReader, GGUFValueType, GGUFWriter

DATA = Path(__file__).parent.parent / "data" / "language"


def main() -> None:
    reader = GGUFReader(DATA / "phi3-q8_0-window.gguf")
    tensors = len(reader.tensors)
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(
        DATA / "split.gguf", architecture, split_max_tensors=(tensors + 1) // 2, small_first_shard=True
    )
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, element)
    for tensor in reader.tensors:
        writer.add_tensor(
            tensor.name, tensor.data, raw_shape=tensor.data.shape, raw_dtype=tensor.tensor_type
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
