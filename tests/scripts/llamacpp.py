"""llama.cpp as a reference: the calls of its C interface that the golden scripts need.

They use the ctypes declarations of llama-cpp-python. Flash attention is off, keys and values are
f32, and one thread computes, so the remaining error of llama.cpp is that of its int8 activations.

    pip install -r tests/scripts/requirements-language.txt    # compiles llama.cpp

`benches/peers/llamacpp.py build` also makes an environment, with the compiler of the comparisons.
"""

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np

F32 = 0  # GGML_TYPE_F32
FLASH_ATTENTION_OFF = 0  # LLAMA_FLASH_ATTN_TYPE_DISABLED


ERROR = 4  # GGML_LOG_LEVEL_ERROR
errors: list[str] = []


@llama_cpp.llama_log_callback
def _keep_errors(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
    """Collects errors for exception messages; drops warnings and progress."""
    if level == ERROR:
        errors.append(text.decode(errors="replace").strip())


llama_cpp.llama_log_set(_keep_errors, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


class Model:
    """A GGUF file and one context over it."""

    def __init__(self, path: Path, context: int, threads: int = 1):
        parameters = llama_cpp.llama_model_default_params()
        parameters.use_extra_bufts = False  # weights in the layout of the file, not repacked
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.model:
            raise ValueError(f"`{path}`: llama.cpp cannot load the file: {'; '.join(errors)}")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = context
        settings.n_threads = settings.n_threads_batch = threads
        settings.type_k = settings.type_v = F32
        settings.flash_attn_type = FLASH_ATTENTION_OFF
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        if not self.context:
            raise ValueError(f"`{path}`: llama.cpp cannot create a context of {context} tokens")
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        self.batch = llama_cpp.llama_batch_init(context, 0, 1)
        self.position = 0

    def close(self) -> None:
        """Frees the memory."""
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self) -> None:
        """Clears the sequence."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self.position = 0

    def append(self, tokens: list[int], every: bool = False) -> np.ndarray:
        """Appends tokens. Returns logits f32 (rows, vocabulary): of the last token or of all."""
        for row, token in enumerate(tokens):
            self.batch.token[row] = token
            self.batch.pos[row] = self.position + row
            self.batch.n_seq_id[row] = 1
            self.batch.seq_id[row][0] = 0
            self.batch.logits[row] = every or row + 1 == len(tokens)
        self.batch.n_tokens = len(tokens)
        code = llama_cpp.llama_decode(self.context, self.batch)
        if code != 0:
            raise ValueError(f"llama_decode returned {code} for {len(tokens)} tokens at position {self.position}")
        self.position += len(tokens)
        rows = len(tokens) if every else 1
        flat = llama_cpp.llama_get_logits(self.context)
        return np.ctypeslib.as_array(flat, shape=(rows, self.size)).copy()

    def is_end(self, token: int) -> bool:
        """Returns True if this token ends a generation."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocabulary, token))

    def encode(self, text: str, control: bool) -> list[int]:
        """Returns the ids of a text, without a beginning-of-sequence token.

    With `control`, the names of control tokens in the text become control tokens.
    """
        raw = text.encode()
        room = (llama_cpp.llama_token * (len(raw) + 16))()
        count = llama_cpp.llama_tokenize(self.vocabulary, raw, len(raw), room, len(room), False, control)
        if count < 0:
            raise ValueError(f"llama_tokenize returned {count} for {text!r}")
        return list(room[:count])

    def piece(self, token: int) -> bytes:
        """Returns the text of a token; empty for a control token."""
        room = ctypes.create_string_buffer(256)
        count = llama_cpp.llama_token_to_piece(self.vocabulary, token, room, len(room), 0, False)
        return room.raw[: max(count, 0)]


def quantize(kind: int, values: np.ndarray) -> np.ndarray:
    """Quantises an f32 matrix to blocks of a ggml type, u8 (rows, bytes), with ggml's quantiser."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    ggml = ctypes.CDLL(str(folder / "libggml-base.so"))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
    ]  # fmt: skip
    ggml.ggml_row_size.restype = ctypes.c_size_t
    ggml.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    values = np.ascontiguousarray(values, np.float32)
    rows, columns = values.shape
    out = np.zeros((rows, ggml.ggml_row_size(kind, columns)), np.uint8)
    written = ggml.ggml_quantize_chunk(kind, values.ctypes.data, out.ctypes.data, 0, rows, columns, None)
    if written != out.nbytes:
        raise ValueError(f"ggml_quantize_chunk wrote {written} bytes of type {kind}, expected {out.nbytes}")
    return out
