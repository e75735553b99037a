"""Write golden.bin beside this file: blocks of every weight type, with their values by the package
`gguf`.

For each type the file has its number in GGUF files, the number of bytes and the number of values
(u32 each, little-endian), then the bytes, then the values as f32. Codes and sub-block scales are
random bytes from a fixed seed. The f16 scales are random numbers that include zero, a denormal and
a negative one. The exponents of MXFP4 include both ends.

    pip install gguf==0.19.0 numpy==2.4.6
    python host/kernels/src/dequantize/golden.py           # write the file
    python host/kernels/src/dequantize/golden.py --check   # compare; exit code 1 if it is outdated
"""

import struct
import sys
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

# Offsets of the f16 numbers in a block.
SCALES = {
    Type.F32: [], Type.F16: [0], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2],
    Type.Q8_0: [0], Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2],
    Type.Q6_K: [208], Type.IQ4_NL: [0], Type.IQ4_XS: [0], Type.BF16: [], Type.MXFP4: [],
}


def main() -> int:
    random = np.random.default_rng(20)
    out = b""
    for ty, places in SCALES.items():
        elements, size = GGML_QUANT_SIZES[ty]
        count = max(1, 512 // elements)
        blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
        scales = (random.standard_normal((count, 2)) * 0.02).astype(np.float16)
        scales[0, :] = 6e-8
        scales[-1, 0] = 0.0 if elements == 32 else -0.5
        for i, place in enumerate(places):
            blocks[:, place : place + 2] = scales[:, i : i + 1].view(np.uint8)
        if ty in (Type.F32, Type.BF16):
            numbers = random.standard_normal(count).astype(np.float32).view(np.uint8).reshape(count, 4)
            blocks = numbers[:, 4 - size :]
        if ty == Type.MXFP4:
            blocks[:, 0] = [*range(6), 64, 126, 127, 128, 192, *range(251, 256)]
        values = np.asarray(dequantize(blocks, ty), dtype=np.float32).reshape(-1)
        out += struct.pack("<III", int(ty), blocks.size, values.size) + blocks.tobytes() + values.tobytes()
    path = Path(__file__).with_name("golden.bin")
    if "--check" in sys.argv[1:]:
        return int(path.read_bytes() != out)
    path.write_bytes(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
